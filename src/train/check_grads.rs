//! Gradients against finite differences, through the whole network and the exchange.
//!
//! For each parameter tensor with gradient g and a direction d, the loss is measured at w, w + h d and w - h d; its
//! slope must be g . d. The loss is smooth but for the kinks of ReLU and pooling: one that lies close to w distorts the
//! slope on its side (and the central one), so the slope ahead, the one behind or the central one must agree.
//! Directions are g itself, to have a strong signal, and g with a random half of its elements left out and the other
//! half, so that a gradient whose parts are in the wrong places is noticed.

use crate::backend::Backend;
use crate::data::Batch;
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::Result;
use crate::rng::{Philox, Purpose};

/// Change of the loss that a step aims at: large against f32's rounding of the loss (1e-7), small against curvature.
const LOSS_CHANGE: f64 = 2e-4;

/// Relative difference that passes: rounding and kinks give up to 2 %, wrong gradients 30 % and more.
pub const TOLERANCE: f64 = 0.03;

/// One comparison.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// Stream of the parameter.
    pub stream: usize,
    /// Name of the parameter.
    pub parameter: String,
    /// 0: along the gradient; 1 and 2: along a random half of it and the other half.
    pub direction: u32,
    /// g . d
    pub analytic: f64,
    /// The slope of the loss: the central, forward or backward difference, whichever is nearest.
    pub numeric: f64,
    /// |analytic - numeric| over the larger of the two.
    pub error: f64,
}

impl Check {
    /// Whether the two agree.
    pub fn passes(&self) -> bool {
        self.error <= TOLERANCE
    }
}

/// Checks every parameter of every stream on `batch`; parameters are put back as they were.
///
/// A half that carries less than a tenth of the gradient is left out: rounding and kinks hide its slope. A parameter
/// whose gradient is 0 everywhere is reported with an error of 1: nothing was checked.
pub fn check_grads<B: Backend>(pair: &mut Pair<B>, batch: &Batch, seed: u64) -> Result<Vec<Check>> {
    let here = pair.forward_backward(batch, seed, 0)?.loss();
    let plans = pair.plans().to_vec();
    let mut checks = Vec::new();
    for (stream, plan) in plans.iter().enumerate() {
        for (index, param) in plan.params.iter().enumerate() {
            let gradient = pair.stream(stream).read_param(index, Tensor::Gradient)?;
            let value = pair.stream(stream).read_param(index, Tensor::Value)?;
            let whole = square_sum(&gradient);
            for direction in 0..3 {
                let along = masked(&gradient, seed, direction);
                let square = square_sum(&along);
                if direction > 0 && (square < 0.1 * whole || whole == 0.) {
                    continue;
                }
                let step = LOSS_CHANGE / square.max(1e-30);
                let mut loss_at = |h: f64| -> Result<f64> {
                    let moved: Vec<f32> =
                        value.iter().zip(&along).map(|(&w, &d)| (f64::from(w) + h * f64::from(d)) as f32).collect();
                    pair.stream(stream).write_param(index, Tensor::Value, &moved)?;
                    Ok(pair.training_loss(batch, seed, 0)?.loss())
                };
                let (ahead, behind) = (loss_at(step)? - here, here - loss_at(-step)?);
                let slopes = [(ahead + behind) / (2. * step), ahead / step, behind / step];
                let error =
                    |slope: f64| if square > 0. { (square - slope).abs() / square.max(slope.abs()) } else { 1. };
                let numeric = slopes
                    .into_iter()
                    .fold(slopes[0], |best, slope| if error(slope) < error(best) { slope } else { best });
                let error = error(numeric);
                checks.push(Check {
                    stream,
                    parameter: param.name.clone(),
                    direction,
                    analytic: square,
                    numeric,
                    error,
                });
            }
            pair.stream(stream).write_param(index, Tensor::Value, &value)?;
        }
    }
    Ok(checks)
}

fn square_sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// The gradient, or a random half of its elements (2: the other half) and 0 elsewhere.
fn masked(gradient: &[f32], seed: u64, direction: u32) -> Vec<f32> {
    let rng = Philox::new(seed, Purpose::Check, 0);
    let keeps = |i: usize| direction == 0 || rng.block([i as u32, 0, 0, 0])[0] % 2 == direction % 2;
    gradient.iter().enumerate().map(|(i, &g)| if keeps(i) { g } else { 0. }).collect()
}
