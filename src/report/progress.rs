//! Progress while training: bars on a terminal, plain lines elsewhere, JSON lines on request.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::logs::{self, BARS};
use crate::train::session::{EvalReport, Observer, StepReport};

/// Steps that the shown loss, accuracy and speed are averaged over, about.
const MEMORY: f64 = 20.;

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows a run.
pub struct Progress {
    json: bool,
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
    batch_size: usize,
    started: Instant,
    first_step: u64,
    total: u64,
    epochs: u64,
    last_line: Instant,
    loss: Average,
    accuracy: Average,
    images_per_s: Average,
}

/// A mean that forgets.
#[derive(Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64) {
        let keep = 1. - 1. / MEMORY;
        self.sum = keep * self.sum + value;
        self.weight = keep * self.weight + 1.;
    }

    fn value(&self) -> f64 {
        self.sum / self.weight.max(1e-9)
    }
}

/// A loss as people read it.
pub fn loss_text(loss: f64) -> String {
    if loss.abs() < 1e6 || !loss.is_finite() { format!("{loss:.3}") } else { format!("{loss:.3e}") }
}

impl Progress {
    /// For a run at this batch size.
    pub fn new(json: bool, batch_size: usize) -> Progress {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| BARS.add(ProgressBar::no_length()));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} steps, {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        }
        let now = Instant::now();
        Progress {
            json,
            bar,
            batch_size,
            started: now,
            first_step: 0,
            total: 0,
            epochs: 0,
            last_line: now,
            loss: Average::default(),
            accuracy: Average::default(),
            images_per_s: Average::default(),
        }
    }

    /// A line for people.
    pub fn say(&self, text: &str) {
        if self.json { logs::note(text) } else { logs::say(text) }
    }

    fn time_left(&self, step: u64) -> String {
        let done = (step - self.first_step).max(1) as f64;
        let left = self.started.elapsed().as_secs_f64() / done * (self.total - step) as f64;
        let left = left.round() as u64;
        if left >= 3600 {
            format!("{}h{:02}m", left / 3600, left % 3600 / 60)
        } else {
            format!("{}m{:02}s", left / 60, left % 60)
        }
    }
}

impl Observer for Progress {
    fn started(&mut self, step: u64, total: u64, epochs: u64) {
        (self.first_step, self.total, self.epochs) = (step, total, epochs);
        self.started = Instant::now();
        self.last_line = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(step);
            bar.set_prefix(format!("epoch 1/{epochs}"));
            bar.set_message(format!("first batch of {}", self.batch_size));
        }
        if step >= total {
            self.say(&format!("nothing to do: the run has its {step} steps; give more with --epochs or --steps"));
        }
    }

    fn stepped(&mut self, report: &StepReport) {
        let speed = report.result.images as f64 / report.time.as_secs_f64();
        self.loss.add(report.result.loss());
        self.accuracy.add(1. - report.result.top1_error());
        self.images_per_s.add(speed);
        if self.json {
            let row = json!({"kind": "step", "step": report.step, "epoch": report.epoch, "loss": report.result.loss(), "lr": report.lr, "images_per_s": speed});
            crate::outln!("{row}");
            return;
        }
        let state = format!(
            "{:.0} images/s, loss {}, accuracy {:.0}%, {} left",
            self.images_per_s.value(),
            loss_text(self.loss.value()),
            100. * self.accuracy.value(),
            self.time_left(report.step)
        );
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_prefix(format!("epoch {}/{}", report.epoch + 1, self.epochs));
            bar.set_message(state);
        } else if self.last_line.elapsed() >= LINE_EVERY
            || report.step == self.total
            || report.step == self.first_step + 1
        {
            self.last_line = Instant::now();
            self.say(&format!(
                "epoch {}/{}, step {}/{}: {state}",
                report.epoch + 1,
                self.epochs,
                report.step,
                self.total
            ));
        }
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("held-out images {done}/{total}"));
        }
    }

    fn evaluated(&mut self, report: &EvalReport) {
        let result = &report.result;
        if self.json {
            let row = json!({"kind": "eval", "step": report.step, "epoch": report.epoch, "loss": result.loss(), "top1_error": result.top1_error(), "top5_error": result.top5_error()});
            crate::outln!("{row}");
            return;
        }
        let (top1, top5) = (100. * (1. - result.top1_error()), 100. * (1. - result.top5_error()));
        self.say(&format!(
            "step {}: held-out accuracy {top1:.1}%, top-5 {top5:.1}%, loss {} ({} images)",
            report.step,
            loss_text(result.loss()),
            result.images
        ));
        if let (Some(bar), true) = (&self.bar, report.step >= self.total) {
            bar.finish_and_clear();
        }
    }

    fn dropped_rate(&mut self, lr: f32) {
        self.say(&format!("the held-out error has stopped improving: learning rate now {lr}"));
    }

    fn stopped_early(&mut self, epochs: u32) {
        self.say(&format!("the held-out error has not improved for {epochs} epochs: the run ends"));
    }

    fn left_out(&mut self, step: u64, why: &str) {
        self.say(&format!("step {step} left out: {why}"));
    }

    fn saved(&mut self, path: &Path) {
        self.say(&format!("saved {}", path.display()));
    }
}
