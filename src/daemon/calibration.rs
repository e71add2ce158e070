//! From how many signatures on this machine verifies in batches: measured once, kept in `state/calibration.json`.
//!
//! Takes the file's path; gives the break-even. It is measured again when the file is missing or unreadable, or was
//! written by another version or on another processor. Only a hint for speed: whatever it says, the same events are
//! found genuine. A file that cannot be written is no failure; it is measured anew the next time (a tenth of a second).

use std::path::Path;
use std::time::Duration;

use constellation_event::{BreakEven, Calibration, calibrate};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::random::Random;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: String,
    processor: String,
    calibration: Calibration,
}

/// The break-even of this machine, from the file or measured now.
pub(super) fn break_even(path: &Path, random: &Random) -> BreakEven {
    let (version, processor) = (env!("CARGO_PKG_VERSION"), processor());
    if let Some(kept) = read(path)
        && kept.version == version
        && kept.processor == processor
    {
        return kept.calibration.break_even;
    }
    let calibration = calibrate(random.bytes(), &mut thread_time);
    tracing::info!(
        break_even = ?calibration.break_even,
        single_ns = calibration.single_ns,
        batch_ns = calibration.batch_ns,
        "measured how fast this machine verifies signatures"
    );
    let kept = Kept {
        version: version.to_owned(),
        processor,
        calibration,
    };
    if let Err(error) = write(path, &kept) {
        tracing::warn!(path = %path.display(), %error, "cannot keep the measurement; it is made again next time");
    }
    kept.calibration.break_even
}

fn read(path: &Path) -> Option<Kept> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_vec(kept)?)
}

/// Processor time of this thread, which other work on the machine does not touch.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// What tells this machine from another that the data directory may be moved to.
fn processor() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described
        .lines()
        .find(|line| line.starts_with("model name") || line.starts_with("CPU part"))
        .and_then(|line| line.split_once(':'))
        .map_or("", |(_, model)| model.trim());
    format!("{} {model}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_measured_once_for_each_machine_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let random = Random::seeded(1);
        std::fs::write(&path, "not JSON").unwrap();
        break_even(&path, &random);
        let mut kept = read(&path).expect("written after the measurement");
        // What no machine measures shows that it is taken from the file.
        kept.calibration.break_even = BreakEven::From(77_777);
        write(&path, &kept).unwrap();
        assert_eq!(break_even(&path, &random), BreakEven::From(77_777));
        kept.processor.push_str(" of another machine");
        write(&path, &kept).unwrap();
        assert_ne!(break_even(&path, &random), BreakEven::From(77_777));
        assert_ne!(read(&path), Some(kept));
    }
}
