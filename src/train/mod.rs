//! Training: the loop, its schedule, checkpoints and the run's directory.

pub mod check_grads;
pub mod checkpoint;
pub mod export;
pub mod run_dir;
pub mod schedule;
pub mod session;
