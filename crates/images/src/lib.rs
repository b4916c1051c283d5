//! Image files of alexnet-split: from bytes to squares of pixels, and pictures that the program draws.
//!
//! A crate of its own, because decoders take long to compile and seldom change. It knows nothing of data sets. Its errors
//! are sentences; who calls it knows the file's name.

pub mod bitmap;
pub mod caught;
pub mod decode;
pub mod formats;
pub mod signature;

pub use alexnet_split_scale as scale;
