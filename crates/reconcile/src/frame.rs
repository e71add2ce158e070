//! How large one message may become.
//!
//! Invariant: a limit is absent or at least 4096 bytes, so that a whole split (at most 16 ranges,
//! under 1 KiB) and the closing fingerprint always fit, and every message makes progress.

use thiserror::Error;

/// What the reference keeps free for the header of a list and the closing fingerprint.
const RESERVE: usize = 200;

/// The most bytes of one outgoing message, or none.
///
/// Raw bytes: NIP-77 sends messages in hex, which doubles them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimit(Option<usize>);

/// A frame limit below [`FrameLimit::MINIMUM`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame limit of {bytes} bytes is below {}", FrameLimit::MINIMUM)]
pub struct FrameLimitTooSmall {
    /// What was asked for.
    pub bytes: usize,
}

impl FrameLimit {
    /// The smallest limit, in bytes.
    pub const MINIMUM: usize = 4096;

    /// No limit: a message may list a whole set, 32 bytes an item. For tests and trusted peers.
    pub const NONE: Self = Self(None);

    /// A limit in bytes.
    ///
    /// # Errors
    ///
    /// Below [`FrameLimit::MINIMUM`].
    pub const fn new(bytes: usize) -> Result<Self, FrameLimitTooSmall> {
        if bytes < Self::MINIMUM {
            return Err(FrameLimitTooSmall { bytes });
        }
        Ok(Self(Some(bytes)))
    }

    /// Whether a message of this length must be brought to its end.
    pub(crate) fn is_exceeded_by(self, length: usize) -> bool {
        self.0.is_some_and(|limit| length > limit - RESERVE)
    }
}

#[cfg(test)]
mod tests {
    use super::FrameLimit;

    #[test]
    fn limits_start_at_the_minimum_and_keep_the_reserve() {
        assert!(FrameLimit::new(4095).is_err());
        let limit = FrameLimit::new(4096).expect("the minimum is allowed");
        assert!(!limit.is_exceeded_by(3896) && limit.is_exceeded_by(3897));
        assert!(!FrameLimit::NONE.is_exceeded_by(usize::MAX));
    }
}
