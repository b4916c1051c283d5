//! The lines of a run's files: what is written is what is read. Keys that are missing (older versions) or unknown (newer
//! ones) are no error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::host::Host;
use crate::engine::first_layer::Colourfulness;
use crate::engine::times::{Activity, StreamTimes};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// A training step.
    Step(Step),
    /// The held-out images.
    Eval(Eval),
    /// The streams' times.
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Steps done, this one included.
    pub step: u64,
    /// From 0.
    #[serde(default)]
    pub epoch: u64,
    /// Mean cross-entropy of the batch.
    #[serde(default = "nan", with = "number")]
    pub loss: f64,
    /// Share of the batch, 0 to 1; NaN where it was not written.
    #[serde(default = "nan", with = "number")]
    pub top1_error: f64,
    /// Learning rate.
    #[serde(default = "nan", with = "number")]
    pub lr: f64,
    /// Training speed.
    #[serde(default = "nan", with = "number")]
    pub images_per_s: f64,
    /// Time waited for the batch.
    #[serde(default = "nan", with = "number")]
    pub loader_wait_ms: f64,
}

/// An evaluation of the held-out images.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Eval {
    /// Training steps done.
    pub step: u64,
    /// Epochs done or begun.
    #[serde(default)]
    pub epoch: u64,
    /// Mean cross-entropy.
    #[serde(default = "nan", with = "number")]
    pub loss: f64,
    /// Share of images, 0 to 1.
    #[serde(default = "nan", with = "number")]
    pub top1_error: f64,
    /// Share of images, 0 to 1.
    #[serde(default = "nan", with = "number")]
    pub top5_error: f64,
}

/// The streams' times over some steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    /// The last of the steps.
    pub step: u64,
    /// The number of steps.
    #[serde(default)]
    pub steps: u64,
    /// By stream.
    #[serde(default)]
    pub streams: Vec<StreamMeans>,
}

/// One stream's time, milliseconds per step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filters {
    /// Training steps done.
    pub step: u64,
    /// By stream, a number of 0 to 1 a kernel.
    #[serde(default)]
    pub colourfulness: Vec<Vec<f64>>,
    /// Of it, by stream.
    #[serde(default)]
    pub means: Vec<f64>,
    /// The streams' difference in colourfulness; NaN for one stream.
    #[serde(default = "nan", with = "number", skip_serializing_if = "is_nan")]
    pub gap: f64,
}

/// Updates that were not made, or were taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// The last of their steps.
    pub step: u64,
    /// The number of steps.
    #[serde(default = "one")]
    pub steps: u64,
    /// The loss, mostly NaN.
    #[serde(default = "nan", with = "number")]
    pub loss: f64,
    /// The reason.
    #[serde(default)]
    pub why: String,
}

/// A line of `journal.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// A process began or resumed the run.
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

/// A process began or resumed the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// The number of the process.
    pub process: Option<u32>,
}

/// The end of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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

fn one() -> u64 {
    1
}

fn nan() -> f64 {
    f64::NAN
}

fn is_nan(value: &f64) -> bool {
    value.is_nan()
}

/// Numbers; one that JSON has not is written as a string ("NaN"), and read as that or null.
mod number {
    use super::*;

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { value.serialize(to) } else { value.to_string().serialize(to) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(match serde_json::Value::deserialize(from)? {
            serde_json::Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
            serde_json::Value::String(text) => text.parse().unwrap_or(f64::NAN),
            _ => f64::NAN,
        })
    }
}

/// Now, in seconds since 1970.
pub fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0., |time| time.as_secs_f64())
}

impl Event {
    /// A warning of now.
    pub fn warning(text: impl Into<String>) -> Event {
        Event::Warning { unix_s: unix_s(), text: text.into() }
    }
}

impl Times {
    /// The times of each stream since `before`; `None` where no step was made.
    pub fn between(step: u64, before: &[StreamTimes], now: &[StreamTimes]) -> Option<Times> {
        let steps = now.first()?.steps - before.first().map_or(0, |times| times.steps);
        let means = |(stream, times): (usize, &StreamTimes)| {
            let ms = |part: &dyn Fn(&StreamTimes) -> Duration| {
                let before = before.get(stream).map_or(Duration::ZERO, part);
                part(times).saturating_sub(before).as_secs_f64() * 1e3 / steps as f64
            };
            StreamMeans {
                total_ms: ms(&|times| times.total),
                compute_ms: ms(&|times| times.activity(Activity::Compute)),
                exchange_ms: ms(&|times| times.activity(Activity::Exchange)),
                waiting_ms: ms(&|times| times.activity(Activity::Waiting)),
                hidden_ms: ms(&|times| times.hidden),
            }
        };
        (steps > 0).then(|| Times { step, steps, streams: now.iter().enumerate().map(means).collect() })
    }
}

impl Filters {
    /// The kernels' colours after `step`.
    pub fn of(step: u64, colours: &Colourfulness) -> Filters {
        let (means, gap) = (colours.means(), colours.gap().unwrap_or(f64::NAN));
        Filters { step, means, gap, colourfulness: colours.streams.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let skipped = Skipped { step: 3, steps: 1, loss: f64::NEG_INFINITY, why: "jumped".into() };
        let filters = Filters { step: 4, colourfulness: vec![vec![0.5]], means: vec![0.5], gap: f64::NAN };
        for (row, expected) in [
            (Row::Skipped(skipped), r#"{"kind":"skipped","step":3,"steps":1,"loss":"-inf","why":"jumped"}"#),
            (Row::Filters(filters), r#"{"kind":"filters","step":4,"colourfulness":[[0.5]],"means":[0.5]}"#),
        ] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(text, expected);
            let again: Row = serde_json::from_str(&text).unwrap();
            assert_eq!(format!("{again:?}"), format!("{row:?}"));
        }
        let event = serde_json::to_string(&Event::warning("hot")).unwrap();
        assert!(event.starts_with(r#"{"kind":"warning","unix_s":1"#) && event.ends_with(r#""text":"hot"}"#), "{event}");
    }
}
