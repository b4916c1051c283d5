//! The course of training: charts of one run, or of several over each other.

use super::axis::Axis;
use super::chart::{Chart, Mark, Series, Style};
use super::html::escape;
use super::smooth::{CLOUD, smoothed, thinned};
use crate::run::reader::Run;
use crate::run::rows::{Eval, Step};
use crate::text::{duration, utc};

/// What charts show: an id, a title, a unit, which axis, and the values of steps and of evaluations.
struct Topic {
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    axis: Scale,
    step: Option<fn(&Step) -> f64>,
    evals: &'static [OfEval],
}

/// Values of evaluations: name, colour's class, and which.
type OfEval = (&'static str, &'static str, fn(&Eval) -> f64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    FromZero,
    Percent,
    Logarithmic,
}

const LOSS: Topic = Topic {
    id: "loss",
    title: "Loss",
    unit: "cross-entropy, nats",
    axis: Scale::FromZero,
    step: Some(|row| row.loss),
    evals: &[("held-out", "held", |row| row.loss)],
};

const ERROR: Topic = Topic {
    id: "error",
    title: "Error",
    unit: "share of images",
    axis: Scale::Percent,
    step: Some(|row| row.top1_error),
    evals: &[("held-out top-1", "held", |row| row.top1_error), ("held-out top-5", "top5", |row| row.top5_error)],
};

const RATE: Topic = Topic {
    id: "lr",
    title: "Learning rate",
    unit: "",
    axis: Scale::Logarithmic,
    step: Some(|row| row.lr),
    evals: &[],
};

const SPEED: Topic = Topic {
    id: "speed",
    title: "Throughput",
    unit: "images/s",
    axis: Scale::FromZero,
    step: Some(|row| row.images_per_s),
    evals: &[],
};

const WAIT: Topic = Topic {
    id: "wait",
    title: "Waiting for the loader",
    unit: "ms a step",
    axis: Scale::FromZero,
    step: Some(|row| row.loader_wait_ms),
    evals: &[],
};

/// The charts of one run.
pub fn of_one(run: &Run) -> String {
    let (marks, epochs) = (marks(run), epoch_ends(run));
    let figure = |topic: &Topic| {
        let mut series = Vec::new();
        if let Some(of) = topic.step {
            let values = step_values(run, of);
            if topic.axis == Scale::Logarithmic {
                series.push(Series::new("", "train", Style::Line, corners(&values)));
            } else if topic.id == ERROR.id {
                series.push(Series::new("training top-1, smoothed", "train", Style::Line, smoothed(&values)));
            } else {
                let names = if topic.id == LOSS.id { ["each step", "training, smoothed"] } else { ["", ""] };
                series.push(Series::new(names[0], "train", Style::Points, thinned(&values, CLOUD)));
                series.push(Series::new(names[1], "train", Style::Line, smoothed(&values)));
            }
        }
        for (name, class, of) in topic.evals {
            series.push(Series::new(name, class, Style::Joined, eval_values(run, *of)));
        }
        chart(topic, series, run.step(), &epochs, &marks).figure()
    };
    let wide: String = [LOSS, ERROR].iter().map(figure).collect();
    let small: String = [RATE, SPEED, WAIT].iter().map(figure).collect();
    format!("<div class=\"charts two\">{wide}</div><div class=\"charts three\">{small}</div>")
}

/// The charts of several runs, a colour each.
pub fn of_several(runs: &[Run]) -> String {
    let last = runs.iter().map(Run::step).max().unwrap_or(0);
    let figure = |id: &'static str, title: &'static str, topic: &Topic, held_out: bool| {
        let series = runs.iter().enumerate().map(|(number, run)| {
            let class = run_class(number);
            let (style, points) = match (held_out, topic.step) {
                (true, _) => (Style::Joined, topic.evals.first().map(|(.., of)| eval_values(run, *of))),
                (_, Some(of)) if topic.axis == Scale::Logarithmic => {
                    (Style::Line, Some(corners(&step_values(run, of))))
                }
                (_, of) => (Style::Line, of.map(|of| smoothed(&step_values(run, of)))),
            };
            Series::new(&run.name, &class, style, points.unwrap_or_default())
        });
        let series: Vec<Series> = series.collect();
        Chart { legend: false, ..chart(&Topic { id, title, ..*topic }, series, last, &[], &[]) }.figure()
    };
    let wide = [
        figure("loss", "Training loss, smoothed", &LOSS, false),
        figure("held-loss", "Held-out loss", &LOSS, true),
        figure("error", "Training error, top-1, smoothed", &ERROR, false),
        figure("held-error", "Held-out error, top-1", &ERROR, true),
        figure("lr", "Learning rate", &RATE, false),
        figure("speed", "Throughput", &Topic { unit: "images/s, smoothed", ..SPEED }, false),
    ];
    let key = |(number, run): (usize, &Run)| {
        let sample = "<svg viewBox=\"0 0 24 10\"><path class=\"line";
        format!("<span>{sample} {}\" d=\"M1 5H23\"/></svg>{}</span>", run_class(number), escape(&run.name))
    };
    let keys: String = runs.iter().enumerate().map(key).collect();
    format!("<p class=\"key runs\">{keys}</p><div class=\"charts two\">{}</div>", wide.concat())
}

/// Colours of runs that the style sheet has; then they come again, dashed.
const COLOURS: usize = 8;

/// A run's colour and dashes.
pub fn run_class(number: usize) -> String {
    let round = number / COLOURS;
    format!(
        "run{}{}",
        number % COLOURS,
        if round > 0 { format!(" round{}", (round - 1) % 2 + 1) } else { String::new() }
    )
}

fn chart<'a>(topic: &Topic, series: Vec<Series>, last: u64, epochs: &'a [(u64, u64)], marks: &'a [Mark]) -> Chart<'a> {
    // A step's value in a hundred may be left outside, an evaluation of many images only where it would flatten all.
    let of = |joined: bool| {
        let series = series.iter().filter(move |series| (series.style == Style::Joined) == joined);
        series.flat_map(|series| series.points.iter().map(|point| point.1)).collect::<Vec<f64>>()
    };
    let (steps, evals) = (of(false), of(true));
    let y = match topic.axis {
        Scale::FromZero => Axis::from_zero_with(&steps, &evals),
        Scale::Percent => Axis::from_zero_with(&steps, &evals).in_percent(),
        Scale::Logarithmic => Axis::logarithmic(steps.into_iter().chain(evals)),
    };
    let x = Axis::exact(0., last.max(1) as f64);
    let (id, title, unit) = (topic.id, topic.title, topic.unit);
    // Once is enough.
    let explains_marks = id == LOSS.id;
    Chart { id, title, unit, x, y, series, epochs, marks, explains_marks, legend: true }
}

fn step_values(run: &Run, of: fn(&Step) -> f64) -> Vec<(f64, f64)> {
    run.steps.iter().map(|row| (row.step as f64, of(row))).filter(|point| point.1.is_finite()).collect()
}

fn eval_values(run: &Run, of: fn(&Eval) -> f64) -> Vec<(f64, f64)> {
    run.evals.iter().map(|row| (row.step as f64, of(row))).collect()
}

/// A line of constant pieces by the points around its changes.
fn corners(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let last = points.len().saturating_sub(1);
    let matters = |&i: &usize| i == 0 || i == last || points[i - 1].1 != points[i].1 || points[i + 1].1 != points[i].1;
    let kept: Vec<_> = (0..points.len()).filter(matters).map(|i| points[i]).collect();
    // A rate that changes at every step is a smooth curve.
    thinned(&kept, 2 * CLOUD)
}

/// Ends of epochs; the newest one by its evaluation, as no step of another epoch has come yet.
fn epoch_ends(run: &Run) -> Vec<(u64, u64)> {
    let mut ends = run.epoch_ends();
    let (first, newest, eval) = (ends.first().copied(), ends.last().copied(), run.evals.last());
    if let (Some((step, epoch)), Some((_, newest)), Some(eval)) = (first, newest, eval) {
        // A run cut short by --steps is evaluated within an epoch.
        if eval.epoch > newest && eval.step * epoch == eval.epoch * step {
            ends.push((eval.step, eval.epoch));
        }
    }
    ends
}

/// Updates that were skipped, and where the run went on after a stop.
fn marks(run: &Run) -> Vec<Mark> {
    let skipped = run.skipped.iter().map(|row| {
        let what = if row.steps > 1 { format!("{} updates skipped", row.steps) } else { "update skipped".into() };
        let title = format!("step {}: {what}, {}", row.step, if row.why.is_empty() { "loss" } else { &row.why });
        Mark { step: row.step as f64, skipped: true, title }
    });
    let mut before: Option<f64> = None;
    let restarts = run.starts().filter_map(|start| {
        let pause = before.map(|before| start.unix_s - before);
        before = Some(start.unix_s);
        let title = format!(
            "step {}: went on, {} UTC, {} after the start before",
            start.step,
            utc(start.unix_s),
            duration(pause.unwrap_or(0.))
        );
        pause.map(|_| Mark { step: start.step as f64, skipped: false, title })
    });
    restarts.chain(skipped).filter(|mark| mark.step <= run.step() as f64).collect()
}
