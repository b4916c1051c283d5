//! The two streams at work: each on its device, the pair of them, their devices, and their times.

pub mod devices;
pub mod extremes;
pub mod first_layer;
pub mod link;
pub mod merge;
pub mod pair;
pub mod stream;
pub mod timeline;
pub mod times;
