//! The display: networks in numbers, progress, logs, the trace, the report page.

pub mod describe;
pub mod logs;
pub mod page;
pub mod picture;
pub mod progress;
pub mod trace;
