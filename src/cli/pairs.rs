//! `constellation diff` and `constellation mirror`.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::pair_arguments::{DiffArguments, MirrorArguments, PairArguments, PairAuthors};
use super::pair_sides::Reached;
use super::progress::ProgressView;
use super::sync::left_over;
use super::table::{bytes, seconds};
use crate::graph::Graph;
use crate::pairs::{
    Method, PairContext, PairOutcome, PairProgress, PairReport, PairRequest, PairTask, SideReport,
    run,
};
use crate::peer::PeerAddress;
use crate::random::Random;
use crate::relay_client::NostrKey;
use crate::sync::{AuthorsSpec, Deadlines, SyncRequest, plan};
use crate::tasks::TaskGroup;
use crate::time::Clock;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ids shown of each side; the JSON has more.
const IDS_SHOWN: usize = 20;
/// Two conversations at a time, and those of an attempt before that are about to end.
const TASKS_MAX: usize = 8;

pub(super) async fn diff(global: &Global, arguments: DiffArguments) -> Result<Exit, Failure> {
    carry_out(global, arguments.pair, PairTask::Compare).await
}

pub(super) async fn mirror(global: &Global, arguments: MirrorArguments) -> Result<Exit, Failure> {
    let MirrorArguments {
        pair,
        direction,
        dry_run,
    } = arguments;
    let task = if dry_run {
        PairTask::DryRun(direction)
    } else {
        PairTask::Mirror(direction)
    };
    carry_out(global, pair, task).await
}

async fn carry_out(
    global: &Global,
    arguments: PairArguments,
    task: PairTask,
) -> Result<Exit, Failure> {
    let sides = [arguments.first.clone(), arguments.second.clone()];
    let reached = Reached::sides(global, sides).await?;
    let done = between(global, &reached, arguments, task).await;
    reached.close().await;
    done
}

async fn between(
    global: &Global,
    reached: &Reached,
    arguments: PairArguments,
    task: PairTask,
) -> Result<Exit, Failure> {
    let json = arguments.json;
    let clock = Clock::system();
    let addresses = reached.addresses.clone();
    let request = request_of(global, arguments, addresses, task, &clock)?;
    let random = Random::system();
    let tasks = TaskGroup::new(TASKS_MAX);
    let (progress, announced) = tokio::sync::watch::channel(PairProgress::default());
    let context = PairContext {
        dialer: Arc::clone(&reached.dialer),
        nostr_key: nostr_key(global, &random).await?,
        clock,
        random,
        tasks: tasks.clone(),
        deadlines: Deadlines::default(),
        progress,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut view = ProgressView::new(!json);
    let names = request.addresses.each_ref().map(PeerAddress::written);
    let mut work = std::pin::pin!(run(&context, &request));
    let report = loop {
        tokio::select! {
            report = &mut work => break Some(report),
            _ = interrupt.recv() => break None,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let progress = *announced.borrow();
                let named: Vec<_> = names.iter().cloned().zip(progress).collect();
                view.show(&named);
            }
        }
    };
    view.finish();
    tasks.end().await;
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    if json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        print(&report, task)?;
    }
    // Nothing was to be moved: what would be is shown.
    let is_shown = matches!(task, PairTask::DryRun(_)) && report.outcome == PairOutcome::Partial;
    let is_whole = report.unresolved.is_empty() && !report.is_cut_off;
    Ok(if is_shown && is_whole {
        Exit::Done
    } else {
        Exit::of_pair(&report)
    })
}

/// The kinds and window are those that a run with these options would have.
fn request_of(
    global: &Global,
    arguments: PairArguments,
    addresses: [PeerAddress; 2],
    task: PairTask,
    clock: &Clock,
) -> Result<PairRequest, Failure> {
    let wanted = SyncRequest {
        days: arguments.days,
        since: arguments.since,
        until: arguments.until,
        peers: addresses.to_vec(),
        kinds: arguments.kinds,
        dms: arguments.dms,
        // Whose events are meant is said here, not in the configuration.
        authors: Some(AuthorsSpec::All),
        ..SyncRequest::default()
    };
    let scope = global.load_config()?.scope;
    let now = clock.unix_seconds();
    let planned = plan(
        &wanted,
        &[],
        &scope,
        &Graph::default(),
        Deadlines::default(),
        now,
    )
    .map_err(Failure::usage)?;
    let [first, _] = &planned.exchanges[..] else {
        return Err(Failure::usage("A and B are the same relay"));
    };
    Ok(PairRequest {
        task,
        kinds: first.scope.kinds.clone(),
        authors: match arguments.authors {
            PairAuthors::All => None,
            PairAuthors::These(keys) => Some(keys),
        },
        since: first.since,
        until: first.until,
        addresses,
    })
}

/// The station's key where there is one: relays may know it. Else one for this command; no data directory is made.
async fn nostr_key(global: &Global, random: &Random) -> Result<NostrKey, Failure> {
    let path = global.data_directory()?.nostr_key();
    Ok(if tokio::fs::try_exists(&path).await.unwrap_or(false) {
        NostrKey::at(path, random.clone())
    } else {
        NostrKey::passing(random.clone())
    })
}

fn print(report: &PairReport, task: PairTask) -> Result<(), Failure> {
    let moves = matches!(task, PairTask::Mirror(_));
    let sides = [
        ("A", &report.a, &report.only_a),
        ("B", &report.b, &report.only_b),
    ];
    for (name, side, only) in sides {
        print_side(name, side, moves)?;
        for id in only.iter().take(IDS_SHOWN) {
            outln!("  only here: {id}");
        }
        let more = side.only.unwrap_or(0).saturating_sub(IDS_SHOWN as u64);
        if more > 0 {
            outln!("  and {more} more");
        }
    }
    for left in &report.unresolved {
        outln!("left over of {}: {}", left.side, left_over(&left.what));
    }
    if report.is_cut_off {
        outln!("more differs than is held at a time: name a window, kinds or authors");
    }
    let word = match (report.outcome, task) {
        (PairOutcome::Converged, PairTask::Compare) => "equal",
        (PairOutcome::Partial, PairTask::Compare) => "different",
        (outcome, _) => outcome.as_str(),
    };
    outln!("{word}, {}", seconds(report.duration_ms));
    Ok(())
}

fn print_side(name: &str, side: &SideReport, moves: bool) -> Result<(), Failure> {
    let method = match side.method {
        Some(Method::Negentropy) => "negentropy",
        Some(Method::Windows) => "windows",
        None => "not compared",
    };
    let only = side.only.map_or("?".to_owned(), |only| only.to_string());
    outln!(
        "{name}  {}  {method}  {only} only here  rounds {}  {} in, {} out",
        side.address,
        side.rounds,
        bytes(side.bytes_in),
        bytes(side.bytes_out)
    );
    if let Some(error) = &side.error {
        outln!("  failed: {}", error.detail);
    }
    if moves {
        outln!("  gave {}, took {}", side.delivered, side.taken);
    }
    let listed = |reasons: Vec<String>| reasons.join(", ");
    if !side.rejected.is_empty() {
        let reasons = side.rejected.iter();
        let reasons = reasons.map(|(reason, count)| format!("{reason} {count}"));
        outln!(
            "  gave what is not passed on: {}",
            listed(reasons.collect())
        );
    }
    if !side.refused.is_empty() {
        let reasons = side.refused.iter();
        let reasons = reasons.map(|(reason, count)| format!("{reason} {count}"));
        outln!("  refused: {}", listed(reasons.collect()));
    }
    Ok(())
}
