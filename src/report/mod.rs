//! What the user sees: times, progress, pictures, logs.

pub mod extremes;
pub mod filters;
pub mod host;
pub mod logs;
pub mod picture;
pub mod progress;
pub mod tensorboard;
pub mod timeline;
pub mod times;
pub mod trace;
