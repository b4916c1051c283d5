//! Initial weights: drawn by seed, stream, parameter and element, so that they do not depend on who draws them when.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::net::plan::{Param, ParamKind};
use crate::rng::{Philox, Purpose};

/// How weights start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightInit {
    /// Normal with standard deviation 0.01 (paper, section 5).
    Paper,
    /// Normal with standard deviation sqrt(2 / fan_in) (He et al., 2015).
    He,
    /// Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    Xavier,
}

/// How biases start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BiasInit {
    /// As the table says: 1 in conv2, conv4, conv5 and the hidden dense layers (paper, section 5).
    Table,
    /// All 0.
    Zero,
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
    if param.kind == ParamKind::Bias {
        let value = if biases == BiasInit::Table { param.bias_init } else { 0. };
        return vec![value; param.elems()];
    }
    let rng = Philox::new(seed, Purpose::Init, 0);
    // One random block makes four values.
    let quad = |at: usize| rng.block([at as u32, (at >> 32) as u32, index as u32, stream as u32]);
    let draw: Box<dyn Fn(usize) -> [f32; 4] + Sync> = match weights {
        WeightInit::Paper => Box::new(move |at| normals(quad(at)).map(|v| v * 0.01)),
        WeightInit::He => {
            let std = (2. / param.fan_in as f32).sqrt();
            Box::new(move |at| normals(quad(at)).map(|v| v * std))
        }
        WeightInit::Xavier => {
            let bound = (6. / (param.fan_in + param.fan_out) as f32).sqrt();
            Box::new(move |at| quad(at).map(|word| bound * (2. * unit(word) - 1.)))
        }
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
