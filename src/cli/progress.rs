//! Progress bars on a terminal, nothing elsewhere: the plain lines are the report.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::colours_wanted;
use crate::transfer::TransferProgress;

/// One bar for each peer.
pub(super) struct ProgressView {
    bars: MultiProgress,
    by_peer: HashMap<String, ProgressBar>,
}

impl ProgressView {
    /// Bars on standard error, if `wanted` and if that is a terminal.
    pub(super) fn new(wanted: bool) -> Self {
        let target = if wanted {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            by_peer: HashMap::new(),
        }
    }

    /// Shows how far each peer is.
    pub(super) fn show(&mut self, progress: &[(String, TransferProgress)]) {
        for (address, progress) in progress {
            let bar = self
                .by_peer
                .entry(address.clone())
                .or_insert_with(|| self.bars.add(new_bar(address)));
            bar.set_message(format!(
                "{} rounds, {} in, {} out",
                progress.rounds, progress.downloaded, progress.uploaded
            ));
            bar.set_length(progress.need + progress.have);
            bar.set_position(progress.downloaded + progress.uploaded);
        }
    }

    /// Takes the bars away; the report follows.
    pub(super) fn finish(&self) {
        for bar in self.by_peer.values() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(address: &str) -> ProgressBar {
    let template = if colours_wanted() {
        "  {prefix:32!} {bar:28.cyan/blue} {human_pos}/{human_len}  {msg:.dim}"
    } else {
        "  {prefix:32!} {bar:28} {human_pos}/{human_len}  {msg}"
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    ProgressBar::new(0)
        .with_style(style)
        .with_prefix(address.to_owned())
}

/// A counter for work whose end is not known: lines read so far, on a terminal.
pub(super) fn line_counter(wanted: bool) -> ProgressBar {
    if !wanted {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {human_pos} lines  {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}
