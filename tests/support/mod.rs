//! Helpers that the tests share: tiny networks, random values, the tolerance table.
#![allow(dead_code)] // each test file uses its part

pub mod cases;
pub mod forms;
pub mod fuzzed;
pub mod jpegs;
pub mod place;
pub mod prepared;
pub mod process;
pub mod softgpu;
pub mod tables;
pub mod tolerance;
pub mod trace;

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{DropoutScaling, Precision};
use alexnet_split::config::Recipe;
use alexnet_split::data::{Batch, Images};
use alexnet_split::engine::pair::{Pair, StreamContext};
use alexnet_split::net::init::{BiasInit, WeightInit};
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::spec::{Layer, Net};
use alexnet_split::rng::{Philox, Purpose};

/// The paper's table with few channels at the least image size that is interesting (every pool has work).
pub fn tiny_options() -> NetOptions {
    NetOptions {
        image_channels: Some(3),
        image_size: Some(100),
        classes: Some(7),
        conv_channels: Some(vec![8, 12, 16, 16, 12]),
        dense_units: Some(vec![24, 20]),
        ..NetOptions::default()
    }
}

/// The table of a recipe.
pub fn layers_of(recipe: &str) -> Vec<Layer> {
    Recipe::find(recipe).unwrap().net.layers
}

/// The network of `options` on `threads` CPU threads with He's weights.
pub fn pair(options: &NetOptions, capacity: usize, threads: usize) -> (Net, Pair<CpuBackend>) {
    let net = Net::from_options(options).unwrap();
    let mut pair = Pair::on_cpu(&net, capacity, 1, threads, DropoutScaling::Test).unwrap();
    pair.init(14, WeightInit::He, BiasInit::Zero).unwrap();
    (net, pair)
}

/// The same with products of bf16; `None`, and a word, on a CPU that has none.
pub fn pair_in_bf16(options: &NetOptions, capacity: usize, threads: usize) -> Option<(Net, Pair<CpuBackend>)> {
    let net = Net::from_options(options).unwrap();
    let Ok(contexts) = StreamContext::on_cpu(net.streams, threads, Precision::Bf16, false) else {
        eprintln!("skipped: this CPU has no AVX512_BF16");
        return None;
    };
    let mut pair = Pair::new(&net, contexts, None, capacity, 1, DropoutScaling::Test).unwrap();
    pair.init(14, WeightInit::He, BiasInit::Zero).unwrap();
    Some((net, pair))
}

/// `elems` normal values times `scale`, by `seed`.
pub fn normals(elems: usize, scale: f32, seed: u64) -> Vec<f32> {
    let rng = Philox::new(seed, Purpose::Check, 0);
    (0..elems as u32).map(|i| scale * rng.normal([i, 1, 0, 0]) as f32).collect()
}

/// `n` random images with labels that go round the classes.
pub fn batch(net: &Net, n: usize, scale: f32) -> Batch {
    let elems: usize = net.image.iter().product();
    Batch {
        images: Images::Ready(normals(n * elems, scale, 5)),
        labels: (0..n).map(|i| (i * 3 % net.classes()) as u32).collect(),
    }
}

/// The nearest number with 10 bits of mantissa; ties go away from 0, as tensor cores want their tf32 factors.
pub fn round_to_tf32(v: f32) -> f32 {
    f32::from_bits(v.to_bits().wrapping_add(1 << 12) & !((1 << 13) - 1))
}

/// The nearest bf16; ties go to even.
pub fn round_to_bf16(v: f32) -> f32 {
    let bits = v.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
