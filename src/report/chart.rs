//! The last runs as a small chart: for HTML as SVG, and everywhere as a line of signs.
//!
//! Takes the runs of a summary; gives drawn bars. Pure. A bar's height is what was stored, on a scale of square roots so
//! that a quiet hour still shows beside a first exchange; how the run ended is told by colour and by the form of the sign
//! below, so that neither colours nor drawings are needed to read it.

use super::summary::RunPoint;
use crate::sync::Outcome;

/// Units of the drawing; it scales to whatever width there is.
pub(super) const WIDTH: u32 = 480;
/// Room for bars.
const BARS: u32 = 64;
/// From the bars' foot to the middle of the signs.
const SIGN_BELOW: u32 = 14;
/// Of the whole drawing.
pub(super) const HEIGHT: u32 = BARS + 26;

/// How a run ended, as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A disc.
    Well,
    /// A triangle.
    Partial,
    /// A cross.
    Failed,
    /// A ring.
    Skipped,
}

impl Sign {
    pub(super) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Converged => Self::Well,
            Outcome::Partial => Self::Partial,
            Outcome::Failed | Outcome::Deadline => Self::Failed,
            Outcome::Skipped => Self::Skipped,
        }
    }

    /// As a character.
    pub(super) const fn letter(self) -> char {
        match self {
            Self::Well => '●',
            Self::Partial => '▲',
            Self::Failed => '✕',
            Self::Skipped => '○',
        }
    }

    /// As a colour's class.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Well => "good",
            Self::Partial => "warn",
            Self::Failed => "bad",
            Self::Skipped => "idle",
        }
    }

    /// As a colour, where classes are dropped.
    pub(super) const fn colour(self) -> &'static str {
        match self {
            Self::Well => "#177245",
            Self::Partial => "#a85b00",
            Self::Failed => "#c0272d",
            Self::Skipped => "#7a8494",
        }
    }
}

/// One run, drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) sign: Sign,
    /// What is drawn below it, as an SVG path.
    pub(super) path: String,
    /// What it says to whoever points at it.
    pub(super) title: String,
}

/// The runs, drawn from left to right, the newest at the right edge.
pub(super) fn bars(runs: &[RunPoint], places: u32) -> Vec<Bar> {
    let most = runs.iter().map(|run| run.stored).max().unwrap_or_default();
    let step = WIDTH / places.max(1);
    let empty = places.saturating_sub(u32::try_from(runs.len()).unwrap_or(places));
    let drawn = (empty..).zip(runs).map(|(place, run)| {
        let height = height(run.stored, most);
        let (x, middle) = (place * step + 3, place * step + step / 2);
        let sign = Sign::of(run.outcome);
        Bar {
            x,
            y: BARS - height,
            width: step - 6,
            height,
            sign,
            path: path(sign, middle, BARS + SIGN_BELOW),
            title: format!(
                "{}: {}, {} events stored",
                super::numbers::moment(&run.started_at),
                run.outcome,
                super::numbers::thousands(run.stored)
            ),
        }
    });
    drawn.collect()
}

/// At least two units, so that there is something to see.
fn height(stored: u64, most: u64) -> u32 {
    let share = |of: u64| u64::from(BARS - 2) * of.isqrt() / most.isqrt().max(1);
    u32::try_from(share(stored))
        .unwrap_or(BARS - 2)
        .min(BARS - 2)
        + 2
}

fn path(sign: Sign, x: u32, y: u32) -> String {
    let (left, right, top, bottom) = (x - 5, x + 5, y - 5, y + 5);
    match sign {
        Sign::Well | Sign::Skipped => format!("M{left} {y}a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"),
        Sign::Partial => format!("M{x} {top}L{right} {bottom}H{left}z"),
        Sign::Failed => format!("M{left} {top}L{right} {bottom}M{right} {top}L{left} {bottom}"),
    }
}

/// The runs as signs, the newest last.
pub(super) fn line(runs: &[RunPoint]) -> String {
    runs.iter()
        .map(|run| Sign::of(run.outcome).letter())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outcome: Outcome, stored: u64) -> RunPoint {
        RunPoint {
            started_at: "2026-01-31T12:00:00Z".to_owned(),
            outcome,
            stored,
            uploaded: 0,
        }
    }

    #[test]
    fn bars_stay_within_the_drawing_and_each_end_has_its_own_form() {
        let runs = [
            run(Outcome::Converged, u64::MAX),
            run(Outcome::Partial, 0),
            run(Outcome::Failed, 100),
            run(Outcome::Skipped, 1),
        ];
        let drawn = bars(&runs, 24);
        for bar in &drawn {
            assert!(bar.x + bar.width <= WIDTH && bar.y + bar.height == BARS && bar.height >= 2);
        }
        assert_eq!(drawn[0].height, BARS);
        assert!(drawn[3].x > WIDTH - 20, "the newest is at the right edge");
        assert_ne!(drawn[0].path.len(), drawn[1].path.len());
        assert_eq!(line(&runs), "●▲✕○");
        assert!(bars(&[], 24).is_empty());
        assert_eq!(bars(&[run(Outcome::Converged, 0)], 24)[0].height, 2);
    }
}
