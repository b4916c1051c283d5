#![doc = include_str!("../README.md")]

pub mod backend;
pub mod data;
pub mod devices;
pub mod disk;
pub mod error;
pub mod exchange;
pub mod net;
pub mod recipe;
pub mod report;
pub mod train;

pub use alexnet_split_cpu::rng;
