//! What the process does with memory that it no longer uses. A program of its own: other tests would be measured too.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

const BLOCKS: usize = 500_000;
const BLOCK_BYTES: usize = 200;
/// One block in this many stays, so that no heap has a free end and no page of the kernel's smallest size is free by chance.
const KEPT_EVERY: usize = 1_000;

fn anonymous_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's account");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("a line about anonymous memory");
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// A station that had fetched 20,000 events kept 81 MB as long as it ran.
#[test]
fn holes_that_an_exchange_left_in_the_heaps_go_back_to_the_system() {
    constellation::allocator::return_large_blocks();
    let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; BLOCK_BYTES]).collect();
    let full = anonymous_kilobytes();
    let kept: Vec<Vec<u8>> = blocks.into_iter().step_by(KEPT_EVERY).collect();
    let with_holes = anonymous_kilobytes();
    constellation::allocator::return_holes();
    let after = anonymous_kilobytes();
    assert_eq!(kept.len(), BLOCKS / KEPT_EVERY);
    assert!(
        with_holes > full / 2,
        "there are no holes to give back: {full} kB, then {with_holes} kB"
    );
    assert!(
        after < full / 4,
        "{full} kB in use, {with_holes} kB with holes, {after} kB after giving them back"
    );
}
