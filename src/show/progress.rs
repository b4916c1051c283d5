//! Progress while training: bars on a terminal, plain lines elsewhere, JSON lines on request.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::logs::{self, BARS};
use super::trace;
use crate::engine::timeline::Timeline;
use crate::text::{counted, loss_text};
use crate::train::session::{EvalReport, StepReport, TrainObserver};

/// Steps that the shown loss, accuracy and speed are averaged over, about.
const MEMORY: f64 = 20.;

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Steps after a start whose time says nothing of those to come: memory is new, kernels are being loaded.
const WARM_UP: u64 = 2;

/// Steps after a start at which the expected time of the run is printed.
const TELL_TIME_AFTER: u64 = 5;

/// A training step's time beside that of evaluating as many images: forward, and backward with respect to weights and
/// to inputs.
const PASSES: f64 = 3.;

/// The work of a run, besides its steps.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Images per step.
    pub batch_size: usize,
    /// Steps that make an epoch, after which the held-out images are evaluated.
    pub steps_per_epoch: u64,
    /// Held-out images.
    pub held_out: usize,
    /// Classes.
    pub classes: usize,
}

/// The display of a training run.
pub struct TrainProgress {
    json: bool,
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
    work: Work,
    started: Instant,
    first_step: u64,
    /// Steps done.
    step: u64,
    total: u64,
    epochs: u64,
    last_step: Instant,
    last_line: Instant,
    /// The times at which the newest result and the newest line about a checkpoint were shown.
    last_result: Option<Instant>,
    last_saved: Option<Instant>,
    loss: Average,
    accuracy: Average,
    images_per_s: Average,
    step_s: Average,
    /// Seconds that the newest evaluation took.
    evaluation_s: Option<f64>,
    held_out_accuracy: Option<f64>,
    epoch: EpochSums,
}

/// What an epoch's line is made of, up to now.
struct EpochSums {
    steps: u64,
    images: f64,
    loss: f64,
    errors: f64,
    began: Instant,
}

impl EpochSums {
    fn new() -> EpochSums {
        EpochSums { steps: 0, images: 0., loss: 0., errors: 0., began: Instant::now() }
    }
}

/// A moving average.
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

    /// `None` where there are no values.
    fn mean(&self) -> Option<f64> {
        (self.weight > 0.).then(|| self.value())
    }
}

/// A time as text for people.
fn time_text(seconds: f64) -> String {
    match seconds.round() as u64 {
        s @ 3600.. => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        s @ 60.. => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

impl TrainProgress {
    /// For a run with this work.
    pub fn new(json: bool, work: Work) -> TrainProgress {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| BARS.add(ProgressBar::no_length()));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} steps, {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        }
        let now = Instant::now();
        TrainProgress {
            json,
            bar,
            work,
            started: now,
            first_step: 0,
            step: 0,
            total: 0,
            epochs: 0,
            last_step: now,
            last_line: now,
            last_result: None,
            last_saved: None,
            loss: Average::default(),
            accuracy: Average::default(),
            images_per_s: Average::default(),
            step_s: Average::default(),
            evaluation_s: None,
            held_out_accuracy: None,
            epoch: EpochSums::new(),
        }
    }

    /// A line for people.
    pub fn say(&self, text: &str) {
        if self.json { logs::note(text) } else { logs::say(text) }
    }

    /// Whether all steps are done.
    pub fn is_complete(&self) -> bool {
        self.step >= self.total
    }

    /// The outcome of the run, for its last lines; `None` where it had nothing to do.
    pub fn outcome(&self) -> Option<String> {
        let steps = self.step - self.first_step;
        let result = self.held_out_accuracy.map_or(String::new(), |accuracy| {
            format!(": held-out accuracy {:.1}%, chance is {:.1}%", 100. * accuracy, 100. / self.work.classes as f64)
        });
        let steps = (steps > 0).then(|| counted(steps as usize, "step[s]"))?;
        Some(format!("{steps} in {}{result}", time_text(self.started.elapsed().as_secs_f64())))
    }

    /// Seconds from step `step`, which is done, to the end of the run; `None` before steps were measured.
    fn seconds_left(&self, step: u64) -> Option<f64> {
        let step_s = self.step_s.mean()?;
        let steps_to_evaluate = self.work.held_out as f64 / self.work.batch_size as f64;
        let evaluation_s = self.evaluation_s.unwrap_or(steps_to_evaluate * step_s / PASSES);
        Some(step_s * (self.total - step) as f64 + evaluation_s * self.evaluations_left(step) as f64)
    }

    /// One evaluation after each epoch and at the end; that of an epoch which ends with `step` is still to come.
    fn evaluations_left(&self, step: u64) -> u64 {
        self.total.div_ceil(self.work.steps_per_epoch) - step.saturating_sub(1) / self.work.steps_per_epoch
    }

    fn tell_time(&mut self, step: u64) {
        let (Some(left), Some(step_s)) = (self.seconds_left(step), self.step_s.mean()) else { return };
        let (ms, evaluations) = (step_s * 1e3, self.evaluations_left(step));
        if self.json {
            outln!("{}", json!({"kind": "estimate", "step": step, "ms_a_step": ms, "s_left": left}));
        }
        let often = if evaluations == 1 { "once".into() } else { format!("{evaluations} times") };
        self.say(&format!(
            "time     about {} from here: {ms:.0} ms per step, and the held-out images {often}",
            time_text(left)
        ));
        self.last_line = Instant::now();
    }

    /// Prints a line that may come too often to read: not every time where there is no progress bar. The log has all.
    fn say_at_times(&self, before: Option<Instant>, text: &str) -> Option<Instant> {
        let due = before.is_none_or(|before| before.elapsed() >= LINE_EVERY) || self.step >= self.total;
        if self.bar.is_some() || due {
            self.say(text);
            return Some(Instant::now());
        }
        logs::note(text);
        before
    }
}

impl TrainObserver for TrainProgress {
    fn observed(&mut self, began: Instant, timeline: &Timeline) {
        trace::add_step(began, timeline);
    }

    fn take_warnings(&mut self) -> Vec<String> {
        logs::take_warnings()
    }

    fn started(&mut self, step: u64, total: u64, epochs: u64) {
        (self.first_step, self.step, self.total, self.epochs) = (step, step, total, epochs);
        let now = Instant::now();
        (self.started, self.last_step, self.last_line, self.epoch.began) = (now, now, now, now);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(step);
            bar.set_prefix(format!("epoch {}/{epochs}", (step / self.work.steps_per_epoch + 1).min(epochs)));
            bar.set_message(format!("first batch of {}", self.work.batch_size));
        }
        if step >= total {
            self.say(&format!(
                "nothing to do: the run is at its last step, {step}; ask for more with --epochs or --steps"
            ));
        }
    }

    fn stepped(&mut self, report: &StepReport) {
        (self.step, self.last_step) = (report.step, Instant::now());
        let speed = report.result.images as f64 / report.time.as_secs_f64();
        self.loss.add(report.result.loss());
        self.accuracy.add(1. - report.result.top1_error());
        self.images_per_s.add(speed);
        let images = report.result.images as f64;
        self.epoch.steps += 1;
        self.epoch.images += images;
        self.epoch.loss += images * report.result.loss();
        self.epoch.errors += images * report.result.top1_error();
        let since = report.step - self.first_step;
        if since > WARM_UP {
            self.step_s.add(report.time.as_secs_f64());
        }
        if self.json {
            outln!("{}", json!(report.row()));
        }
        if since == TELL_TIME_AFTER && report.step < self.total {
            self.tell_time(report.step);
        }
        if self.json {
            return;
        }
        let left = self.seconds_left(report.step).map_or(String::new(), |s| format!(", {} left", time_text(s)));
        let state = format!(
            "{:.0} images/s, loss {}, accuracy {:.0}%{left}",
            self.images_per_s.value(),
            loss_text(self.loss.value()),
            100. * self.accuracy.value(),
        );
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_prefix(format!("epoch {}/{}", report.epoch + 1, self.epochs));
            bar.set_message(state);
        } else if self.last_line.elapsed() >= LINE_EVERY || report.step == self.total {
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
        } else if done < total && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            self.say(&format!("held-out images {done}/{total}"));
        }
    }

    fn evaluated(&mut self, report: &EvalReport) {
        let result = &report.result;
        self.evaluation_s = Some(self.last_step.elapsed().as_secs_f64());
        self.held_out_accuracy = Some(1. - result.top1_error());
        if self.json {
            outln!("{}", json!(report.row()));
            return;
        }
        let (top1, top5) = (100. * (1. - result.top1_error()), 100. * (1. - result.top5_error()));
        // Of whole epochs: what a resumed run did before is not known here.
        let epoch = std::mem::replace(&mut self.epoch, EpochSums::new());
        let training = if epoch.steps == self.work.steps_per_epoch {
            format!(
                "; epoch {}: training loss {}, training accuracy {:.1}%, {}",
                report.epoch,
                loss_text(epoch.loss / epoch.images),
                100. * (1. - epoch.errors / epoch.images),
                time_text(epoch.began.elapsed().as_secs_f64()),
            )
        } else {
            String::new()
        };
        let text = format!(
            "step {}: held-out accuracy {top1:.1}%, top-5 {top5:.1}%, loss {} ({}){training}",
            report.step,
            loss_text(result.loss()),
            counted(result.images, "image[s]")
        );
        let shown = self.say_at_times(self.last_result, &text);
        if shown != self.last_result {
            // The step is shown already.
            (self.last_result, self.last_line) = (shown, Instant::now());
        }
        if let (Some(bar), true) = (&self.bar, report.step >= self.total) {
            bar.finish_and_clear();
        }
    }

    fn dropped_rate(&mut self, lr: f32) {
        self.say(&format!("the held-out error has stopped improving: learning rate now {lr}"));
    }

    fn stopped_early(&mut self, epochs: u32) {
        let epochs = counted(epochs as usize, "epoch[s]");
        self.say(&format!("the held-out error has not improved for {epochs}: the run ends"));
    }

    fn left_out(&mut self, step: u64, why: &str) {
        self.say(&format!("step {step} left out: {why}"));
    }

    fn saved(&mut self, path: &Path) {
        self.last_saved = self.say_at_times(self.last_saved, &format!("saved {}", path.display()));
    }
}
