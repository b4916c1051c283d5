//! The two halves as one ordinary network: the merged tensor, and the part of it, that each stream's block becomes.
//!
//! Layouts are PyTorch's: a convolution that reads its own stream becomes `Conv2d(groups=2)` (K C/2 R S), one that
//! reads both becomes `groups=1`; a dense layer becomes `Linear` (outputs x inputs). Channels, units and inputs of
//! stream 0 come before those of stream 1. (A dense layer that reads only its own stream has no PyTorch counterpart;
//! the other stream's inputs get zero weights.)

use std::collections::BTreeMap;

use crate::backend::Backend;
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::{Error, Result};
use crate::net::plan::{Op, Plan};

/// A tensor of the merged network.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedTensor {
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Row after row.
    pub values: Vec<f32>,
}

/// Tensors by name: `conv1.weight`, `conv1.bias`, ...
pub type Merged = BTreeMap<String, MergedTensor>;

/// Merges one kind of tensor (values, gradients...) of all parameters.
pub fn merge<B: Backend>(pair: &mut Pair<B>, tensor: Tensor) -> Result<Merged> {
    let plans = pair.plans().to_vec();
    let mut merged = BTreeMap::new();
    for index in 0..plans[0].layers.len() {
        let name = &plans[0].layers[index].name;
        let mut parts = Vec::new();
        for (stream, plan) in plans.iter().enumerate() {
            let Some(params) = plan.layers[index].params else { continue };
            let mut read = |param: usize| pair.stream(stream).read_param(param, tensor);
            let (own, theirs, bias) =
                (read(params.own)?, params.theirs.map(&mut read).transpose()?, read(params.bias)?);
            let halved = plans.len() == 2 && !plan.layers[index].reads_image();
            parts.push(StreamPart { stream, op: plan.layers[index].op, halved, own, theirs, bias });
        }
        if !parts.is_empty() {
            merged.insert(format!("{name}.weight"), merge_weight(&parts));
            let bias: Vec<f32> = parts.iter().flat_map(|part| &part.bias).copied().collect();
            merged.insert(format!("{name}.bias"), MergedTensor { shape: vec![bias.len()], values: bias });
        }
    }
    Ok(merged)
}

/// The inverse of [`merge`]: gives each stream its blocks of the merged tensors.
///
/// Fails, naming the tensor, where one is missing or has another shape.
pub fn split<B: Backend>(pair: &mut Pair<B>, tensor: Tensor, merged: &Merged) -> Result<()> {
    let plans = pair.plans().to_vec();
    let expected = merge(pair, tensor)?;
    for (name, expected) in &expected {
        let found = merged.get(name).map(|tensor| &tensor.shape);
        if found != Some(&expected.shape) {
            return Err(Error::net(name, format!("expected a tensor of shape {:?}, found {found:?}", expected.shape)));
        }
    }
    for index in 0..plans[0].layers.len() {
        let name = &plans[0].layers[index].name;
        let mut first_output = 0;
        for (stream, plan) in plans.iter().enumerate() {
            let Some(params) = plan.layers[index].params else { continue };
            let (weight, bias) = (&merged[&format!("{name}.weight")], &merged[&format!("{name}.bias")]);
            let (outputs, block) = (plan.params[params.bias].elems(), plan.params[params.own].elems());
            let (width, row) = (weight.values.len() / bias.values.len(), block / outputs);
            // Where a row of the merged tensor holds both streams' inputs, stream 0's come first.
            let part = |from: usize| -> Vec<f32> {
                let first = if width > row { from * row } else { 0 };
                let rows = weight.values.chunks_exact(width).skip(first_output).take(outputs);
                rows.flat_map(|values| &values[first..][..row]).copied().collect()
            };
            let target = pair.stream(stream);
            target.write_param(params.own, tensor, &part(stream))?;
            if let Some(theirs) = params.theirs {
                target.write_param(theirs, tensor, &part(1 - stream))?;
            }
            target.write_param(params.bias, tensor, &bias.values[first_output..][..outputs])?;
            first_output += outputs;
        }
    }
    Ok(())
}

/// Fills the space between the groups of convolutions with zeros: the merged network of `plans`, two streams', as one
/// stream has it.
pub fn fill_groups(mut merged: Merged, plans: &[Plan]) -> Merged {
    for_each_grouped(&mut merged, plans, |tensor| {
        let [k, c, r, s] = tensor.shape[..] else { return };
        let row = c * r * s;
        let mut values = vec![0.; 2 * tensor.values.len()];
        for (filter, from) in tensor.values.chunks_exact(row).enumerate() {
            values[(2 * filter + 2 * filter / k) * row..][..row].copy_from_slice(from);
        }
        *tensor = MergedTensor { shape: vec![k, 2 * c, r, s], values };
    });
    merged
}

/// The inverse of [`fill_groups`]: the values between the groups are lost.
pub fn take_groups(mut merged: Merged, plans: &[Plan]) -> Merged {
    for_each_grouped(&mut merged, plans, |tensor| {
        let [k, c, r, s] = tensor.shape[..] else { return };
        let row = c / 2 * r * s;
        let rows = tensor.values.chunks_exact(2 * row).enumerate();
        let values = rows.flat_map(|(filter, values)| &values[2 * filter / k * row..][..row]).copied().collect();
        *tensor = MergedTensor { shape: vec![k, c / 2, r, s], values };
    });
    merged
}

/// The weights of convolutions that read only their own stream.
fn for_each_grouped(merged: &mut Merged, plans: &[Plan], change: impl Fn(&mut MergedTensor)) {
    for layer in &plans[0].layers {
        let grouped = matches!(layer.op, Op::Conv(_)) && layer.exchange_point.is_none() && !layer.reads_image();
        if let (true, Some(tensor)) = (grouped && plans.len() == 2, merged.get_mut(&format!("{}.weight", layer.name))) {
            change(tensor);
        }
    }
}

/// One stream's part of a layer.
struct StreamPart {
    stream: usize,
    op: Op,
    /// Whether its inputs are one stream's; the image is whole in both.
    halved: bool,
    own: Vec<f32>,
    theirs: Option<Vec<f32>>,
    bias: Vec<f32>,
}

fn merge_weight(parts: &[StreamPart]) -> MergedTensor {
    let outputs = parts.iter().map(|part| part.bias.len()).sum();
    let both = parts[0].theirs.is_some();
    let mut values = Vec::new();
    for part in parts {
        let row = part.own.len() / part.bias.len();
        for output in 0..part.bias.len() {
            let own = &part.own[output * row..][..row];
            let zeros;
            let theirs = match (&part.theirs, part.op) {
                (Some(theirs), _) => &theirs[output * row..][..row],
                (None, Op::Dense(_)) if part.halved => {
                    zeros = vec![0.; row];
                    &zeros
                }
                _ => &[],
            };
            let (first, second) = if part.stream == 0 { (own, theirs) } else { (theirs, own) };
            values.extend_from_slice(first);
            values.extend_from_slice(second);
        }
    }
    let inputs = values.len() / outputs;
    let shape = match parts[0].op {
        Op::Conv(s) => vec![outputs, s.c * if both { 2 } else { 1 }, s.r, s.s],
        _ => vec![outputs, inputs],
    };
    MergedTensor { shape, values }
}
