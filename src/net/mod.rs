//! The network: its table, and what each stream does with it.

pub mod describe;
pub mod init;
pub mod plan;
mod planner;
pub mod spec;
pub mod swap;
