//! The AlexNet of 2012 as it was trained: one network in two streams, each on a device of its own, that exchange
//! activations at four layers. `ARCHITECTURE.md` has the order of the modules; `examples/two_streams.rs` is a step by hand.

// Its macros print, everywhere below.
#[macro_use]
pub mod text;

pub mod backend;
mod cli;
mod commands;
pub mod config;
pub mod data;
pub mod disk;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod run;
pub mod show;
pub mod train;

pub use alexnet_split_cpu::{rng, shapes};
pub use alexnet_split_net as net;
pub use commands::main;
