//! The display: progress, logs, the trace, the report page.

pub mod logs;
pub mod page;
pub mod picture;
pub mod progress;
pub mod trace;
