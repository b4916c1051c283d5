//! Where a step's time goes: by stream, layer, pass, and whether the stream computed, exchanged or waited.

use std::fmt;
use std::time::Duration;

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a stream was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Running an operation.
    Compute,
    /// Handing a buffer to the other stream.
    Exchange,
    /// Waiting for the other stream's buffer.
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
#[derive(Clone, Debug, Default)]
pub struct StreamTimes {
    /// By layer, pass, activity.
    layers: Vec<[[Duration; 3]; 3]>,
    /// Training steps measured.
    pub steps: u64,
}

impl StreamTimes {
    /// No time yet, for a network of `layers` layers.
    pub fn new(layers: usize) -> Self {
        StreamTimes { layers: vec![[[Duration::ZERO; 3]; 3]; layers], steps: 0 }
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

    /// All time measured.
    pub fn sum(&self) -> Duration {
        Activity::ALL.iter().map(|&activity| self.activity(activity)).sum()
    }
}

/// The table shown at the end of a run: a row a layer, for each stream milliseconds a step of computing forward,
/// backward and the update, of handing over (exch) and of waiting for the other stream, and the share of the stream's
/// time.
pub fn table(layer_names: &[String], streams: &[StreamTimes]) -> String {
    // 80 columns for two streams.
    let mut out = format!("{:<6}", "ms");
    for stream in 0..streams.len() {
        out += &format!("|{:<36}", format!(" stream {stream}"));
    }
    out += &format!("\n{:<6}", "a step");
    for _ in streams {
        out += &format!("|{:>7}{:>7}{:>6}{:>5}{:>5}{:>6}", "forw", "backw", "upd", "exch", "wait", "share");
    }
    out.push('\n');
    let mut row = |name: &str, cell: &dyn Fn(&StreamTimes, Pass, Activity) -> Duration| {
        out += &format!("{name:<6}");
        for times in streams {
            let ms = |time: Duration| time.as_secs_f64() * 1e3 / times.steps.max(1) as f64;
            let by_activity = |activity| Pass::ALL.iter().map(|&pass| cell(times, pass, activity)).sum::<Duration>();
            let all: Duration = Activity::ALL.iter().map(|&activity| by_activity(activity)).sum();
            let [forward, backward, update] = Pass::ALL.map(|pass| ms(cell(times, pass, Activity::Compute)));
            let (exchange, waiting) = (ms(by_activity(Activity::Exchange)), ms(by_activity(Activity::Waiting)));
            let share = 100. * all.as_secs_f64() / times.sum().as_secs_f64().max(1e-9);
            out += &format!("|{forward:>7.1}{backward:>7.1}{update:>6.1}{exchange:>5.1}{waiting:>5.1}{share:>5.0}%");
        }
        out.push('\n');
    };
    for (layer, name) in layer_names.iter().enumerate() {
        row(name, &|times, pass, activity| times.get(layer, pass, activity));
    }
    row("all", &|times, pass, activity| times.total(pass, activity));
    for (stream, times) in streams.iter().enumerate() {
        let share = |activity| 100. * times.activity(activity).as_secs_f64() / times.sum().as_secs_f64().max(1e-9);
        let [compute, exchange, waiting] = Activity::ALL.map(share);
        out += &format!(
            "stream {stream}: {compute:.1}% computing, {exchange:.1}% exchanging, {waiting:.1}% waiting for the other\n"
        );
    }
    out
}
