//! Whoever has a say in whether a run may begin on this machine, and is told how it ended.
//!
//! The seam for what lies beside the station: locks that other programs respect, logs that they read. A run asks once it has
//! its turn, and tells when its report is there; one that is cut off tells nothing, and lets go by dropping. Runs that only
//! close a gap, and those that move nothing, ask nobody. Deliberately absent: who that is.

use std::future::Future;
use std::pin::Pin;

use super::outcome::RunReport;
use super::plan::RunPlan;

/// An answer on its way.
pub type Attending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asked before runs.
pub trait Attendant: std::fmt::Debug + Send + Sync {
    /// Whether this run may begin: what holds the place while it lasts, or why not.
    ///
    /// Cancel safety: what was taken is let go of.
    fn begin<'a>(&'a self, plan: &'a RunPlan) -> Attending<'a, Result<Box<dyn Attended>, String>>;
}

/// A run that was let begin. Dropping it lets go of all that was taken for it.
pub trait Attended: std::fmt::Debug + Send + 'static {
    /// The run has ended.
    ///
    /// Cancel safety: what was taken is let go of; logs may lack lines.
    fn end(self: Box<Self>, report: &RunReport) -> Attending<'_, ()>;
}
