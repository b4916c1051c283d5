//! Extreme values of tensors, which are written to a file after a bad loss.

use serde::{Deserialize, Serialize};

/// The extremes of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extremes {
    /// `conv1` for a layer's output, `conv1.weight.own` for a parameter, `conv1.weight.own.gradient`.
    pub tensor: String,
    /// Least finite value; `None` where there is none.
    pub min: Option<f32>,
    /// Largest finite value.
    pub max: Option<f32>,
    /// Values that are NaN or infinite.
    pub not_finite: usize,
}

impl Extremes {
    /// Of these values.
    pub fn of(tensor: String, values: &[f32]) -> Extremes {
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        Extremes {
            tensor,
            min: finite().reduce(f32::min),
            max: finite().reduce(f32::max),
            not_finite: values.len() - finite().count(),
        }
    }
}
