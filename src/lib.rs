#![doc = include_str!("../README.md")]

pub mod backend;
pub mod config;
pub mod data;
pub mod disk;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod net;
pub mod run;
pub mod show;
pub mod text;
pub mod train;

pub use alexnet_split_cpu::{rng, shapes};
