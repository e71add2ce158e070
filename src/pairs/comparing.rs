//! What two relays do not share, slice by slice: the whole at once where both bear it, else halves of it.
//!
//! Takes two open sides and slices; gives the ids that only one has, and ranges that nobody knows. A slice that is "too
//! big" for one side is halved by time; a second that still is, split by kind; then it is a gap. A side that shows no
//! NIP-77 is read by windows, once for each slice. Invariant: an id that one side could not be made to list, but gives
//! when it is asked for it, is no difference. Bounded by [`PAIR_IDS_MAX`]; beyond, the comparison says that it is not
//! whole.

use constellation_eventstore::KindSet;
use constellation_reconcile::{Id, Middleman, MiddlemanBounds, MiddlemanError, Party};

use super::side::{Asking, Broken, Side};
use crate::limits::{PAIR_IDS_MAX, PAIR_RANGES_MAX};
use crate::sync::Step;
use crate::transfer::windows::{gap, probe_over};
use crate::transfer::{Gap, Slice, TransferError};

/// After so many seconds that were too big, and none that was not, a relay means something else than size.
const REFUSED_IN_A_ROW_MAX: u32 = 100;

/// What is not shared.
#[derive(Debug, Clone, Default)]
pub(super) struct Differing {
    /// Ids that only this side has.
    pub(super) only: [Vec<Id>; 2],
    /// What a side could not be made to tell.
    pub(super) gaps: [Vec<Gap>; 2],
    /// More differs than is held.
    pub(super) is_cut_off: bool,
}

/// Compares all slices.
///
/// Cancel safe: nothing is moved.
///
/// # Errors
/// Which side failed, and why.
pub(super) async fn compare(
    sides: &[Side; 2],
    slices: &[Slice],
    step: Step,
) -> Result<Differing, (Party, Broken)> {
    let mut differing = Differing::default();
    let mut left: Vec<Slice> = slices.iter().rev().cloned().collect();
    let mut refused_in_a_row = 0;
    while let Some(slice) = left.pop() {
        let compared = compare_slice(sides, &slice, &mut differing).await;
        let (party, error) = match compared {
            Ok(()) if differing.is_cut_off => break,
            Ok(()) => {
                refused_in_a_row = 0;
                continue;
            }
            Err(Stopped::NoNip77(party)) => {
                sides[party.index()].read_by_windows();
                left.push(slice);
                continue;
            }
            Err(Stopped::Failed(party, error)) => (party, error),
        };
        let TransferError::TooBig { text, .. } = &error else {
            return Err((party, Broken::at(step, &error)));
        };
        let parts = parts_of(&slice, sides[party.index()].now());
        if parts.is_empty() {
            refused_in_a_row += 1;
            if refused_in_a_row > REFUSED_IN_A_ROW_MAX {
                let refused = TransferError::Refused(text.clone());
                return Err((party, Broken::at(step, &refused)));
            }
            differing.gaps[party.index()].push(gap(&slice, text));
        }
        left.extend(parts);
    }
    for only in &mut differing.only {
        only.sort_unstable();
        only.dedup();
    }
    Ok(differing)
}

/// Why a slice was not compared.
enum Stopped {
    NoNip77(Party),
    Failed(Party, TransferError),
}

/// Compares one slice, and adds what differs once it is known to the end.
async fn compare_slice(
    sides: &[Side; 2],
    slice: &Slice,
    differing: &mut Differing,
) -> Result<(), Stopped> {
    let failed = |party: Party| move |error| Stopped::Failed(party, error);
    let [first, second] = sides;
    let limits = [
        first.frame_limit().map_err(failed(Party::First))?,
        second.frame_limit().map_err(failed(Party::Second))?,
    ];
    let held: usize = differing.only.iter().map(Vec::len).sum();
    let bounds = MiddlemanBounds {
        ids_max: PAIR_IDS_MAX.saturating_sub(held),
        ranges_max: PAIR_RANGES_MAX,
    };
    // Whoever must be read by windows comes last: nothing is read in vain where the other one finds this too big.
    let begins = if first.is_read_by_windows() {
        Party::Second
    } else {
        Party::First
    };
    let mut middleman = Middleman::new(begins, limits, bounds);
    let mut asking = sides
        .each_ref()
        .map(|side| side.about(slice.clone(), PAIR_IDS_MAX));
    while !middleman.is_done() {
        let messages = Party::BOTH.map(|party| middleman.next_message(party));
        let [one, two] = &mut asking;
        let [to_one, to_two] = messages;
        let answers = tokio::join!(answer(one, to_one), answer(two, to_two));
        let answers: [_; 2] = answers.into();
        for (party, answered) in Party::BOTH.into_iter().zip(answers) {
            let taken = match answered {
                Ok(None) => continue,
                Ok(Some(answer)) => middleman.take(party, &answer).map_err(error_of),
                Err(error) => Err(Some(error)),
            };
            match taken {
                Ok(()) => {}
                Err(None) => {
                    differing.is_cut_off = true;
                    for party in Party::BOTH {
                        differing.only[party.index()].extend(middleman.take_only(party));
                    }
                    return Ok(());
                }
                Err(Some(error)) if asking[party.index()].shows_no_nip77(&error) => {
                    return Err(Stopped::NoNip77(party));
                }
                Err(Some(error)) => return Err(Stopped::Failed(party, error)),
            }
        }
    }
    for party in Party::BOTH {
        let other = party.other();
        let mut only = middleman.take_only(party);
        let gaps = asking[other.index()].take_gaps();
        if !gaps.is_empty() && !only.is_empty() {
            let there = probe_over(sides[other.index()].line(), &only).await;
            let there = there.map_err(failed(other))?;
            only.retain(|id| !there.contains(id));
        }
        differing.only[party.index()].extend(only);
        differing.gaps[other.index()].extend(gaps);
    }
    Ok(())
}

async fn answer(
    asking: &mut Asking<'_>,
    message: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, TransferError> {
    match message {
        Some(message) => asking.answer(message).await.map(Some),
        None => Ok(None),
    }
}

/// What an answer that cannot be used means; `None`: there is nothing wrong with it, but more differs than is held.
fn error_of(error: MiddlemanError) -> Option<TransferError> {
    match error {
        MiddlemanError::TooMuch(_) => None,
        MiddlemanError::UnsupportedVersion { offered } => {
            Some(TransferError::UnknownVersion(offered))
        }
        other => Some(TransferError::Malformed(other.to_string())),
    }
}

/// Smaller slices that make up this one, to be compared from the last on; none if it cannot be made smaller.
fn parts_of(slice: &Slice, now: u64) -> Vec<Slice> {
    let oldest = slice.since.unwrap_or(0);
    let newest = slice.until.unwrap_or(now).max(oldest);
    if newest > oldest {
        let middle = oldest + (newest - oldest) / 2;
        let older = Slice {
            until: Some(middle),
            ..slice.clone()
        };
        let newer = Slice {
            since: Some(middle + 1),
            ..slice.clone()
        };
        return vec![older, newer];
    }
    match &slice.kinds {
        KindSet::Only(kinds) if kinds.len() > 1 => kinds
            .iter()
            .map(|kind| Slice {
                kinds: KindSet::Only([*kind].into()),
                ..slice.clone()
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole_down_to_one_kind_of_one_second() {
        let whole = Slice::of_kinds(KindSet::Only([1, 7].into()));
        let mut left = vec![whole];
        let mut smallest = 0;
        let now = 9;
        // Kinds and seconds that are covered, each once.
        let mut covered = std::collections::BTreeSet::new();
        while let Some(slice) = left.pop() {
            let parts = parts_of(&slice, now);
            if parts.is_empty() {
                smallest += 1;
                let KindSet::Only(kinds) = &slice.kinds else {
                    panic!("kinds: {slice:?}");
                };
                let second = slice.since.unwrap_or(0);
                assert_eq!((kinds.len(), slice.until.unwrap_or(now)), (1, second));
                assert!(covered.insert((second, kinds.first().copied())));
            }
            left.extend(parts);
        }
        assert_eq!((smallest, covered.len()), (20, 20));
        let newest = Slice {
            since: Some(9),
            ..Slice::of_kinds(KindSet::all())
        };
        assert_eq!(parts_of(&newest, now), [], "others cannot be named");
    }
}
