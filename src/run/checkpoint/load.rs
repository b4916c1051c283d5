//! Reading a checkpoint into a network.

use std::path::Path;

use super::{TrainState, file_name};
use crate::backend::Backend;
use crate::disk::tensors::{TensorFile, max_bytes};
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::{Error, Result};
use crate::net::plan::Plan;

/// Values that the mean image may have: 4096 x 4096 in three channels, the largest that a recipe allows.
const MAX_MEAN_VALUES: usize = 3 * 4096 * 4096;

/// Sets all parameters of `pair` (and, where `state_names` are given, the optimizer's state) and returns the mean
/// image. The files are as `verify` has found them.
///
/// Fails, naming the tensor, where the checkpoint is of another network.
pub fn load<B: Backend>(
    checkpoint: &Path,
    state: &TrainState,
    pair: &mut Pair<B>,
    state_names: &[&str],
) -> Result<Vec<f32>> {
    let streams = pair.plans().len();
    if state.streams != streams {
        let problem = format!("is of a network of {} streams, the recipe's has {streams}", state.streams);
        return Err(Error::run(checkpoint, problem));
    }
    let mut mean = Vec::new();
    for (stream, plan) in pair.plans().to_vec().iter().enumerate() {
        // Only the process that leads needs to see the run's directory.
        let file = pair.leads().then(|| open(checkpoint, plan)).transpose()?;
        let read = |name: &str, shape: Option<&[usize]>| match &file {
            Some(file) => file.values(name, shape),
            None => unreachable!("only the process that leads reads"),
        };
        for (index, param) in plan.params.iter().enumerate() {
            let shape = Some(&param.shape[..]);
            pair.write_param(stream, index, Tensor::Value, || read(&param.name, shape))?;
            for (number, name) in state_names.iter().enumerate() {
                pair.write_param(stream, index, Tensor::State(number), || {
                    read(&format!("{name}.{}", param.name), shape)
                })?;
            }
        }
        if stream == 0 {
            mean = pair.broadcast_values(|| read("input.mean", None))?;
        }
    }
    Ok(mean)
}

/// One stream's file, of a network that runs `plan`.
///
/// Fails where it cannot be of that network, for its length or its header.
pub fn open(checkpoint: &Path, plan: &Plan) -> Result<TensorFile> {
    // The values of all parameters and what the optimizer keeps of them.
    let values: usize = plan.params.iter().map(|param| 3 * param.elems()).sum();
    TensorFile::open(&checkpoint.join(file_name(plan.stream)), max_bytes(values + MAX_MEAN_VALUES))
}
