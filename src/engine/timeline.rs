//! One step in detail: the events of each stream with their times.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::times::Activity;
use crate::net::swap::Pass;

/// Something that a stream did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The layer that it was done for.
    pub layer: String,
    /// In which pass.
    pub pass: Pass,
    /// Its kind.
    pub activity: Activity,
    /// Microseconds since the step began.
    pub start_us: f64,
    /// Its duration in microseconds.
    pub us: f64,
}

impl Event {
    /// See the fields.
    pub fn new(layer: String, pass: Pass, activity: Activity, start: Duration, time: Duration) -> Event {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Event { layer, pass, activity, start_us: us(start), us: us(time) }
    }

    /// The same by a clock that began later.
    pub fn earlier_by(self, time: Duration) -> Event {
        Event { start_us: (self.start_us - time.as_secs_f64() * 1e6).max(0.), ..self }
    }
}

/// A training step, by the clock of the process that began it: so the times of streams of one process can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Its number, from 1.
    pub step: u64,
    /// By stream.
    pub streams: Vec<StreamEvents>,
}

/// One stream's part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamEvents {
    /// Its number.
    pub stream: usize,
    /// In the order of their ends, but for exchanges, which come before the waiting for them.
    pub events: Vec<Event>,
}

impl Timeline {
    /// Of the streams' events in step `step`.
    pub fn new(step: u64, streams: Vec<Vec<Event>>) -> Timeline {
        let streams = streams.into_iter().enumerate();
        Timeline { step, streams: streams.map(|(stream, events)| StreamEvents { stream, events }).collect() }
    }
}
