//! The report of `bench`, for people, as JSON, and beside an earlier run.

use serde::{Deserialize, Serialize};

use super::bench::STEPS_AT_ONCE;

/// A measurement.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The device.
    pub device: String,
    /// The CPU's instructions in use.
    #[serde(default)]
    pub instructions: String,
    /// The recipe's name.
    pub recipe: String,
    /// Images per step.
    pub batch_size: usize,
    /// Forward pass only.
    pub inference: bool,
    /// By the median step.
    pub images_per_s: f64,
    /// Of each step.
    pub step_ms: Vec<f64>,
    /// By the count of direct convolution.
    pub gflops: f64,
    /// The machine's measured multiply-add rate; `None` on GPUs.
    pub peak_gflops: Option<f64>,
    /// The machine's measured rate of changing memory in place, bytes read and bytes written; `None` on GPUs.
    pub peak_gb_per_s: Option<f64>,
    /// By layer; empty for inference.
    pub layers: Vec<LayerReport>,
    /// The peer.
    pub pytorch: Option<PeerReport>,
}

/// One layer's row: forward, backward and update, of the slower stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its name.
    pub layer: String,
    /// Milliseconds per step.
    pub ms: [f64; 3],
    /// Of both streams, by the count of direct convolution; `None` for passes without products.
    pub gflops: [Option<f64>; 3],
    /// Of both streams: the bytes that a pass without products must read and write; `None` for the others.
    pub gb_per_s: [Option<f64>; 3],
}

/// PyTorch in the same run.
#[derive(Debug, Serialize, Deserialize)]
pub struct PeerReport {
    /// Version and variant.
    pub about: String,
    /// By the median step.
    pub images_per_s: f64,
    /// Ours over theirs.
    pub ratio: f64,
    /// Of each step.
    pub step_ms: Vec<f64>,
}

impl Report {
    /// The table and the sums.
    pub fn print(&self) {
        let steps = self.step_ms.len();
        outln!("{}; recipe {}, batch {}, median of {steps} steps\n", self.device, self.recipe, self.batch_size);
        if !self.layers.is_empty() {
            outln!("{:<12}{:>9}{:>22}{:>9}{:>22}{:>8}", "layer", "forw ms", "rate", "backw ms", "rate", "upd ms");
        }
        for row in &self.layers {
            let [forward, backward, update] = row.ms;
            let [rate_forward, rate_backward] = [0, 1].map(|pass| self.rate(row, pass));
            outln!("{:<12}{forward:>9.1}{rate_forward:>22}{backward:>9.1}{rate_backward:>22}{update:>8.1}", row.layer);
        }
        let what = if self.inference { "inference" } else { "training" };
        outln!("\n{what:<15}{}", speeds(self.batch_size, self.images_per_s, &self.step_ms));
        let gflops = self.gflops;
        let share = |peak: f64| format!(", {:.0}% of the measured peak of {peak:.0}", 100. * gflops / peak);
        let share = self.peak_gflops.map_or(String::new(), share);
        outln!("{:<15}{gflops:.0} GFLOP/s by direct convolution{share}", "arithmetic");
        if let Some(peak) = self.peak_gb_per_s {
            outln!("{:<15}{peak:.0} GB/s changed in place: the limit of passes without matrix products", "memory");
        }
        match &self.pytorch {
            Some(peer) => {
                outln!("{:<15}{}", "PyTorch", speeds(self.batch_size, peer.images_per_s, &peer.step_ms));
                // Only the CPU's peak is measured.
                let how = match self.peak_gflops {
                    Some(_) => "alternating steps".into(),
                    None => format!("alternating turns of {STEPS_AT_ONCE} steps; both upload the images in each step"),
                };
                outln!("{:<15}{}, {how}", "", peer.about);
                outln!("{:<15}{:.2}", "ratio", peer.ratio);
            }
            None => outln!("{:<15}not measured; give --pytorch PYTHON, a Python that has it", "PyTorch"),
        }
    }

    /// A pass's rate and its share of what the machine can do.
    fn rate(&self, row: &LayerReport, pass: usize) -> String {
        let share =
            |rate: f64, peak: Option<f64>| peak.map_or(String::new(), |peak| format!(" {:>4.0}%", 100. * rate / peak));
        match (row.gflops[pass], row.gb_per_s[pass]) {
            (Some(rate), _) => format!("{rate:.0} GFLOP/s{}", share(rate, self.peak_gflops)),
            (None, Some(rate)) => format!("{rate:.1} GB/s{}", share(rate, self.peak_gb_per_s)),
            (None, None) => String::new(),
        }
    }

    /// Prints how much faster (over 1) or slower this run is than an earlier one.
    pub fn print_compared(&self, before: &Report) {
        outln!("\ntimes as fast as before ({}, batch {}):", before.device, before.batch_size);
        for row in &self.layers {
            let Some(old) = before.layers.iter().find(|old| old.layer == row.layer) else { continue };
            let ratio = |pass: usize| match (old.ms[pass], row.ms[pass]) {
                // Below that a timer says little.
                (old, new) if old < 0.05 || new < 0.05 => String::new(),
                (old, new) => format!("{:.2}", old / new),
            };
            outln!("{:<12}{:>9}{:>31}{:>30}", row.layer, ratio(0), ratio(1), ratio(2));
        }
        outln!("{:<12}{:>9.2}", "all", self.images_per_s / before.images_per_s);
    }
}

/// The median speed and its range.
fn speeds(n: usize, images_per_s: f64, ms: &[f64]) -> String {
    let speed = |worst: fn(f64, f64) -> f64| n as f64 * 1e3 / ms.iter().copied().reduce(worst).unwrap_or(f64::NAN);
    format!("{images_per_s:.1} images/s ({:.1} to {:.1})", speed(f64::max), speed(f64::min))
}
