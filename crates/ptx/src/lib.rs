//! For the tests: executes PTX, the assembly language of NVIDIA's GPUs, without one, and finds what goes wrong.
//!
//! Start reading at `instructions.rs` and `arithmetic.rs`, which say what each instruction means; `warp.rs` is a warp of 32
//! threads, `machine.rs` a block of them and the whole launch, `memory.rs` what may go wrong with an access.

pub mod arithmetic;
pub mod counts;
mod execute;
pub mod instructions;
pub mod machine;
pub mod memory;
pub mod mma;
pub mod parse;
mod transfers;
pub mod warp;
