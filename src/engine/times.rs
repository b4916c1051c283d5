//! The times of a step: by stream, layer and pass, for computing, exchanging and waiting.

use std::fmt;
use std::time::Duration;

use crate::net::swap::Pass;

/// The activity of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Running an operation.
    Compute,
    /// Values were in flight between the streams, mostly while this one computed.
    Exchange,
    /// Waiting for the other stream's values.
    Waiting,
}

impl Activity {
    /// All of them, in order.
    pub const ALL: [Activity; 3] = [Activity::Compute, Activity::Exchange, Activity::Waiting];
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Activity::Compute => "compute",
            Activity::Exchange => "exchange",
            Activity::Waiting => "waiting",
        })
    }
}

/// Time of one stream over some steps.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StreamTimes {
    /// By layer, pass, activity.
    layers: Vec<[[Duration; 3]; 3]>,
    /// Training steps measured.
    pub steps: u64,
    /// From the first operation of each step to the end of its last one.
    pub total: Duration,
    /// The part of the exchanges during which this stream computed. Added up swap by swap: a wait that lasts longer
    /// than its exchange does not reduce the overlap of others.
    pub hidden: Duration,
}

impl StreamTimes {
    /// No time yet, for a network of `layers` layers.
    pub fn new(layers: usize) -> Self {
        StreamTimes {
            layers: vec![[[Duration::ZERO; 3]; 3]; layers],
            steps: 0,
            total: Duration::ZERO,
            hidden: Duration::ZERO,
        }
    }

    /// Adds a measurement.
    pub fn add(&mut self, layer: usize, pass: Pass, activity: Activity, time: Duration) {
        self.layers[layer][pass as usize][activity as usize] += time;
    }

    /// Time of one layer in one pass and activity.
    pub fn get(&self, layer: usize, pass: Pass, activity: Activity) -> Duration {
        self.layers[layer][pass as usize][activity as usize]
    }

    /// Time of all layers in one pass and activity.
    pub fn total(&self, pass: Pass, activity: Activity) -> Duration {
        (0..self.layers.len()).map(|layer| self.get(layer, pass, activity)).sum()
    }

    /// Time of one activity, all layers and passes.
    pub fn activity(&self, activity: Activity) -> Duration {
        Pass::ALL.iter().map(|&pass| self.total(pass, activity)).sum()
    }

    /// The part of the steps in which this stream did not compute.
    pub fn idle(&self) -> Duration {
        self.total.saturating_sub(self.activity(Activity::Compute))
    }
}

/// The table shown at the end of a run: one row per layer, for each stream milliseconds per step of computing forward,
/// backward and the update, of values in flight (exch) and of waiting for them (wait), and the share of the stream's
/// computing and waiting.
pub fn table(layer_names: &[String], streams: &[StreamTimes]) -> String {
    // 86 columns for two streams.
    let mut out = format!("{:<12}", "ms");
    for stream in 0..streams.len() {
        out += &format!("|{:<36}", format!(" stream {stream}"));
    }
    out += &format!("\n{:<12}", "a step");
    for _ in streams {
        out += &format!("|{:>7}{:>7}{:>6}{:>5}{:>5}{:>6}", "forw", "backw", "upd", "exch", "wait", "share");
    }
    out.push('\n');
    let mut row = |name: &str, cell: &dyn Fn(&StreamTimes, Pass, Activity) -> Duration| {
        out += &format!("{name:<12}");
        for times in streams {
            let ms = |time: Duration| time.as_secs_f64() * 1e3 / times.steps.max(1) as f64;
            let by_activity = |activity| Pass::ALL.iter().map(|&pass| cell(times, pass, activity)).sum::<Duration>();
            let busy = by_activity(Activity::Compute) + by_activity(Activity::Waiting);
            let whole = times.activity(Activity::Compute) + times.activity(Activity::Waiting);
            let [forward, backward, update] = Pass::ALL.map(|pass| ms(cell(times, pass, Activity::Compute)));
            let (exchange, waiting) = (ms(by_activity(Activity::Exchange)), ms(by_activity(Activity::Waiting)));
            let share = 100. * busy.as_secs_f64() / whole.as_secs_f64().max(1e-9);
            let cells = [(forward, 7), (backward, 7), (update, 6), (exchange, 5), (waiting, 5)];
            out.push('|');
            // From 100 ms on the decimal would fill the gap between columns.
            for (ms, width) in cells {
                let decimals = usize::from(ms < 99.95);
                out += &format!("{ms:>width$.decimals$}");
            }
            out += &format!("{share:>5.0}%");
        }
        out.push('\n');
    };
    for (layer, name) in layer_names.iter().enumerate() {
        row(name, &|times, pass, activity| times.get(layer, pass, activity));
    }
    row("all", &|times, pass, activity| times.total(pass, activity));
    out + &summary(streams)
}

/// A sentence per stream, and who waits for whom.
fn summary(streams: &[StreamTimes]) -> String {
    let mut out = String::new();
    for (stream, times) in streams.iter().enumerate() {
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / times.steps.max(1) as f64;
        let share = |part: Duration, whole: Duration| 100. * part.as_secs_f64() / whole.as_secs_f64().max(1e-9);
        let (compute, exchange) = (times.activity(Activity::Compute), times.activity(Activity::Exchange));
        out += &format!(
            "stream {stream}: of {:.1} ms per step {:.1}% computing, {:.1}% idle",
            ms(times.total),
            share(compute, times.total),
            share(times.idle(), times.total)
        );
        if exchange > Duration::ZERO {
            let hidden = share(times.hidden, exchange);
            out += &format!("; exchanging {:.1} ms, {hidden:.0}% of it hidden behind computing", ms(exchange));
        }
        out.push('\n');
    }
    if let [first, second] = streams {
        let waits = [first, second]
            .map(|times| times.activity(Activity::Waiting).as_secs_f64() * 1e3 / times.steps.max(1) as f64);
        if waits != [0., 0.] {
            let more = usize::from(waits[1] > waits[0]);
            let (most, least) = (waits[more], waits[1 - more]);
            out += &format!(
                "stream {more} waits for stream {}: {most:.1} ms per step; the reverse is {least:.1} ms\n",
                1 - more
            );
        }
    }
    out
}
