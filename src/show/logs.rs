//! Logs that do not break the progress bars, and the lines of them that are kept.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

use super::trace;
use crate::error::{Error, Result};

/// All bars of the program; hidden where standard error is not a terminal.
pub static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The file that lines are copied to, and the warnings that nobody has taken yet.
static KEPT: Mutex<(Option<File>, Vec<String>)> = Mutex::new((None, Vec::new()));

/// Starts logging to standard error: warnings; with `verbose` 1 steps, evaluations and checkpoints with their times;
/// with 2 every layer, exchange and wait of both streams; with 3 every operation. `RUST_LOG` (such as
/// `alexnet_split=debug`) overrides both.
pub fn start(verbose: u8) {
    let level =
        [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE][usize::from(verbose.min(3))];
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(AboveBars)
        .with_ansi(io::stderr().is_terminal())
        .with_span_events(FmtSpan::CLOSE)
        .with_target(false);
    let filter = chosen.unwrap_or_else(|| Targets::new().with_default(level));
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter));
    // Fails only where a host program has set up its own logging, which then stays.
    let registry = registry.with(Warnings.with_filter(LevelFilter::WARN));
    let _ = registry.with(trace::Spans.with_filter(filter_fn(trace::shows))).try_init();
}

/// From now on adds the lines that [`say`] prints, and warnings, to a file.
pub fn keep(path: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(path).map_err(Error::io("open", path))?;
    kept().0 = Some(file);
    Ok(())
}

/// A line for people on standard output; kept.
pub fn say(text: &str) {
    BARS.suspend(|| outln!("{text}"));
    note(text);
}

/// A line that is only kept.
pub fn note(text: &str) {
    if let Some(file) = &mut kept().0 {
        // A failure of the log does not end the run.
        let _ = writeln!(file, "{text}");
    }
}

/// Keeps a warning that the terminal has shown already.
fn keep_warning(text: &str) {
    note(&format!("warning: {text}"));
    kept().1.push(text.to_owned());
}

/// Warnings since the last call.
pub fn take_warnings() -> Vec<String> {
    std::mem::take(&mut kept().1)
}

fn kept() -> MutexGuard<'static, (Option<File>, Vec<String>)> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps warnings.
struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if *event.metadata().level() <= Level::WARN {
            let mut message = Message(String::new());
            event.record(&mut message);
            keep_warning(&message.0);
        }
    }
}

/// Writes a line while the bars are hidden.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveBars {
    type Writer = AboveBars;

    fn make_writer(&self) -> AboveBars {
        AboveBars
    }
}
