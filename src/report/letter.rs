//! A report as it is sent: a summary, why it is told, and what is said about reports that never went.
//!
//! What text and HTML have in common: headings, metrics and sentences, put into words once. Pure.

use super::deciding::{Occasion, State};
use super::disk::Fills;
use super::numbers::{bytes, counted, moment, seconds, span, thousands};
use super::summary::{Counts, Covers, PeerSummary, Summary};

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'l> {
    /// What is told.
    pub summary: &'l Summary,
    /// Why.
    pub occasion: Occasion,
    /// Lines of older reports that were never sent.
    pub earlier: &'l [String],
    /// How many reports were given up.
    pub dropped: u64,
}

impl<'l> Letter<'l> {
    /// A summary alone, because somebody asked for it.
    pub fn asked(summary: &'l Summary) -> Self {
        Self {
            summary,
            occasion: Occasion::Asked,
            earlier: &[],
            dropped: 0,
        }
    }

    /// How things stand, in a few words.
    pub(super) fn heading(&self) -> String {
        let away = self.summary.peers_failed;
        match (self.summary.state, self.occasion) {
            (State::Well, _) if self.summary.dry_run => "Compared, nothing moved".to_owned(),
            // Whoever was merely away, or asleep, is no fault yet; neither is it equal.
            (State::Well, _) if away > 0 => format!(
                "No fault, but {} away",
                counted(away, "peer was", "peers were")
            ),
            (State::Well, Occasion::Change) => "All is well again".to_owned(),
            (State::Well, _) => "All is well".to_owned(),
            (State::Partial, Occasion::Digest) => "Something is left over".to_owned(),
            (State::Partial, _) => "Not everything could be made equal".to_owned(),
            (State::Failed, Occasion::Digest) => "Runs fail".to_owned(),
            (State::Failed, _) => "The run failed".to_owned(),
        }
    }

    /// The first line of a mail: what happened, for whoever sees nothing else.
    pub(super) fn subject(&self) -> String {
        let summary = self.summary;
        let daily = match summary.covers {
            Covers::Digest { .. } => "daily report: ",
            Covers::Run => "",
        };
        let heading = self.heading();
        let mut letters = heading.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        let heading: String = first.into_iter().chain(letters).collect();
        format!(
            "{}: {daily}{heading} ({} of {} peers equal, {} collected)",
            summary.station.name,
            thousands(summary.peers_succeeded),
            thousands(summary.peers_total),
            counted(summary.stored, "event", "events")
        )
    }

    /// The sentence below it.
    pub(super) fn introduction(&self) -> String {
        let summary = self.summary;
        let peers = format!(
            "{} of {} equal with this station",
            thousands(summary.peers_succeeded),
            counted(summary.peers_total, "peer", "peers")
        );
        match &summary.covers {
            Covers::Run if summary.dry_run => format!(
                "A comparison of {} on {}: nothing was moved.",
                counted(summary.peers_total, "peer", "peers"),
                moment(&summary.started_at)
            ),
            Covers::Run => format!(
                "Run of {}, {}. {peers}.",
                moment(&summary.started_at),
                seconds(summary.duration_ms)
            ),
            Covers::Digest {
                since,
                until,
                runs,
                converged,
            } => format!(
                "{} from {} to {}, {} of them with everybody. {peers}.",
                counted(*runs, "run", "runs"),
                moment(since),
                moment(until),
                thousands(*converged)
            ),
        }
    }

    /// The figures that are told first: label and value.
    pub(super) fn metrics(&self) -> Vec<(&'static str, String)> {
        let summary = self.summary;
        let mut metrics = vec![
            ("Total peers", thousands(summary.peers_total)),
            ("Successful", thousands(summary.peers_succeeded)),
            ("Failed", thousands(summary.peers_failed)),
            ("Events collected", thousands(summary.stored)),
            ("Events given", thousands(summary.uploaded)),
        ];
        if let Some(authors) = summary.authors_received {
            metrics.push(("Distinct authors", thousands(authors)));
        }
        metrics
    }

    /// What is told about authors and the store: label and value.
    pub(super) fn details(&self) -> Vec<(&'static str, String)> {
        let summary = self.summary;
        let mut details = Vec::new();
        let scope = match (summary.authors_in_scope, summary.graph) {
            (None, _) => "all".to_owned(),
            (Some(authors), Some(graph)) if graph.members > 0 => format!(
                "{} ({} members, {} whom they follow, {} whom those follow)",
                thousands(authors),
                thousands(graph.members),
                thousands(graph.n1),
                thousands(graph.n2)
            ),
            (Some(authors), _) => thousands(authors),
        };
        details.push(("Authors shared", scope));
        if let Some((found, missing)) = summary.profiles {
            details.push((
                "Profiles of authors received",
                format!("{} found, {} missing", thousands(found), thousands(missing)),
            ));
        }
        details.push((
            "Traffic",
            format!(
                "{} in, {} out",
                bytes(summary.bytes_in),
                bytes(summary.bytes_out)
            ),
        ));
        if let Some(disk) = summary.disk {
            let free = disk.free_bytes.map_or_else(String::new, |free| {
                format!(", {} left on the disk", bytes(free))
            });
            details.push(("Store", format!("{}{free}", bytes(disk.store_bytes))));
            details.push(("Disk full", fills(disk.fills)));
        }
        details
    }

    /// What is said about reports that were never sent.
    pub(super) fn unsent(&self) -> Option<String> {
        (self.dropped > 0).then(|| {
            format!(
                "{} dropped: they could not be sent for too long.",
                counted(self.dropped, "earlier report was", "earlier reports were")
            )
        })
    }

    /// How many authors were seen for the first time, and who.
    pub(super) fn newcomers(&self) -> Option<(String, Vec<String>)> {
        let summary = self.summary;
        let total = summary.first_seen.filter(|total| *total > 0)?;
        let named = summary.first_seen_named.iter().map(|author| {
            let key: String = author.pubkey.chars().take(8).collect();
            match &author.name {
                Some(name) => format!("{name} ({key}…)"),
                None => format!("{key}…"),
            }
        });
        let named: Vec<String> = named.collect();
        let mut heading = counted(total, "author", "authors");
        heading.push_str(" seen for the first time");
        Some((heading, named))
    }

    /// How many of them are not named.
    pub(super) fn newcomers_not_named(&self) -> u64 {
        let named = self.summary.first_seen_named.len() as u64;
        self.summary
            .first_seen
            .unwrap_or_default()
            .saturating_sub(named)
    }

    /// Whoever wrote it, and how to get more.
    pub(super) fn footer(&self) -> String {
        format!(
            "Run {} of station {}. More: constellation report --run {} --json",
            self.summary.run_id, self.summary.station.peer_id, self.summary.run_id
        )
    }
}

/// What was not taken in one exchange, and by whom.
pub(super) fn refusals_of(peer: &PeerSummary) -> Vec<String> {
    let line = |whom: &str, reasons: &Counts| {
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| {
                format!("{} {}", reason.replace(['_', '-'], " "), thousands(*count))
            })
            .collect();
        (!reasons.is_empty()).then(|| format!("Not taken by {whom}: {}", reasons.join(", ")))
    };
    let here = line("us", &peer.rejected);
    here.into_iter()
        .chain(line("the peer", &peer.refused_by_peer))
        .collect()
}

/// What is told about one exchange: label and value.
pub(super) fn facts_of(peer: &PeerSummary) -> Vec<(&'static str, String)> {
    let after = |before: u64, after: Option<u64>| match after {
        Some(after) => format!("{} → {}", thousands(before), thousands(after)),
        None => thousands(before),
    };
    let mut facts = vec![
        ("Method", peer.method.clone()),
        ("To fetch", after(peer.need, peer.need_after)),
        ("To offer", after(peer.have, peer.have_after)),
        ("Stored", thousands(peer.stored)),
        ("Given", thousands(peer.uploaded)),
        (
            "Traffic",
            format!("↓{} ↑{}", bytes(peer.bytes_in), bytes(peer.bytes_out)),
        ),
        ("Took", seconds(peer.duration_ms)),
        (
            "Last equal",
            match peer.lag_s {
                Some(0) => "now".to_owned(),
                Some(lag) => format!("{} ago", span(lag)),
                None => "never".to_owned(),
            },
        ),
    ];
    // Where nobody was reached nothing was compared, and nought would be a claim.
    if peer.bytes_in == 0 && peer.bytes_out == 0 {
        facts.drain(..6);
    }
    facts
}

fn fills(fills: Fills) -> String {
    match fills {
        Fills::InDays(0) => "within a day, at the present rate".to_owned(),
        Fills::InDays(days) => format!(
            "in about {} at the present rate",
            counted(days, "day", "days")
        ),
        Fills::NotWithinAYear => "not within a year, at the present rate".to_owned(),
        Fills::Unknown => "not known yet: too few runs to tell a rate".to_owned(),
    }
}
