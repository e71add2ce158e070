//! A report as a page: for mail readers and browsers, light and dark, narrow and wide.
//!
//! Takes a [`Letter`]; gives one HTML document. Pure. Colours and sizes stand in the elements themselves, for readers that
//! drop style sheets; the style sheet only adds the dark ones and a narrow screen's. Nothing is fetched from anywhere and
//! nothing is run. The template escapes every text; drawings are made of numbers alone.

use askama::Template;

use super::chart::{self, Bar, Sign};
use super::deciding::State;
use super::letter::{Letter, facts_of, refusals_of};
use super::numbers::{counted, thousands};
use super::summary::{PeerSummary, RUNS_SHOWN};

/// A peer as it is laid out.
struct PeerView<'v> {
    peer: &'v PeerSummary,
    sign: Sign,
    facts: Vec<(&'static str, String)>,
    refused: Vec<String>,
}

/// A kind as it is laid out.
struct KindView {
    number: String,
    name: String,
    count: String,
    /// Of the most frequent kind, per cent.
    share: u64,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'p> {
    station: &'p str,
    sign: Sign,
    heading: String,
    introduction: String,
    subject: String,
    metrics: Vec<(&'static str, String)>,
    unsent: Option<String>,
    troubled: Vec<(&'p PeerSummary, Sign)>,
    peers: Vec<PeerView<'p>>,
    peers_not_shown: Option<String>,
    kinds: Vec<KindView>,
    newcomers: Option<(String, Vec<String>)>,
    newcomers_not_named: Option<String>,
    details: Vec<(&'static str, String)>,
    chart_width: u32,
    chart_height: u32,
    bars: Vec<Bar>,
    chart_line: String,
    most_stored: String,
    earlier: &'p [String],
    footer: String,
}

/// The report as an HTML document.
///
/// # Errors
/// The template's, which a template that was compiled in does not have.
pub fn html(letter: &Letter<'_>) -> Result<String, askama::Error> {
    let summary = letter.summary;
    let most = summary.by_kind.iter().map(|kind| kind.count).max();
    let most = most.unwrap_or_default().max(1);
    let kinds = summary.by_kind.iter().map(|kind| KindView {
        number: kind.kind.map_or_else(String::new, |kind| kind.to_string()),
        name: kind.name.clone().unwrap_or_else(|| "other".to_owned()),
        count: thousands(kind.count),
        share: u64::try_from(u128::from(kind.count) * 100 / u128::from(most)).unwrap_or(100),
    });
    let peers = summary.peers.iter().map(|peer| PeerView {
        peer,
        sign: Sign::of(peer.outcome),
        facts: facts_of(peer),
        refused: refusals_of(peer),
    });
    let places = u32::try_from(RUNS_SHOWN).unwrap_or(1);
    let most_stored = summary.runs.iter().map(|run| run.stored).max();
    let beyond = |count: u64, one: &str, many: &str| (count > 0).then(|| counted(count, one, many));
    Page {
        station: &summary.station.name,
        sign: match summary.state {
            State::Well => Sign::Well,
            State::Partial => Sign::Partial,
            State::Failed => Sign::Failed,
        },
        heading: letter.heading(),
        introduction: letter.introduction(),
        subject: letter.subject(),
        metrics: letter.metrics(),
        unsent: letter.unsent(),
        troubled: summary
            .peers
            .iter()
            .filter(|peer| !peer.troubles.is_empty())
            .map(|peer| (peer, Sign::of(peer.outcome)))
            .collect(),
        peers: peers.collect(),
        peers_not_shown: beyond(summary.peers_not_shown, "more peer", "more peers"),
        kinds: kinds.collect(),
        newcomers: letter.newcomers(),
        newcomers_not_named: beyond(letter.newcomers_not_named(), "other", "others"),
        details: letter.details(),
        chart_width: chart::WIDTH,
        chart_height: chart::HEIGHT,
        bars: chart::bars(&summary.runs, places),
        chart_line: chart::line(&summary.runs),
        most_stored: thousands(most_stored.unwrap_or_default()),
        earlier: letter.earlier,
        footer: letter.footer(),
    }
    .render()
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
