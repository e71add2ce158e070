//! Randomness, passed in wherever it is needed, so that a simulation can seed it.
//!
//! For names and challenges. Keys are made by the libraries that hold them, from the system's randomness.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A shared source of random bytes.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random") // its state would tell what comes next
    }
}

impl Random {
    /// Seeded by the operating system.
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// Always the same for the same seed: for simulations.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_system_does_not() {
        let (first, second) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(first.bytes::<16>(), second.bytes::<16>());
        assert_ne!(
            Random::system().bytes::<16>(),
            Random::system().bytes::<16>()
        );
    }
}
