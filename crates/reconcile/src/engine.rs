//! What both roles do with one range, and the message that comes of it.
//!
//! Takes ranges in ascending order, gives the answer message. Invariant: everything below the last
//! bound written has been dealt with or is said in the message; what agrees is left unsaid until
//! something after it differs, then skipped in one go.
//!
//! Does not decide what an id list means: that is where the roles differ. Worst case of one range:
//! 17 summaries and one select of 30 offsets (fingerprint differs, 32 items or more), or one
//! summary and one scan of at most 31 items, or (list) one scan that ends where the frame is full.

use std::ops::ControlFlow;

use crate::bound::Bound;
use crate::codec::Writer;
use crate::error::ReconcileError;
use crate::frame::FrameLimit;
use crate::set::SortedSet;
use crate::summary::Fingerprint;

/// Parts a range is split into.
const BUCKETS: u64 = 16;

/// Ranges of fewer items are listed rather than split.
const LISTED_BELOW: u64 = 2 * BUCKETS;

/// `Break` once the frame is full: the message is complete and the rest of the input unread.
pub(crate) type Flow<E> = Result<ControlFlow<()>, ReconcileError<E>>;

/// The message that answers another.
pub(crate) struct Reply<'s, S: ?Sized> {
    set: &'s S,
    limit: FrameLimit,
    out: Writer,
    /// Ranges since the last bound written were settled and must be skipped before the next.
    unsaid: bool,
    /// The last bound written: where the peer believes the next range to start.
    written: Bound,
}

impl<'s, S: SortedSet + ?Sized> Reply<'s, S> {
    pub(crate) fn new(set: &'s S, limit: FrameLimit) -> Self {
        Self {
            set,
            limit,
            out: Writer::new(),
            unsaid: false,
            written: Bound::MIN,
        }
    }

    /// The message so far.
    pub(crate) fn into_message(self) -> Writer {
        self.out
    }

    /// Nothing more is to be said of a range.
    pub(crate) fn settle(&mut self) {
        self.unsaid = true;
    }

    /// Holds a peer's fingerprint of a range against ours, and splits or lists it if they differ.
    pub(crate) fn compare(
        &mut self,
        lower: &Bound,
        upper: &Bound,
        theirs: &Fingerprint,
    ) -> Flow<S::Error> {
        let ours = self
            .set
            .summary(lower, upper)
            .map_err(ReconcileError::Set)?;
        if ours.fingerprint() == *theirs {
            self.settle();
            return Ok(ControlFlow::Continue(()));
        }
        let mark = self.out.mark();
        self.skip_to(lower);
        split(self.set, &mut self.out, lower, upper, ours.count)?;
        if self.limit.is_exceeded_by(self.out.len()) {
            self.out.rewind(mark);
            return self.close();
        }
        self.written = *upper;
        Ok(ControlFlow::Continue(()))
    }

    /// Lists our ids of a range, as many as the frame has room for.
    pub(crate) fn list(&mut self, lower: &Bound, upper: &Bound) -> Flow<S::Error> {
        let limit = self.limit;
        // The header of this list does not count here: the reference leaves it to the reserve.
        let before = self.out.len();
        let mut ids = Vec::new();
        let mut end = *upper;
        let scanned = self.set.scan(lower, upper, &mut |item| {
            if limit.is_exceeded_by(before + ids.as_flattened().len()) {
                end = Bound::at(&item);
                return ControlFlow::Break(());
            }
            ids.push(item.id);
            ControlFlow::Continue(())
        });
        scanned.map_err(ReconcileError::Set)?;
        self.skip_to(lower);
        self.out.id_list(&end, &ids);
        self.written = end;
        if self.limit.is_exceeded_by(self.out.len()) {
            return self.close();
        }
        Ok(ControlFlow::Continue(()))
    }

    fn skip_to(&mut self, lower: &Bound) {
        if self.unsaid {
            self.unsaid = false;
            self.out.skip(lower);
        }
    }

    /// Ends a full frame with the fingerprint of all that is left, from the last bound written:
    /// settled ranges that are still unsaid are part of it.
    fn close(&mut self) -> Flow<S::Error> {
        let rest = self.set.summary(&self.written, &Bound::INFINITY);
        let rest = rest.map_err(ReconcileError::Set)?;
        self.out.fingerprint(&Bound::INFINITY, &rest.fingerprint());
        Ok(ControlFlow::Break(()))
    }
}

/// Says what we have in a range of `count` items: all ids if few, else the fingerprints of
/// buckets whose sizes differ by one at most, the larger first.
pub(crate) fn split<S: SortedSet + ?Sized>(
    set: &S,
    out: &mut Writer,
    lower: &Bound,
    upper: &Bound,
    count: u64,
) -> Result<(), ReconcileError<S::Error>> {
    if count < LISTED_BELOW {
        let mut ids = Vec::new();
        let scanned = set.scan(lower, upper, &mut |item| {
            ids.push(item.id);
            ControlFlow::Continue(())
        });
        scanned.map_err(ReconcileError::Set)?;
        out.id_list(upper, &ids);
        return Ok(());
    }

    // The last item of each bucket but the last, and the first of the next, set the bound between.
    let (size, larger) = (count / BUCKETS, count % BUCKETS);
    let starts = (1..BUCKETS).map(|bucket| bucket * size + bucket.min(larger));
    let offsets: Vec<u64> = starts.flat_map(|start| [start - 1, start]).collect();
    let items = set
        .select(lower, upper, &offsets)
        .map_err(ReconcileError::Set)?;
    if items.len() != offsets.len() {
        return Err(ReconcileError::InconsistentSet);
    }
    let (neighbours, _) = items.as_chunks();
    let inner = neighbours
        .iter()
        .map(|[last, first]| Bound::minimal(last, first));

    let mut start = *lower;
    for end in inner.chain([*upper]) {
        let bucket = set.summary(&start, &end).map_err(ReconcileError::Set)?;
        out.fingerprint(&end, &bucket.fingerprint());
        start = end;
    }
    Ok(())
}
