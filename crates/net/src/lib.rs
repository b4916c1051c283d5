//! The network: its table, the plan of each stream, initial weights, and what the streams exchange. Nothing here computes.

mod error;
pub mod init;
pub mod options;
pub mod plan;
mod planner;
mod row;
pub mod spec;
pub mod swap;

pub use error::{Error, Result};
