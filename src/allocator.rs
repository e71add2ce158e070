//! What about memory is set for the whole process, before it has threads, and what is given back while it runs.
//!
//! Large blocks (frames of a megabyte, lists of ids) are to go back to the system when they are freed. glibc begins so,
//! but each time one is freed it keeps larger ones in its heaps, where they leave holes: a cold exchange of a million
//! events then took 181 MB of anonymous memory, and 123 MB with the threshold held. Small blocks leave holes whatever is
//! set: a station that had fetched 20,000 events kept 81 MB for good, of which it used a tenth. Other libraries behave
//! well by themselves: there this does nothing.

/// Blocks from this size on are the system's, not the heap's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BLOCK_BYTES: i32 = 256 << 10;

/// What a heap may keep of free memory at its end. Less (glibc's 128 KiB, also 1 MiB) is given back and taken again many
/// times a second while bytes pass through a tunnel: up to a tenth of the receiving end's processor time each. There are
/// a few heaps; a cold exchange takes 4 MB more than with 1 MiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 4 << 20;

/// Holds glibc to its word. For `main`, before any thread is started; a refusal changes nothing but memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_large_blocks() {
    // SAFETY: takes two numbers by value and sets a parameter of the allocator.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Nothing to do here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_large_blocks() {}

/// Gives the holes in all heaps back to the system. Takes milliseconds, in which other threads that ask for memory wait.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_holes() {
    // SAFETY: takes a number by value; moves nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Nothing to do here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_holes() {}
