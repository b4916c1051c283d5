//! The engine for bf16: its kernels are in `kernels/bf16/`, the contracts of the operations on the trait.
//!
//! Activations are bf16, N H W C; parameters, their gradients, sums and what the softmax reads are fp32. Behind a weight
//! lie its bf16 shadows, which the products read (`layout.rs`).

mod elements;
pub mod layout;
mod products;
mod shapes;

pub use products::{DENSE_INPUT_TILES, DEPTH, Division, FORWARD_TILES, PARTIALS, Tile, WEIGHT_TILES, divide};
pub use shapes::*;

use self::layout::Unstrided;
use crate::backend::{LrnShape, PoolShape};
use crate::error::{Error, Result};
use crate::net::plan::{Op, Plan};

/// Whether there is a kernel of ReLU, normalization and pooling in one for these shapes.
pub fn fuses(lrn: &LrnShape, pool: &PoolShape) -> bool {
    // A block of the backward pass has all channels of a pixel.
    (lrn.n, pool.window, pool.stride, pool.all_ties) == (5, 3, 2, false) && pool.c <= 2048
}

/// Fails where these kernels do not know a layer of the plan.
pub fn check(plan: &Plan) -> Result<()> {
    for (index, layer) in plan.layers.iter().enumerate() {
        // The first layer's gradient by its input is asked for where the streams exchange their images.
        let has_gradient = index > 0 || layer.exchange_point.is_some();
        let problem = match layer.op {
            Op::Conv(s) if s.stride > 1 && has_gradient => format!("stride {}, and a gradient by its input", s.stride),
            Op::Conv(s) if index == 0 && Unstrided::of(&s).c + 4 > AUGMENT_ROOM => format!("stride {}", s.stride),
            Op::Conv(s) if has_gradient && s.pad >= s.r => format!("padding {} for a {} x {} window", s.pad, s.r, s.s),
            Op::SoftmaxCrossEntropy(_) if !follows_dense(plan, index) => "a layer between it and the logits".into(),
            _ => continue,
        };
        let text = format!("has {problem}, which bf16 on GPUs does not compute; use --precision tf32");
        return Err(Error::net(layer.name.to_string(), text));
    }
    Ok(())
}

fn follows_dense(plan: &Plan, loss: usize) -> bool {
    loss.checked_sub(1).is_some_and(|before| matches!(plan.layers[before].op, Op::Dense(_) | Op::Absent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::options::NetOptions;
    use crate::net::spec::{Layer, Net, Reads};

    #[test]
    fn what_the_kernels_do_not_know_is_refused_by_the_layers_name() {
        let net = Net::from_options(&NetOptions::default()).unwrap();
        let checked = |change: &dyn Fn(&mut Vec<Layer>)| {
            let mut net = net.clone();
            change(&mut net.layers);
            check(&Plan::new(&net, 0).unwrap()).map_err(|error| error.to_string())
        };
        checked(&|_| {}).unwrap();
        let strided = |layers: &mut Vec<Layer>| {
            let conv =
                layers.iter_mut().filter_map(|layer| if let Layer::Conv(row) = layer { Some(row) } else { None });
            conv.skip(1).for_each(|row| (row.stride, row.pad) = (2, 2));
        };
        let problem = checked(&strided).unwrap_err();
        assert!(problem.contains("conv2") && problem.contains("stride 2") && problem.contains("tf32"), "{problem}");
        let reads_both = |layers: &mut Vec<Layer>| {
            let Layer::Conv(row) = &mut layers[0] else { panic!("the paper's first layer is a convolution") };
            row.reads = Reads::Both;
        };
        let problem = checked(&reads_both).unwrap_err();
        assert!(problem.contains("conv1") && problem.contains("stride 4"), "{problem}");
        let problem = checked(&|layers| layers.insert(layers.len() - 1, Layer::Dropout(0.5))).unwrap_err();
        assert!(problem.contains("loss") && problem.contains("logits"), "{problem}");
    }
}
