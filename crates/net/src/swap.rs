//! The subject of an exchange.

use std::fmt;
use std::sync::Arc;

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Image to loss.
    Forward,
    /// Loss to gradients.
    Backward,
    /// Gradients to new weights.
    Update,
}

impl Pass {
    /// All of them, in order.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::Backward, Pass::Update];
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Update => "update",
        })
    }
}

/// One exchange: which one it is, and how many values go each way (none, where nothing is given).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Name of the layer that needs it.
    pub layer: Arc<str>,
    /// Activations go forward, gradients backward.
    pub pass: Pass,
    /// Training step, or `None` at test time.
    pub step: Option<u64>,
    /// Values in each buffer.
    pub elems: usize,
    /// The bytes that they take.
    pub bytes: usize,
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values for layer {} ({} pass, ", self.elems, self.layer, self.pass)?;
        match self.step {
            Some(step) => write!(f, "step {})", step + 1),
            None => write!(f, "evaluation)"),
        }
    }
}
