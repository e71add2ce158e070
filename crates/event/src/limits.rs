//! How large an event may be. Enforced while parsing, before anything is hashed or verified.

/// Bounds of a single event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimits {
    /// Bytes of the event's JSON as received.
    pub bytes_max: usize,
    /// Number of tags.
    pub tags_max: usize,
}

impl Default for EventLimits {
    /// 256 KiB and 5,000 tags: four times what strfry takes, so that what others hold can be mirrored.
    fn default() -> Self {
        Self {
            bytes_max: 256 * 1024,
            tags_max: 5_000,
        }
    }
}
