//! When the next run is due, and why.
//!
//! Takes the options, the time and when a run last took place; gives a [`Due`]. Pure: whoever keeps time polls a
//! [`Timetable`]. Deliberately absent: how runs are made, and what makes one due besides the schedule.

mod due;
mod options;
mod timetable;

pub use due::{Due, DueReason, NextRuns};
pub use options::{CronExpression, ScheduleOptions};
pub use timetable::Timetable;
