//! A run's directory: its files, their rows, its lock and its checkpoints.

pub mod checkpoint;
pub mod dir;
pub mod files;
pub mod host;
pub mod reader;
pub mod rows;
pub mod schedule;
pub mod tensorboard;
