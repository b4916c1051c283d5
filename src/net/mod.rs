//! The network: the table, what each stream does with it, and the two streams together.

pub mod describe;
pub mod init;
pub mod merge;
pub mod pair;
pub mod plan;
pub mod spec;
pub mod stream;
