//! The network: its table, and each stream's plan for it.

pub mod describe;
pub mod init;
pub mod options;
pub mod plan;
mod planner;
mod row;
pub mod spec;
pub mod swap;
