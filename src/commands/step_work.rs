//! What a training step does, layer by layer and pass by pass: multiply-adds, bytes, and the kernels that are launched.

use alexnet_split::net::plan::{Op, Plan, PlannedLayer};

/// Bytes of an fp32 value, as activations, weights and gradients are stored.
const VALUE: usize = size_of::<f32>();

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
    /// `conv_forward`
    pub name: &'static str,
    /// Rows and columns of the result and depth of the sums; `None` for kernels without a matrix product.
    pub product: Option<[usize; 3]>,
    /// Threads of a kernel without one.
    pub threads: usize,
    /// Bytes of the tensors that it reads and writes, each once.
    pub bytes: u64,
}

impl Work {
    fn new(layer: &str, pass: &'static str, macs: u64, bytes: u64, kernels: Vec<Kernel>) -> Work {
        Work { layer: layer.into(), pass, macs, bytes, kernels }
    }

    /// A kernel with a thread for each of `threads` things, which reads and writes `values`.
    fn by_element(layer: &str, pass: &'static str, name: &'static str, threads: usize, values: usize) -> Work {
        let kernel = elements(name, threads, values);
        Work::new(layer, pass, 0, kernel.bytes, vec![kernel])
    }
}

fn elements(name: &'static str, threads: usize, values: usize) -> Kernel {
    Kernel { name, product: None, threads, bytes: (VALUE * values) as u64 }
}

/// A step of one stream on `n` images, whose bytes are `pixels` an image.
pub fn step(plan: &Plan, n: usize, pixels: usize) -> Vec<Work> {
    let input = n * plan.slots[0];
    let augment = Kernel { name: "augment", product: None, threads: input, bytes: (n * pixels + VALUE * input) as u64 };
    let mut work = vec![Work::new("image", "forward", 0, augment.bytes, vec![augment])];
    for layer in &plan.layers {
        match layer.op {
            Op::Conv(_) | Op::Dense(_) => work.extend(weighted(layer, n)),
            _ => work.extend(unweighted(layer, n)),
        }
    }
    let params = plan.params.iter().map(|param| param.elems()).sum();
    // Reads gradient, weight and momentum; writes the latter two.
    work.push(Work::by_element("all", "update", "update_sgd", params, 5 * params));
    work
}

/// The names of a layer's matrix products and of its bias's gradient, and the sizes of the products of one block.
fn products(op: &Op, n: usize) -> ([&'static str; 4], [[usize; 3]; 3], [usize; 3]) {
    match op {
        Op::Conv(s) => (
            ["conv_forward", "conv_backward_input", "conv_backward_weight", "conv_backward_bias"],
            [
                [s.k, n * s.p * s.q, s.c * s.r * s.s],
                [s.c, n * s.h * s.w, s.k * s.r * s.s],
                [s.k, s.c * s.r * s.s, n * s.p * s.q],
            ],
            [n * s.c * s.h * s.w, s.k * s.c * s.r * s.s, n * s.k * s.p * s.q],
        ),
        Op::Dense(s) => (
            ["dense_forward", "dense_backward_input", "dense_backward_weight", "dense_backward_bias"],
            [[s.outputs, n, s.inputs], [s.inputs, n, s.outputs], [s.outputs, s.inputs, n]],
            [n * s.inputs, s.inputs * s.outputs, n * s.outputs],
        ),
        other => unreachable!("{other:?} has no weights"),
    }
}

/// A layer with weights: one block, or two where it reads both streams.
fn weighted(layer: &PlannedLayer, n: usize) -> Vec<Work> {
    let (names, sizes, [x, w, y]) = products(&layer.op, n);
    let blocks = if layer.exchange_point.is_some_and(|point| point.takes) { 2 } else { 1 };
    let passes = ["forward", "input gradient", "weight gradient"];
    let mut work = Vec::new();
    for index in (0..3).filter(|&index| index != 1 || !layer.reads_image()) {
        let product =
            Kernel { name: names[index], product: Some(sizes[index]), threads: 0, bytes: (VALUE * (x + w + y)) as u64 };
        let mut kernels = vec![product; blocks];
        match (index, layer.exchange_point) {
            // The other stream's part of the gradient is added.
            (1, Some(point)) if point.gives => kernels.push(elements("add", n * point.elems, 3 * n * point.elems)),
            (2, _) => kernels.push(elements(names[3], y, y)),
            _ => {}
        }
        let bytes = VALUE * (blocks * (x + w) + y);
        work.push(Work::new(&layer.name, passes[index], n as u64 * layer.macs(), bytes as u64, kernels));
    }
    work
}

/// A layer without weights.
fn unweighted(layer: &PlannedLayer, n: usize) -> Vec<Work> {
    let name = &*layer.name;
    // Threads and values of the forward and of the backward kernel.
    let (names, [(threads, values), (back_threads, back_values)]) = match layer.op {
        Op::Activation(_, elems) => {
            (["relu_forward", "relu_backward"], [(n * elems, 2 * n * elems), (n * elems, 3 * n * elems)])
        }
        Op::Lrn(s) => {
            let (pixels, elems) = (n * s.pixels, n * s.pixels * s.c);
            (["lrn_forward", "lrn_backward"], [(pixels, 2 * elems), (pixels, 3 * elems)])
        }
        Op::MaxPool(s) => {
            let (x, y) = (n * s.c * s.h * s.w, n * s.c * s.p * s.q);
            (["max_pool_forward", "max_pool_backward"], [(y, x + y), (x, 2 * (x + y))])
        }
        Op::Dropout(s) => {
            let elems = n * s.elems;
            (["dropout", "dropout"], [(elems, 2 * elems), (elems, 2 * elems)])
        }
        Op::SoftmaxCrossEntropy(s) => {
            let elems = n * s.classes;
            (["softmax_stats", "softmax_cross_entropy"], [(elems, elems), (elems, 2 * elems)])
        }
        // Its units are all in the other stream; fused layers are the CPU's.
        Op::Absent | Op::ReluLrnMaxPool(..) | Op::Conv(_) | Op::Dense(_) => return Vec::new(),
    };
    vec![
        Work::by_element(name, "forward", names[0], threads, values),
        Work::by_element(name, "backward", names[1], back_threads, back_values),
    ]
}

#[cfg(test)]
mod tests {
    use alexnet_split::config::Recipe;
    use alexnet_split::net::describe;
    use alexnet_split::net::spec::Net;

    use super::*;

    #[test]
    fn a_step_has_the_multiply_adds_that_describe_counts() {
        let recipe = Recipe::find("paper").unwrap();
        let net = Net::from_options(&recipe.net).unwrap();
        let all: Vec<Work> = Plan::all(&net).unwrap().iter().flat_map(|plan| step(plan, 128, 150_528)).collect();
        let macs = |pass: &str| all.iter().filter(|work| work.pass == pass).map(|work| work.macs).sum::<u64>();
        let facts = describe::describe(&net, 128, 1).unwrap();
        assert_eq!(macs("forward"), 128 * facts.multiply_adds);
        assert_eq!(macs("weight gradient"), macs("forward"));
        let first: u64 = facts.streams.iter().map(|stream| stream[0].multiply_adds).sum();
        assert_eq!(macs("input gradient"), 128 * (facts.multiply_adds - first), "not with respect to the image");
        // Each kernel's product has them, too.
        for work in all.iter().filter(|work| work.macs > 0) {
            let products = work.kernels.iter().filter_map(|kernel| kernel.product);
            let sums: u64 = products.map(|sizes| sizes.iter().map(|&size| size as u64).product::<u64>()).sum();
            // A stride leaves taps out of the input's gradient; without one every tap counts, beyond the rim, too.
            let exact = work.pass != "input gradient" || work.layer.starts_with("fc");
            assert!(if exact { sums == work.macs } else { sums >= work.macs }, "{work:?}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_tensors() {
        let net = Net::from_options(&Recipe::find("paper").unwrap().net).unwrap();
        let all = step(&Plan::new(&net, 0).unwrap(), 128, 0);
        let find = |layer: &str, pass: &str| {
            all.iter().find(|work| work.layer == layer && work.pass == pass).unwrap_or_else(|| panic!("{layer}"))
        };
        let conv1 = 128 * 48 * 55 * 55;
        assert_eq!(find("relu1", "forward").bytes, 4 * 2 * conv1);
        assert_eq!(find("norm1", "backward").bytes, 4 * 3 * conv1);
        assert_eq!(find("conv1", "forward").bytes, 4 * (128 * 3 * 224 * 224 + 48 * 363 + conv1));
        // Two blocks: both streams' activations and weights, one output.
        let (x, w, y) = (128 * 128 * 13 * 13, 192 * 128 * 9, 128 * 192 * 13 * 13);
        assert_eq!(find("conv3", "forward").bytes, 4 * (2 * x + 2 * w + y));
    }
}
