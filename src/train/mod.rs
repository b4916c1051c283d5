//! Training: the loop, its schedule, checkpoints and the run's directory.

mod bad_loss;
pub mod check_grads;
pub mod checkpoint;
mod evaluation;
pub mod export;
pub mod run_dir;
pub mod schedule;
pub mod session;
pub mod signals;
pub mod training;
