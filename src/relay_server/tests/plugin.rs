//! A write policy plugin at the relay: who is told what, and about what it is asked. The clock runs: so does the plugin.

use std::path::Path;

use super::*;
use crate::plugin::{AskedAbout, Plugin, PluginCommand, PluginFailure, PluginOptions};

/// Answers each line by what the content says is to be done, and writes it to a file.
fn rules(asked: &Path) -> PluginCommand {
    let script = format!(
        "while read -r line; do printf '%s\\n' \"$line\" >> '{}'; printf '%s\\n' \"$line\" | sed -e \
         's/.*\"id\":\"\\([0-9a-f]*\\)\".*\"content\":\"\\([a-zA-Z]*\\) \\([^\"]*\\)\".*/{{\"id\":\"\\1\",\"action\":\"\\2\",\"msg\":\"\\3\"}}/'; \
         done",
        asked.display()
    );
    let words = ["sh", "-c", &script].map(str::to_owned);
    PluginCommand::try_from(words.to_vec()).expect("a command")
}

struct Ruled {
    relay: Relay,
    asked: tempfile::TempDir,
    // The plugin ends when nobody can reconfigure it any more.
    _options: watch::Sender<Option<Arc<PluginOptions>>>,
}

impl Ruled {
    fn with(change: impl FnOnce(&mut PluginOptions)) -> Self {
        let asked = tempfile::tempdir().unwrap();
        let mut options = PluginOptions {
            command: rules(&asked.path().join("lines")),
            timeout: Duration::from_secs(30),
            on_failure: PluginFailure::Reject,
            asks: BTreeSet::from([AskedAbout::Clients]),
        };
        change(&mut options);
        let options = watch::Sender::new(Some(Arc::new(options)));
        let (plugin, keeper) = Plugin::new(options.subscribe());
        let relay = Relay::with(|context| context.plugin = Some(plugin));
        relay.tasks.spawn(keeper.run()).unwrap();
        Self {
            relay,
            asked,
            _options: options,
        }
    }

    /// The questions so far.
    fn questions(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.asked.path().join("lines")).unwrap_or_default();
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn saying(content: &str) -> Event {
    event(1, 1, 10, &[], content)
}

#[tokio::test]
async fn what_the_plugin_says_is_done_and_told() {
    let ruled = Ruled::with(|_| {});
    let mut client = ruled.relay.local().await;
    let accepted = saying("accept it");
    let (rejected, prefixed) = (saying("reject no friends"), saying("reject pow: more work"));
    let shadowed = saying("shadowReject hush");
    assert_eq!(client.offer(&accepted).await, (true, String::new()));
    let said = client.offer(&rejected).await;
    assert_eq!(said, (false, "blocked: no friends".to_owned()));
    let said = client.offer(&prefixed).await;
    assert_eq!(said, (false, "pow: more work".to_owned()));
    assert_eq!(client.offer(&shadowed).await, (true, String::new()));
    assert_eq!(
        client.query(&[json!({})]).await,
        ids(std::slice::from_ref(&accepted))
    );

    let questions = ruled.questions();
    assert_eq!(questions.len(), 4);
    assert_eq!(questions[0]["type"], "new");
    assert_eq!(questions[0]["event"], json!(accepted));
    assert_eq!(questions[0]["receivedAt"], NOW);
    assert_eq!(questions[0]["sourceType"], "IP4");
    assert_eq!(questions[0]["sourceInfo"], "127.0.0.1");
}

#[tokio::test]
async fn it_is_asked_only_about_what_is_new_genuine_and_may_enter() {
    let ruled = Ruled::with(|_| {});
    let known = saying("accept known");
    ruled.relay.store(std::slice::from_ref(&known)).await;
    let mut forged = saying("accept forged");
    forged.sig = known.sig;
    let protected = event(1, 1, 9, &[&["-"]], "accept protected");
    let mut client = ruled.relay.local().await;
    for (event, accepted, prefix) in [
        (&known, true, "duplicate: "),
        (&forged, false, "invalid: bad signature"),
        (&protected, false, "auth-required: "),
    ] {
        let (is_accepted, reason) = client.offer(event).await;
        assert!(
            is_accepted == accepted && reason.starts_with(prefix),
            "{reason}"
        );
    }
    let mut stranger = ruled.relay.stranger().await;
    let (is_accepted, reason) = stranger.offer(&saying("accept mine")).await;
    assert!(
        !is_accepted && reason.starts_with("restricted: "),
        "{reason}"
    );
    assert_eq!(ruled.questions(), [json!(null); 0]);
}

#[tokio::test]
async fn about_stations_it_is_asked_if_so_configured() {
    for asks_stations in [false, true] {
        let ruled = Ruled::with(|options| {
            if asks_stations {
                options.asks = BTreeSet::from([AskedAbout::Stations]);
            }
        });
        let station = RemoteParty::station("12D3KooWStation");
        let mut client = ruled.relay.connect(station).await;
        let (is_accepted, _) = client.offer(&saying("reject from a station")).await;
        assert_eq!(is_accepted, !asks_stations);
        let questions = ruled.questions();
        assert_eq!(questions.len(), usize::from(asks_stations));
        if let [question] = &questions[..] {
            assert_eq!(question["sourceType"], "Stream");
            assert_eq!(question["sourceInfo"], "12D3KooWStation");
        }
        let mut local = ruled.relay.local().await;
        let (is_accepted, _) = local.offer(&saying("reject from a client")).await;
        assert_eq!(is_accepted, asks_stations);
    }
}

#[tokio::test]
async fn one_that_hangs_holds_up_nobody_and_nothing_else() {
    let hangs = || {
        let words = ["sh", "-c", "sleep 600"].map(str::to_owned);
        PluginCommand::try_from(words.to_vec()).expect("a command")
    };
    for (policy, is_stored) in [
        (PluginFailure::Accept, true),
        (PluginFailure::Reject, false),
    ] {
        let ruled = Ruled::with(|options| {
            options.command = hangs();
            options.timeout = Duration::from_millis(300);
            options.on_failure = policy;
        });
        let mut client = ruled.relay.local().await;
        let offered = saying("accept it");
        client.say(json!(["EVENT", offered])).await;
        // Answered although the event before it waits.
        let counted = client.ask(json!(["COUNT", "c", {"ids": []}])).await;
        assert_eq!(counted, json!(["COUNT", "c", {"count": 0}]));
        let ok = client.hear().await;
        assert_eq!((&ok[0], &ok[2]), (&json!("OK"), &json!(is_stored)), "{ok}");
        if !is_stored {
            assert!(ok[3].as_str().unwrap().starts_with("error: "), "{ok}");
        }
        let stored = if is_stored {
            ids(&[offered])
        } else {
            Vec::new()
        };
        assert_eq!(client.query(&[json!({})]).await, stored);
    }
}
