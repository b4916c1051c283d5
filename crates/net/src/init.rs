//! Initial weights: drawn by seed, stream, parameter and element, so that they do not depend on the order in which they
//! are drawn.

use alexnet_split_cpu::rng::{Philox, Purpose};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::plan::{Param, ParamKind};

/// The initialization of weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightInit {
    /// Normal with standard deviation 0.01 (paper, section 5), or the row's own.
    Paper,
    /// Normal with standard deviation sqrt(2 / fan_in) (He et al., 2015).
    He,
    /// Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    Xavier,
    /// Uniform in +-1 / sqrt(fan_in): the default of PyTorch's convolutions and dense layers.
    PyTorch,
}

/// The initialization of biases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BiasInit {
    /// By the table: 1 in conv2, conv4, conv5 and the hidden dense layers (paper, section 5).
    Table,
    /// All 0.
    Zero,
    /// Uniform in +-1 / sqrt(fan_in), as PyTorch's weights.
    PyTorch,
}

/// The initial values of parameter `index` of `stream`.
pub fn initial_values(
    param: &Param,
    index: usize,
    stream: usize,
    seed: u64,
    weights: WeightInit,
    biases: BiasInit,
) -> Vec<f32> {
    let draws = match (param.kind, biases) {
        (ParamKind::Weight, _) => weights,
        (ParamKind::Bias, BiasInit::Table) => return vec![param.bias_init; param.elems()],
        (ParamKind::Bias, BiasInit::Zero) => return vec![0.; param.elems()],
        (ParamKind::Bias, BiasInit::PyTorch) => WeightInit::PyTorch,
    };
    let rng = Philox::new(seed, Purpose::Init, 0);
    // One random block makes four values.
    let quad = |at: usize| rng.block([at as u32, (at >> 32) as u32, index as u32, stream as u32]);
    let uniform = |bound: f32| move |at| quad(at).map(|word| bound * (2. * unit(word) - 1.));
    let draw: Box<dyn Fn(usize) -> [f32; 4] + Sync> = match draws {
        WeightInit::Paper => {
            let std = param.std.unwrap_or(0.01);
            Box::new(move |at| normals(quad(at)).map(|v| v * std))
        }
        WeightInit::He => {
            let std = (2. / param.fan_in as f32).sqrt();
            Box::new(move |at| normals(quad(at)).map(|v| v * std))
        }
        WeightInit::Xavier => Box::new(uniform((6. / (param.fan_in + param.fan_out) as f32).sqrt())),
        // What `kaiming_uniform_(a=sqrt(5))` comes to: sqrt(6 / ((1 + 5) * fan_in)).
        WeightInit::PyTorch => Box::new(uniform((1. / param.fan_in as f32).sqrt())),
    };
    let mut values = vec![0.; param.elems()];
    values.par_chunks_mut(4 * 4096).enumerate().for_each(|(block, values)| {
        for (i, values) in values.chunks_mut(4).enumerate() {
            values.copy_from_slice(&draw(block * 4096 + i)[..values.len()]);
        }
    });
    values
}

/// Four standard normal numbers from four words: two pairs by Box and Muller.
fn normals(words: [u32; 4]) -> [f32; 4] {
    let pair = |a: u32, b: u32| {
        let radius = (-2. * unit(a).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * unit(b)).sin_cos();
        [radius * cos, radius * sin]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

/// In the open interval (0, 1): 24 bits, as many as an f32 holds.
fn unit(word: u32) -> f32 {
    ((word >> 8) as f32 + 0.5) / 16_777_216.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::NetOptions;
    use crate::plan::Plan;
    use crate::spec::Net;

    /// Smallest and largest value, mean and standard deviation.
    fn measure(values: &[f32]) -> [f64; 4] {
        let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let reach = |pick: fn(f64, f64) -> f64| values.iter().copied().fold(values[0], pick);
        [reach(f64::min), reach(f64::max), mean, variance.sqrt()]
    }

    #[test]
    fn pytorchs_initialization_fills_its_interval_in_weights_and_biases() {
        let plans = Plan::all(&Net::from_options(&NetOptions::default()).unwrap()).unwrap();
        let draw = |stream: usize, index: usize, seed| {
            let param = &plans[stream].params[index];
            initial_values(param, index, stream, seed, WeightInit::PyTorch, BiasInit::PyTorch)
        };
        // Inputs of one output; conv3 and fc6 read both streams, each in a block of its own.
        let layers =
            [("conv1", 3 * 11 * 11, 2), ("conv2", 48 * 5 * 5, 2), ("conv3", 256 * 3 * 3, 3), ("fc6", 256 * 6 * 6, 3)];
        for (name, fan_in, tensors) in layers {
            let bound = 1. / f64::from(fan_in).sqrt();
            let of_layer = |param: &&Param| param.name.starts_with(name);
            assert_eq!(plans[1].params.iter().filter(of_layer).count(), tensors);
            for (index, param) in plans[1].params.iter().enumerate().filter(|(_, param)| of_layer(param)) {
                let values = draw(1, index, 2012);
                let [least, most, mean, deviation] = measure(&values);
                let slack = 5. * bound / (values.len() as f64).sqrt();
                assert!(-bound < least && most < bound, "{}: {least} to {most}, bound {bound}", param.name);
                assert!(least < slack - bound && most > bound - slack, "{}: {least} to {most}", param.name);
                assert!(mean.abs() < slack, "{}: mean {mean}", param.name);
                assert!((deviation - bound / 3f64.sqrt()).abs() < slack, "{}: deviation {deviation}", param.name);
                assert_eq!(values, draw(1, index, 2012));
                assert_ne!(values, draw(0, index, 2012), "each stream has weights of its own");
                assert_ne!(values, draw(1, index, 2013));
            }
        }
    }
}
