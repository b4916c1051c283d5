//! `--trace`: a timeline in the format of Chrome's tracing, which Perfetto shows. The program's own spans (steps, waiting
//! for batches, evaluations, checkpoints) are there in full, on the tracks of their threads; what each stream does is
//! there for some steps, on a track of its own, from the devices' clocks.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::engine::timeline::{Event, Timeline};
use crate::engine::times::Activity;
use crate::error::{Error, Result};

/// Spans of the program that are shown.
const SHOWN: [&str; 6] = ["step", "batch", "eval", "checkpoint", "write checkpoint", "make batch"];

/// Track of the first stream; each has two. Threads have those before.
const STREAM_TRACK: u64 = 1000;

/// The file that is being written.
static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

struct Trace {
    file: BufWriter<File>,
    began: Instant,
    threads: Tracks,
    /// Those that have been given a name.
    named: Vec<u64>,
    /// Nothing more is written after the first failure.
    failed: bool,
}

/// Tracks of the program's threads, by number from 1: 0 is the idle thread to viewers, which hide it, and 1, as the
/// process, the main one.
#[derive(Default)]
struct Tracks(Vec<ThreadTrack>);

struct ThreadTrack {
    name: String,
    number: u64,
    /// The thread of the newest span, and the end of the last one.
    thread: Option<ThreadId>,
    end_us: f64,
}

impl Tracks {
    /// The number and the name of the track for a span of `thread`. Threads of one name share a track as long as nothing
    /// of one overlaps with what another has done, which viewers would drop.
    fn place(&mut self, name: &str, thread: ThreadId, [from_us, to_us]: [f64; 2]) -> (u64, String) {
        if self.0.is_empty() {
            self.0.push(ThreadTrack { name: "main".into(), number: 1, thread: None, end_us: 0. });
        }
        let same = self.0.iter().filter(|track| track.name == name).count();
        let free =
            |track: &&mut ThreadTrack| track.name == name && (track.thread == Some(thread) || track.end_us <= from_us);
        let next = self.0.len() as u64 + 1;
        let number = match self.0.iter_mut().find(free) {
            Some(track) => {
                (track.thread, track.end_us) = (Some(thread), track.end_us.max(to_us));
                track.number
            }
            None => {
                self.0.push(ThreadTrack { name: name.into(), number: next, thread: Some(thread), end_us: to_us });
                next
            }
        };
        (number, if same > 0 && number == next { format!("{name} {}", same + 1) } else { name.into() })
    }
}

/// The guard of a trace: while it exists the trace is written; then the file is completed.
#[must_use]
pub struct Tracing(());

/// Starts to write a trace to `path`. It can be opened at any time: viewers ask for no end, as of a run that was killed.
pub fn start(path: &Path) -> Result<Tracing> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut trace = Trace {
        file: BufWriter::new(file),
        began: Instant::now(),
        threads: Tracks::default(),
        named: Vec::new(),
        failed: false,
    };
    let process = json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "alexnet-split"}});
    trace.write(&format!("[\n{process}"));
    *current() = Some(trace);
    Ok(Tracing(()))
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(mut trace) = current().take() {
            trace.write("\n]\n");
            trace.flush();
        }
    }
}

/// Whether a trace is being written.
pub fn is_on() -> bool {
    current().is_some()
}

/// Adds the streams' events in a step that began at `began`.
pub fn add_step(began: Instant, timeline: &Timeline) {
    let mut current = current();
    let Some(trace) = current.as_mut() else { return };
    let start_us = trace.us(began);
    for stream in &timeline.streams {
        let track = STREAM_TRACK + 2 * stream.stream as u64;
        trace.name_track(track, &format!("stream {}", stream.stream));
        trace.name_track(track + 1, &format!("stream {}: exchange", stream.stream));
        let end = |event: &Event| event.start_us + event.us;
        let mut add = |track: u64, name: &str, events: &[&Event]| {
            let last = events.iter().map(|event| end(event)).fold(0., f64::max);
            trace.add_span(track, name, [start_us + events[0].start_us, start_us + last]);
        };
        let worked: Vec<&Event> = stream.events.iter().filter(|event| event.activity != Activity::Exchange).collect();
        if !worked.is_empty() {
            add(track, &format!("step {}", timeline.step), &worked);
        }
        // Passes, in them layers, in those that do more than one thing computing and waiting.
        for of_pass in worked.chunk_by(|a, b| a.pass == b.pass) {
            add(track, &of_pass[0].pass.to_string(), of_pass);
            for of_layer in of_pass.chunk_by(|a, b| a.layer == b.layer) {
                add(track, &of_layer[0].layer, of_layer);
                for event in of_layer.iter().filter(|_| of_layer.len() > 1) {
                    add(track, &event.activity.to_string(), &[event]);
                }
            }
        }
        for event in stream.events.iter().filter(|event| event.activity == Activity::Exchange) {
            // The part that had arrived is drawn all the same.
            let event = Event { us: event.us.max(1.), ..event.clone() };
            add(track + 1, &format!("{} {}", event.layer, event.pass), &[&event]);
        }
    }
    trace.flush();
}

impl Trace {
    fn us(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64() * 1e6
    }

    fn name_track(&mut self, track: u64, name: &str) {
        if !self.named.contains(&track) {
            self.named.push(track);
            self.add(&json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": name}}));
            self.add(
                &json!({"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": track, "args": {"sort_index": track}}),
            );
        }
    }

    /// An event with start and end in whole microseconds of the trace: viewers round start and length apart, and drop
    /// what then reaches a nanosecond out of what it is in.
    fn add_span(&mut self, track: u64, name: &str, [from, to]: [f64; 2]) {
        let (from, to) = (from as u64, to as u64);
        self.add(&json!({"ph": "X", "name": name, "pid": 1, "tid": track, "ts": from, "dur": to - from}));
    }

    fn add(&mut self, event: &Value) {
        self.write(&format!(",\n{event}"));
    }

    fn write(&mut self, text: &str) {
        if !self.failed && self.file.write_all(text.as_bytes()).is_err() {
            self.fail();
        }
    }

    fn flush(&mut self) {
        if !self.failed && self.file.flush().is_err() {
            self.fail();
        }
    }

    fn fail(&mut self) {
        // A failure of the trace does not end the run.
        self.failed = true;
        errln!("warning: the trace cannot be written; it ends here");
    }
}

fn current() -> MutexGuard<'static, Option<Trace>> {
    TRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns the program's spans into events; part of the subscriber that `logs` sets up.
pub struct Spans;

/// Whether the trace shows spans of this kind.
pub fn shows(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && SHOWN.contains(&metadata.name())
}

/// The start of a span, and its name with its step.
struct Began(Instant, String);

/// Finds a span's step.
struct StepOf(Option<u64>);

impl Visit for StepOf {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "step" {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id).filter(|_| is_on()) {
            let mut step = StepOf(None);
            attributes.record(&mut step);
            let name = match (span.name(), step.0) {
                ("step", Some(step)) => format!("step {step}"),
                (name, _) => name.to_owned(),
            };
            span.extensions_mut().insert(Began(Instant::now(), name));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(Began(began, name)) = span.extensions_mut().remove::<Began>() else { return };
        let mut current = current();
        let Some(trace) = current.as_mut() else { return };
        let thread = std::thread::current().name().unwrap_or("worker").to_owned();
        let span_us = [trace.us(began), trace.us(Instant::now())];
        let (track, name_of_track) = trace.threads.place(&thread, std::thread::current().id(), span_us);
        trace.name_track(track, &name_of_track);
        trace.add_span(track, &name, span_us);
        if span.name() != "batch" {
            trace.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_name_share_a_track_unless_their_spans_overlap() {
        let id = || std::thread::spawn(|| std::thread::current().id()).join().unwrap();
        let (main, first, second, third) = (id(), id(), id(), id());
        let mut tracks = Tracks::default();
        let mut place = |name: &str, thread, span| tracks.place(name, thread, span);
        assert_eq!(place("loader", first, [0., 10.]), (2, "loader".into()));
        // The span around it, of the same thread.
        assert_eq!(place("main", main, [4., 5.]), (1, "main".into()));
        assert_eq!(place("main", main, [3., 6.]).0, 1);
        assert_eq!(place("loader", second, [5., 12.]), (3, "loader 2".into()));
        assert_eq!(place("loader", first, [11., 20.]).0, 2);
        assert_eq!(place("loader", third, [13., 15.]).0, 3, "the second has ended");
        assert_eq!(place("loader", second, [14., 30.]), (4, "loader 3".into()));
        assert_eq!(place("checkpoint", id(), [14., 30.]), (5, "checkpoint".into()));
        assert_eq!(place("loader", id(), [40., 50.]).0, 2);
    }
}
