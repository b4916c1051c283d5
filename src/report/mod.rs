//! What the user sees: times, progress, pictures, logs; and pages about runs.

pub mod logs;
pub mod page;
pub mod picture;
pub mod progress;
pub mod rows;
pub mod run;
pub mod times;
