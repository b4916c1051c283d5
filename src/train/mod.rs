//! Training: the loop, evaluation, what is done about a bad loss, and export.

mod bad_loss;
pub mod check_grads;
mod evaluation;
pub mod export;
pub mod session;
pub mod signals;
pub mod training;
