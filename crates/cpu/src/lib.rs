//! The operations of alexnet-split on a CPU, parallel over the rayon pool that they are called in. What each one
//! computes is documented on its method of `Backend` in the main crate; the files here say how.
//!
//! Nothing public is generic: code for every vector width is compiled once, in this crate.
//!
//! Work is cut at points that depend on shapes alone and sums have a fixed order, so the same bits come out for any
//! number of threads.

pub mod augment;
#[cfg(target_arch = "x86_64")]
mod bf16;
pub mod conv;
pub mod definitions;
pub mod dense;
mod exponential;
mod gemm;
pub mod lrn;
mod operands;
mod panels;
pub mod peak;
pub mod pointwise;
pub mod pool;
pub mod relu_lrn_max_pool;
pub mod rng;
pub mod shapes;
pub mod simd;
pub mod softmax;
pub mod spatial_lrn;
#[cfg(any(target_arch = "x86_64", test))]
mod tiles;
mod transpose;
pub mod update;
