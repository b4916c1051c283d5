//! The operations and shapes that are tested on every device (`tests/operations`), differentiated
//! (`tests/training/gradients.rs`) and timed (`benches/operations.rs`): one list.

use alexnet_split::backend::*;
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::plan::{Op, Plan};
use alexnet_split::net::spec::Net;

/// An operation on inputs of one shape.
pub struct Case {
    /// The paper's name of the layer, or the operation's.
    pub name: String,
    /// The operation, with its shapes.
    pub op: Op,
    /// Whether software GPUs compute it in a second or so.
    pub is_small: bool,
}

fn case(name: &str, op: Op) -> Case {
    Case { name: name.into(), op, is_small: true }
}

/// Shapes at which something is special: odd sizes, borders, sizes of one.
pub fn small() -> Vec<Case> {
    let mut cases: Vec<Case> = CONVOLUTIONS.map(|shape| case("conv", conv(shape))).into();
    // Those for which the CPU has special code. Software GPUs have none, and would take minutes.
    cases.extend(FAST_ON_CPU.map(|shape| Case { is_small: false, ..case("conv", conv(shape)) }));
    for (inputs, outputs) in [(1, 1), (7, 5), (128, 384), (384, 385), (769, 512), (1152, 300)] {
        let pixels = if inputs % 12 == 0 { 12 } else { 1 };
        cases.push(case("dense", Op::Dense(DenseShape { inputs, outputs, pixels, blocks: 2, logits: false })));
    }
    for (c, pixels) in [(1, 1), (3, 63), (5, 64), (48, 65), (16, 200)] {
        for (n, alpha, beta) in [(5, 1e-4, 0.75), (5, 0.5, 0.75), (3, 0.2, 0.5)] {
            cases.push(case("lrn", Op::Lrn(LrnShape { c, pixels, n, k: 2., alpha, beta })));
        }
    }
    // Of one pixel, smaller than a window, odd; the layer of recipe `source`.
    for (c, h, w, n, alpha) in [(1, 1, 1, 5, 0.5), (3, 2, 3, 5, 0.5), (9, 7, 6, 3, 0.2), (2, 13, 11, 5, 4e-5)] {
        let norm = LrnShape { c, pixels: h * w, n, k: 1., alpha, beta: 0.75 };
        cases.push(case("spatial_lrn", Op::SpatialLrn(SpatialLrnShape { norm, h, w })));
    }
    for (h, w, window, stride) in
        [(3, 3, 3, 2), (55, 55, 3, 2), (13, 12, 3, 2), (7, 9, 2, 2), (5, 6, 1, 1), (8, 8, 3, 3)]
    {
        let max_pool = pool(3, [h, w], window, stride);
        cases.push(case("max_pool", Op::MaxPool(max_pool)));
        cases.push(case("max_pool", Op::MaxPool(PoolShape { all_ties: true, ..max_pool })));
        cases.push(case("avg_pool", Op::AvgPool(pool(3, [h, w], window, stride))));
    }
    // Several bands and one; rows and columns that no window reads; the paper's two layers.
    for (c, [h, w]) in [(5, [11, 13]), (3, [40, 66]), (48, [55, 55]), (128, [27, 27]), (7, [12, 32])] {
        let lrn = LrnShape { c, pixels: h * w, n: 5, k: 2., alpha: 0.3, beta: 0.75 };
        cases.push(case("relu_lrn_max_pool", Op::ReluLrnMaxPool(lrn, pool(c, [h, w], 3, 2))));
    }
    cases
}

/// The layers of one stream of the paper's network, those that the CPU fuses both ways.
pub fn of_the_paper() -> Vec<Case> {
    let net = Net::from_options(&NetOptions::default()).expect("the paper's network");
    let plan = Plan::all(&net).expect("the paper's plan").remove(0);
    let fused = plan.clone().fused(|_, _| true).layers.into_iter();
    let layers = plan.layers.into_iter().chain(fused.filter(|layer| matches!(layer.op, Op::ReluLrnMaxPool(..))));
    layers.map(|layer| Case { name: layer.name.to_string(), op: layer.op, is_small: false }).collect()
}

/// C, [H, W], K, kernel, stride, pad, and whether the last window may read beyond the padded image.
type Convolution = (usize, [usize; 2], usize, usize, usize, usize, bool);

const CONVOLUTIONS: [Convolution; 10] = [
    (1, [5, 5], 1, 1, 1, 0, false),
    (3, [23, 26], 5, 11, 4, 0, true), // the last window reads beyond the image
    (3, [27, 27], 8, 11, 4, 2, false),
    (2, [30, 31], 4, 11, 4, 1, false), // the last pixels are read by no window
    (5, [9, 7], 6, 5, 1, 2, false),
    (16, [13, 13], 24, 3, 1, 1, false),
    (128, [6, 6], 16, 3, 1, 1, false), // rows of the weight gradient alias in the cache
    (4, [8, 8], 3, 3, 2, 1, false),
    (2, [6, 7], 70, 3, 1, 1, false), // more filters than a tile has rows
    (1, [1, 1], 2, 3, 1, 1, false),  // most taps lie outside
];

const FAST_ON_CPU: [Convolution; 6] = [
    (3, [67, 71], 48, 11, 4, 0, true), // patches are read where they lie
    (1, [50, 61], 16, 11, 4, 2, false),
    (32, [13, 13], 48, 3, 1, 1, false), // few multiplications
    (16, [9, 14], 32, 3, 1, 0, false),
    (16, [27, 27], 16, 5, 1, 2, false),
    (48, [10, 7], 16, 5, 1, 3, false),
];

fn conv((c, size, k, kernel, stride, pad, round_up): Convolution) -> Op {
    let out = |size: usize| {
        let room = size + 2 * pad - kernel;
        1 + if round_up { room.div_ceil(stride) } else { room / stride }
    };
    let [h, w] = size;
    Op::Conv(ConvShape { c, h, w, k, r: kernel, s: kernel, p: out(h), q: out(w), stride, pad, blocks: 2 })
}

fn pool(c: usize, [h, w]: [usize; 2], window: usize, stride: usize) -> PoolShape {
    let (p, q) = (1 + (h - window) / stride, 1 + (w - window) / stride);
    PoolShape { c, h, w, window, stride, p, q, all_ties: false }
}
