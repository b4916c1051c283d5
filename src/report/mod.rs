//! What the user sees: times, progress, pictures, pages, logs.

pub mod extremes;
pub mod filters;
pub mod host;
pub mod logs;
pub mod out;
pub mod page;
pub mod picture;
pub mod progress;
pub mod rows;
pub mod run;
pub mod tensorboard;
pub mod timeline;
pub mod times;
pub mod trace;
