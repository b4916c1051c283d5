//! The lines of a run's files. Keys that are missing (older versions) or unknown (newer ones) are no error.

use serde::{Deserialize, Deserializer};

use super::host::Host;

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// A training step.
    Step(Step),
    /// The held-out images.
    Eval(Eval),
    /// Where time went.
    Times(Times),
    /// The first layer's kernels.
    Filters(Filters),
    /// An update that was not made.
    Skipped(Skipped),
    /// The field as other versions write it.
    #[serde(other)]
    Other,
}

/// A training step.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Steps done, this one included.
    pub step: u64,
    /// From 0.
    #[serde(default)]
    pub epoch: u64,
    /// Mean cross-entropy of the batch.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loss: f64,
    /// Share of the batch, 0 to 1; NaN where it was not written.
    #[serde(default = "nan", deserialize_with = "number")]
    pub top1_error: f64,
    /// Learning rate.
    #[serde(default = "nan", deserialize_with = "number")]
    pub lr: f64,
    /// Training speed.
    #[serde(default = "nan", deserialize_with = "number")]
    pub images_per_s: f64,
    /// Time waited for the batch.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loader_wait_ms: f64,
}

/// An evaluation of the held-out images.
#[derive(Clone, Debug, Deserialize)]
pub struct Eval {
    /// Training steps done.
    pub step: u64,
    /// Epochs done or begun.
    #[serde(default)]
    pub epoch: u64,
    /// Mean cross-entropy.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loss: f64,
    /// Share of images, 0 to 1.
    #[serde(default = "nan", deserialize_with = "number")]
    pub top1_error: f64,
    /// Share of images, 0 to 1.
    #[serde(default = "nan", deserialize_with = "number")]
    pub top5_error: f64,
}

/// Where the streams' time went over some steps.
#[derive(Clone, Debug, Deserialize)]
pub struct Times {
    /// The last of the steps.
    pub step: u64,
    /// How many they were.
    #[serde(default)]
    pub steps: u64,
    /// By stream.
    #[serde(default)]
    pub streams: Vec<StreamMeans>,
}

/// One stream's time, milliseconds a step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamMeans {
    /// From a step's first operation to the end of its last.
    pub total_ms: f64,
    /// Computing.
    pub compute_ms: f64,
    /// Values on their way.
    pub exchange_ms: f64,
    /// Waiting for the other stream's values.
    pub waiting_ms: f64,
    /// The part of the exchange during which this stream computed.
    pub hidden_ms: f64,
}

/// The first layer's kernels in numbers.
#[derive(Clone, Debug, Deserialize)]
pub struct Filters {
    /// Training steps done.
    pub step: u64,
    /// By stream, a number of 0 to 1 a kernel.
    #[serde(default)]
    pub colourfulness: Vec<Vec<f64>>,
    /// Of it, by stream.
    #[serde(default)]
    pub means: Vec<f64>,
    /// How far apart the streams are.
    #[serde(default = "nan", deserialize_with = "number")]
    pub gap: f64,
}

/// Updates that were not made, or were taken back.
#[derive(Clone, Debug, Deserialize)]
pub struct Skipped {
    /// The last of their steps.
    pub step: u64,
    /// How many they are.
    #[serde(default = "one")]
    pub steps: u64,
    /// The loss, mostly NaN.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loss: f64,
    /// The reason.
    #[serde(default)]
    pub why: String,
}

/// A line of `journal.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// A process began, or went on.
    Start(Box<Start>),
    /// Something that the user should know.
    Warning {
        /// Seconds since 1970.
        #[serde(default)]
        unix_s: f64,
        /// The warning.
        #[serde(default)]
        text: String,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Seconds since 1970.
        #[serde(default)]
        unix_s: f64,
        /// Training steps done.
        #[serde(default)]
        step: u64,
    },
    /// The process ended in order.
    End(End),
    /// The field as other versions write it.
    #[serde(other)]
    Other,
}

/// A process began, or went on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Seconds since 1970.
    pub unix_s: f64,
    /// Training steps done before.
    pub step: u64,
    /// The command line.
    pub command: Vec<String>,
    /// Of this program.
    pub version: String,
    /// Of its source, short.
    pub commit: Option<String>,
    /// The training process.
    pub device: String,
    /// The machine.
    pub host: Host,
    /// Of all random numbers.
    pub seed: Option<u64>,
    /// Steps to make in all.
    pub total_steps: Option<u64>,
    /// Epochs to make in all.
    pub epochs: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct End {
    /// Seconds since 1970.
    pub unix_s: f64,
    /// Training steps done, where it came to its end.
    pub step: Option<u64>,
    /// `finished`, `interrupted`, `diverged` or `failed`.
    pub how: String,
    /// The program's.
    pub exit_code: i64,
    /// Its output.
    pub message: String,
}

/// `run.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Of this program.
    pub version: String,
    /// Of its source, short.
    pub commit: Option<String>,
    /// The data folder.
    pub data: String,
    /// Class names by label.
    pub classes: Vec<String>,
}

fn one() -> u64 {
    1
}

fn nan() -> f64 {
    f64::NAN
}

/// A number; what JSON has no number for is written as a string ("NaN") or null.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        serde_json::Value::String(text) => text.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    })
}
