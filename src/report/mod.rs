//! What the user sees: times, progress, pictures, logs.

pub mod filters;
pub mod logs;
pub mod picture;
pub mod progress;
pub mod tensorboard;
pub mod times;
