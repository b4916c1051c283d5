//! Training: the loop, evaluation, the handling of bad losses, and export.

mod bad_loss;
pub mod check_grads;
mod evaluation;
pub mod export;
pub mod session;
pub mod signals;
pub mod training;
