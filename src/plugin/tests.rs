//! The plugin's keeper with real programs: shell scripts that answer, hang, die or talk nonsense.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process_group};

use super::*;
use crate::limits::PLUGIN_QUESTIONS_MAX;
use crate::protocol::hex;
use crate::tasks::TaskGroup;

const LONG: Duration = Duration::from_secs(60);

/// Answers each line, in reverse order of two, by what the event says is to be done.
const RULES: &str = r#"
answer() { printf '%s\n' "$1" | sed -e 's/.*"id":"\([0-9a-f]*\)".*"content":"\([a-zA-Z]*\)".*/{"id":"\1","action":"\2","msg":"so"}/'; }
while read -r one && read -r two; do answer "$two"; answer "$one"; done"#;

fn options(script: &str, timeout: Duration, on_failure: PluginFailure) -> Arc<PluginOptions> {
    let words = ["sh", "-c", script].map(str::to_owned).to_vec();
    Arc::new(PluginOptions {
        command: PluginCommand::try_from(words).expect("a command"),
        timeout,
        on_failure,
        asks: BTreeSet::from([AskedAbout::Clients]),
    })
}

struct Kept {
    plugin: Plugin,
    options: watch::Sender<Option<Arc<PluginOptions>>>,
    tasks: TaskGroup,
}

impl Kept {
    fn start(options: Arc<PluginOptions>) -> Self {
        let options = watch::Sender::new(Some(options));
        let (plugin, keeper) = Plugin::new(options.subscribe());
        let tasks = TaskGroup::new(1);
        tasks.spawn(keeper.run()).expect("room");
        Self {
            plugin,
            options,
            tasks,
        }
    }

    async fn ask(&self, number: u8, action: &str) -> Ruling {
        self.ask_at_length([number; 32], action, 0).await
    }

    /// The same with so many bytes more in the event.
    async fn ask_at_length(&self, id: [u8; 32], action: &str, more: usize) -> Ruling {
        let event = format!(
            "{{\"id\":\"{}\",\"content\":\"{action}\",\"sig\":\"{}\"}}",
            hex::encode(&id),
            "x".repeat(more)
        );
        let question = Question {
            id,
            event: &event,
            received_at: 1_700_000_000,
            source_type: SourceType::Ip4,
            source_info: "192.0.2.1".to_owned(),
        };
        let options = self.options.borrow().clone().expect("a plugin");
        timeout(LONG, self.plugin.ask(&options, &question))
            .await
            .expect("never longer than its time")
    }
}

#[test]
fn questions_and_answers_are_written_as_strfry_does() {
    let question = Question {
        id: [7; 32],
        event: "{\"id\":\"07\",\"content\":\"a\\nb\"}",
        received_at: 5,
        source_type: SourceType::Ip6,
        source_info: "::1".to_owned(),
    };
    assert_eq!(
        question.to_line(),
        "{\"type\":\"new\",\"event\":{\"id\":\"07\",\"content\":\"a\\nb\"},\"receivedAt\":5,\"sourceType\":\"IP6\",\
         \"sourceInfo\":\"::1\"}\n"
    );
    let id = hex::encode(&[7; 32]);
    let read = |action: &str| {
        let line =
            format!("{{\"id\":\"{id}\",\"action\":\"{action}\",\"msg\":\"why\",\"more\":1}}\n");
        line::read_answer(line.as_bytes())
    };
    assert_eq!(read("accept"), Some(([7; 32], Ruling::Accept)));
    let rejected = Ruling::Reject("why".to_owned());
    assert_eq!(read("reject"), Some(([7; 32], rejected)));
    assert_eq!(read("shadowReject"), Some(([7; 32], Ruling::ShadowReject)));
    assert_eq!(read("shrug"), None);
    assert_eq!(
        line::read_answer(b"{\"id\":\"07\",\"action\":\"accept\"}"),
        None
    );
}

#[tokio::test]
async fn answers_out_of_order_find_whoever_asked() {
    let kept = Kept::start(options(RULES, LONG, PluginFailure::Reject));
    // The program answers nothing before it has read two.
    let (one, two, same, again) = tokio::join!(
        kept.ask(1, "accept"),
        kept.ask(2, "reject"),
        kept.ask(3, "shadowReject"),
        kept.ask(3, "shadowReject"),
    );
    assert_eq!(one, Ruling::Accept);
    assert_eq!(two, Ruling::Reject("so".to_owned()));
    assert_eq!((same, again), (Ruling::ShadowReject, Ruling::ShadowReject));
    kept.tasks.end().await;
}

#[tokio::test]
async fn whatever_goes_wrong_the_stated_policy_decides_in_time() {
    let short = Duration::from_millis(300);
    for script in [
        "sleep 600",
        "cat >/dev/null",
        "exit 1",
        "read line; exit 0",
        "read line; kill -9 $$",
        "while read line; do echo garbage; done",
        "while read line; do echo '{\"id\":\"00\",\"action\":\"accept\"}'; done",
        "exec yes",
        "exec yes | tr -d '\\n'",
    ] {
        for (policy, ruling) in [
            (PluginFailure::Accept, Ruling::Accept),
            (PluginFailure::Reject, Ruling::Unanswered),
        ] {
            let kept = Kept::start(options(script, short, policy));
            for number in 0..3 {
                assert_eq!(kept.ask(number, "accept").await, ruling, "{script}");
            }
            kept.tasks.end().await;
        }
    }
    let words = vec!["/nowhere/policy".to_owned()];
    let absent = PluginOptions {
        command: PluginCommand::try_from(words).expect("a command"),
        ..PluginOptions::clone(&options("", short, PluginFailure::Reject))
    };
    let kept = Kept::start(Arc::new(absent));
    assert_eq!(kept.ask(1, "accept").await, Ruling::Unanswered);
}

#[tokio::test]
async fn one_that_dies_or_hangs_is_started_anew_and_answers_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for fault in ["exit 1", "sleep 600", "echo nonsense; sleep 600"] {
        let flag = folder.path().join("failed-once");
        drop(std::fs::remove_file(&flag));
        // Faulty the first time.
        let script = format!(
            "if mkdir '{0}' 2>/dev/null; then read line; {fault}; fi; rmdir '{0}'; \
             while read -r line; do printf '%s\\n' \"$line\" | sed -e \
             's/.*\"id\":\"\\([0-9a-f]*\\)\".*/{{\"id\":\"\\1\",\"action\":\"accept\"}}/'; done",
            flag.display()
        );
        let silence = Duration::from_millis(500);
        let kept = Kept::start(options(&script, silence, PluginFailure::Reject));
        assert_eq!(kept.ask(1, "x").await, Ruling::Unanswered, "{fault}");
        let answering = async {
            while kept.ask(2, "x").await != Ruling::Accept {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, answering).await.expect("it answers again");
        kept.tasks.end().await;
    }
}

/// What a script wrote into a file: its process group's number.
async fn group_of(path: &std::path::Path) -> Pid {
    let waiting = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if let Some(line) = text.strip_suffix('\n') {
                return line.parse::<i32>().expect("a number");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let number = timeout(LONG, waiting).await.expect("it started");
    Pid::from_raw(number).expect("a process group")
}

async fn gone(group: Pid) {
    let waiting = async {
        while test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("the group is gone");
}

#[tokio::test]
async fn it_ends_with_all_that_it_started_when_it_is_replaced_and_when_its_keeper_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = ["one", "two"].map(|name| folder.path().join(name));
    let [one, two] = [0, 1].map(|place: usize| {
        let script = format!(
            "echo $$ > {}; sleep 600 & cat >/dev/null",
            paths[place].display()
        );
        options(&script, LONG, PluginFailure::Reject)
    });
    let kept = Kept::start(one);
    let first = group_of(&paths[0]).await;
    kept.options.send_replace(Some(two));
    gone(first).await;
    let second = group_of(&paths[1]).await;
    assert!(test_kill_process_group(second).is_ok(), "it runs");
    kept.tasks.end().await;
    gone(second).await;
}

#[tokio::test]
async fn more_questions_than_it_takes_wait_and_none_is_lost() {
    let kept = Kept::start(options(RULES, LONG, PluginFailure::Accept));
    // More than are taken at a time, and more bytes than the queue, the pipes and what waits to be written hold.
    let asking = (0..2 * PLUGIN_QUESTIONS_MAX).map(|number| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        kept.ask_at_length(id, "reject", 2_000)
    });
    let rulings = futures_util::future::join_all(asking).await;
    let rejected = Ruling::Reject("so".to_owned());
    assert!(rulings.iter().all(|ruling| *ruling == rejected));
    kept.tasks.end().await;
}

/// All questions were written at once, and each was given up five seconds after it was asked: a slow plugin ruled about events
/// that nobody waited for any more, for ever.
#[tokio::test]
async fn a_slow_plugin_is_not_buried_under_questions_that_nobody_waits_for() {
    let slow = r#"while read -r line; do sleep 0.2; printf '%s\n' "$line" |
        sed -e 's/.*"id":"\([0-9a-f]*\)".*/{"id":"\1","action":"accept"}/'; done"#;
    let timeout = Duration::from_secs(2);
    let kept = Kept::start(options(slow, timeout, PluginFailure::Reject));
    let crowd = futures_util::future::join_all((0..60).map(|number| kept.ask(number, "accept")));
    let answered = crowd.await;
    let accepted = answered
        .iter()
        .filter(|ruling| **ruling == Ruling::Accept)
        .count();
    // Two seconds of waiting at five rulings a second, and those it had then.
    assert!((1..=25).contains(&accepted), "{accepted} of 60");
    // Whoever comes afterwards finds nobody in the way.
    for number in 100..103 {
        assert_eq!(kept.ask(number, "accept").await, Ruling::Accept);
    }
    kept.tasks.end().await;
}
