//! What a training step in bf16 does, layer by layer and pass by pass: multiply-adds, bytes, and the kernels that are
//! launched.

use crate::backend::TensorShape;
use crate::backend::cuda::bf16::{self, Conv, DENSE_INPUT_TILES, FORWARD_TILES, Tile, WEIGHT_TILES, layout};
use crate::net::plan::{Op, Plan, PlannedLayer};

/// Bytes of a value of maps and of weights' shadows.
const BF16: usize = 2;
/// Bytes of a value of weights, their gradients and momentum.
const FP32: usize = 4;

/// What a layer does in a pass.
#[derive(Debug)]
pub struct Work {
    /// `conv1`
    pub layer: String,
    /// `forward`, `input gradient`...
    pub pass: &'static str,
    /// Multiply-adds of its matrix products.
    pub macs: u64,
    /// Bytes of the tensors that it reads and writes, each once.
    pub bytes: u64,
    /// In their order.
    pub kernels: Vec<Kernel>,
}

/// A launch.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `conv_forward_128`
    pub name: String,
    /// Its matrix product, where it is one.
    pub product: Option<Product>,
    /// Threads of a kernel without one.
    pub threads: usize,
    /// Bytes of the tensors that it reads and writes, each once.
    pub bytes: u64,
}

/// A matrix product.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows and columns of the result, and depth of the sums, padding included.
    pub sizes: [usize; 3],
    /// The tiles that it may come in.
    pub tiles: &'static [Tile],
}

impl Work {
    fn new(layer: &str, pass: &'static str, macs: u64, bytes: usize, kernels: Vec<Kernel>) -> Work {
        Work { layer: layer.into(), pass, macs, bytes: bytes as u64, kernels }
    }

    /// A kernel without a product.
    fn by_element(layer: &str, pass: &'static str, name: &str, threads: usize, bytes: usize) -> Work {
        Work::new(layer, pass, 0, bytes, vec![elements(name, threads, bytes)])
    }
}

fn elements(name: &str, threads: usize, bytes: usize) -> Kernel {
    Kernel { name: name.into(), product: None, threads, bytes: bytes as u64 }
}

/// A step of one stream on `n` images, whose bytes are `pixels` an image.
pub fn step(plan: &Plan, n: usize, pixels: usize) -> Vec<Work> {
    let (input, rows) = (layout::bytes(&plan.shape(0, n)), layout::rows(&plan.shape(0, n)));
    // A block of threads for each row.
    let mut work = vec![Work::by_element("image", "forward", "augment", 256 * rows, n * pixels + input)];
    for layer in &plan.layers {
        match layer.op {
            Op::Conv(_) | Op::Dense(_) => work.extend(weighted(layer, n)),
            _ => work.extend(unweighted(layer, n)),
        }
    }
    let params: usize = plan.params.iter().map(|param| layout::elems(&param.tensor)).sum();
    // Reads gradient, weight and momentum; writes the latter two and the shadow.
    let update = Work::by_element("all", "update", "update_sgd", params / 4, params * (5 * FP32 + BF16));
    work.push(update);
    work
}

/// A layer's matrix products of one block, as `Conv` gives them, and the values of x, w and y.
fn products(op: &Op, n: usize) -> ([(&'static str, Product); 3], [usize; 3]) {
    let (conv, input, x, w) = match op {
        Op::Conv(s) => {
            let conv = Conv::new(s, n);
            let input = (s.stride == 1).then(|| ("conv_forward", conv.turned().forward(), &FORWARD_TILES[..]));
            (conv, input, TensorShape::Input(n, *s), TensorShape::Filters(*s))
        }
        Op::Dense(s) => {
            let conv = Conv::pixel(n, bf16::dense_inputs(s), layout::pad8(s.outputs));
            let [rows, outputs, inputs] = conv.forward();
            let input = Some(("dense_backward_input", [rows, inputs, outputs], &DENSE_INPUT_TILES[..]));
            let x = TensorShape::Maps(n, [s.inputs / s.pixels, s.pixels, 1]);
            (conv, input, x, TensorShape::Weights(*s))
        }
        other => unreachable!("{other:?} has no weights"),
    };
    let [rows, columns, depth] = conv.forward();
    let forward = ("conv_forward", Product { sizes: [rows, columns, depth], tiles: &FORWARD_TILES });
    let weight = ("conv_backward_weight", Product { sizes: [columns, depth, rows], tiles: &WEIGHT_TILES });
    let input = input.map_or(forward, |(name, sizes, tiles)| (name, Product { sizes, tiles }));
    ([forward, input, weight], [layout::elems(&x), layout::elems(&w), rows * columns])
}

/// A layer with weights: one block, or two where it reads both streams.
fn weighted(layer: &PlannedLayer, n: usize) -> Vec<Work> {
    let (products, [x, w, y]) = products(&layer.op, n);
    let blocks = if layer.exchange_point.is_some_and(|point| point.takes) { 2 } else { 1 };
    let passes = ["forward", "input gradient", "weight gradient"];
    let mut work = Vec::new();
    for index in (0..3).filter(|&index| index != 1 || !layer.reads_image()) {
        let (base, product) = products[index];
        let [rows, columns] = bf16::divide(product.sizes, product.tiles).tile;
        let name = if product.tiles.len() > 1 { format!("{base}_{}", rows.min(columns)) } else { base.into() };
        // The gradient of the weights is fp32.
        let of_block = BF16 * x + if index == 2 { FP32 * w } else { BF16 * w };
        let bytes = (of_block + BF16 * y) as u64;
        let mut kernels = vec![Kernel { name, product: Some(product), threads: 0, bytes }; blocks];
        match (index, layer.exchange_point) {
            // The other stream's part of the gradient is added.
            (1, Some(point)) if point.gives => kernels.push(elements("add", x / 8, 3 * BF16 * x)),
            (2, _) => kernels.push(elements("bias_gradient", y / 8 / 32, BF16 * y)),
            _ => {}
        }
        let bytes = blocks * of_block + BF16 * y;
        work.push(Work::new(&layer.name, passes[index], n as u64 * layer.macs(), bytes, kernels));
    }
    work
}

/// A layer without weights.
fn unweighted(layer: &PlannedLayer, n: usize) -> Vec<Work> {
    let name = &*layer.name;
    let maps = |shape: [usize; 3]| layout::bytes(&TensorShape::Maps(n, shape));
    // Threads and bytes of the forward and of the backward kernel.
    let (names, [(threads, bytes), (back_threads, back_bytes)]) = match layer.op {
        Op::Activation(_, shape) => {
            let all = maps(shape);
            (["relu_forward", "relu_backward"], [(all / 16, 2 * all), (all / 16, 3 * all)])
        }
        Op::Lrn(s) => {
            let all = maps([s.c, s.pixels, 1]);
            (["lrn_forward", "lrn_backward"], [(all / 16, 2 * all), (all / 16, 3 * all)])
        }
        Op::SpatialLrn(s) => {
            let all = maps([s.norm.c, s.h, s.w]);
            (["spatial_lrn_forward", "spatial_lrn_backward"], [(all / 16, 2 * all), (all / 16, 3 * all)])
        }
        Op::MaxPool(s) => {
            let (x, y) = (maps([s.c, s.h, s.w]), maps([s.c, s.p, s.q]));
            (["max_pool_forward", "max_pool_backward"], [(y / 16, x + y), (x / 16, 2 * (x + y))])
        }
        Op::AvgPool(s) => {
            let (x, y) = (maps([s.c, s.h, s.w]), maps([s.c, s.p, s.q]));
            (["avg_pool_forward", "avg_pool_backward"], [(y / 16, x + y), (x / 16, x + y)])
        }
        Op::ReluLrnMaxPool(_, s) => {
            // Beside y and dy the places of the maxima, a quarter of their bytes.
            let (x, y) = (maps([s.c, s.h, s.w]), maps([s.c, s.p, s.q]));
            let names = ["relu_lrn_max_pool_forward", "relu_lrn_max_pool_backward"];
            (names, [(y / 64, x + y + y / 4), (x / 16, 2 * x + y + y / 4)])
        }
        Op::Dropout(s) => {
            let all = maps([s.elems, 1, 1]);
            (["dropout", "dropout"], [(all / 16, 2 * all), (all / 16, 2 * all)])
        }
        Op::SoftmaxCrossEntropy(s) => {
            let logits = layout::bytes(&TensorShape::Logits(n, s.classes));
            (["softmax_stats", "softmax_cross_entropy"], [(128 * n, logits), (128 * n, logits + logits / 2)])
        }
        // Its units are all in the other stream.
        Op::Absent | Op::Conv(_) | Op::Dense(_) => return Vec::new(),
    };
    vec![
        Work::by_element(name, "forward", names[0], threads, bytes),
        Work::by_element(name, "backward", names[1], back_threads, back_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use crate::config::Recipe;
    use crate::net::spec::Net;
    use crate::show::describe;

    use super::*;

    fn net() -> Net {
        Net::from_options(&Recipe::find("paper").unwrap().net).unwrap()
    }

    #[test]
    fn a_step_has_the_multiply_adds_that_describe_counts() {
        let net = net();
        let all: Vec<Work> = Plan::all(&net).unwrap().iter().flat_map(|plan| step(plan, 128, 150_528)).collect();
        let macs = |pass: &str| all.iter().filter(|work| work.pass == pass).map(|work| work.macs).sum::<u64>();
        let facts = describe::describe(&net, 128, 1).unwrap();
        assert_eq!(macs("forward"), 128 * facts.multiply_adds);
        assert_eq!(macs("weight gradient"), macs("forward"));
        let first: u64 = facts.streams.iter().map(|stream| stream[0].multiply_adds).sum();
        assert_eq!(macs("input gradient"), 128 * (facts.multiply_adds - first), "not with respect to the image");
        // Each kernel's product has them, too; the first layer's blocks of pixels 19% more, for taps that weigh 0.
        for work in all.iter().filter(|work| work.macs > 0) {
            let products = work.kernels.iter().filter_map(|kernel| kernel.product);
            let sums: u64 = products.map(|product| product.sizes.map(|size| size as u64).iter().product::<u64>()).sum();
            let more = sums as f64 / work.macs as f64;
            let expected = if work.layer == "conv1" { 432. / 363. } else { 1. };
            // Taps at the rim count, and classes are padded to a multiple of eight.
            let padding = if work.layer == "fc8" { 1.02 } else { 1.0001 };
            assert!((expected * 0.9999..expected * padding).contains(&more), "{work:?}: {more}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_tensors() {
        let all = step(&Plan::new(&net(), 0).unwrap().fused(bf16::fuses), 128, 0);
        let find = |layer: &str, pass: &str| {
            all.iter().find(|work| work.layer == layer && work.pass == pass).unwrap_or_else(|| panic!("{layer}"))
        };
        let (conv1, pool1) = (128 * 48 * 55 * 55, 128 * 48 * 27 * 27);
        assert_eq!(find("relu1-pool1", "forward").bytes, 2 * conv1 + 2 * pool1 + pool1 / 2);
        assert_eq!(find("conv1", "forward").bytes, 2 * (128 * 48 * 57 * 57 + 48 * 432 + conv1));
        // Two blocks: both streams' activations and weights, one output.
        let (x, w, y) = (128 * 128 * 13 * 13, 192 * 128 * 9, 128 * 192 * 13 * 13);
        assert_eq!(find("conv3", "forward").bytes, 2 * (2 * x + 2 * w + y));
        assert_eq!(find("conv3", "weight gradient").bytes, 2 * (2 * x + y) + 4 * 2 * w);
    }
}
