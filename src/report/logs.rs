//! Logs that do not tear the progress bars.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use std::sync::LazyLock;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

/// All bars of the program; hidden where standard error is not a terminal.
pub static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Starts logging to standard error: warnings; with `verbose` 1 steps, evaluations and checkpoints with their times;
/// with 2 every layer, exchange and wait of both streams; with 3 every operation. `RUST_LOG` (such as
/// `alexnet_split=debug`) goes before both.
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
    // Fails only where a host program has set up its own logging, which then stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

/// Writes a line while the bars are taken away.
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
