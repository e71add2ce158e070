//! A batch is verified on the thread that asks: the multiplication must not spread over every core by itself, which it
//! does as soon as anything in the build turns on the feature `std` of `halo2curves`.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
#[test]
fn a_batch_starts_no_threads() {
    use constellation_event::{BatchVerifier, BreakEven, Portion};

    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists a process's threads");
        tasks.count()
    };
    // The harness's own threads are there already: this is the only test here.
    let portion = Portion {
        events: common::events(200, 50),
        source: 1,
        suspect: false,
    };
    let before = threads();
    let outcomes = BatchVerifier::new(BreakEven::From(1)).verify(vec![portion], [5; 32]);
    assert!(outcomes[0].results.iter().all(Result::is_ok));
    assert_eq!(threads(), before);
}
