//! Training by the library: gradients, bits, losses, checkpoints, what is exchanged, and what files say of it.

mod bad_losses;
mod checkpoints;
mod determinism;
mod exchange;
mod filters;
mod full_size;
mod golden;
mod gradients;
mod merged;
mod source;
#[path = "../support/mod.rs"]
mod support;
mod tensorboard;
