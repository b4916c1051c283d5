//! The course of training: charts of one run, or of several over each other.

use maud::{Markup, html};

use crate::run::reader::Run;
use crate::run::rows::{Eval, Step};
use crate::text::{duration, utc};
use alexnet_split_charts::axis::{Axis, Scale};
use alexnet_split_charts::chart::{Chart, Mark, Series, Style};
use alexnet_split_charts::smooth::{CLOUD, smoothed, thinned};

/// Values of evaluations: name, class of the colour, and the field.
type OfEval = (&'static str, &'static str, fn(&Eval) -> f64);

/// A quantity that charts show, for one run or for several.
struct Topic {
    /// The head of its charts.
    head: [&'static str; 3],
    scale: Scale,
    step: fn(&Step) -> f64,
    evals: &'static [OfEval],
}

const LOSS: Topic = Topic {
    head: ["loss", "Loss", "cross-entropy, nats"],
    scale: Scale::Plain,
    step: |row| row.loss,
    evals: &[("held-out", "held", |row| row.loss)],
};

const ERROR: Topic = Topic {
    head: ["error", "Error", "share of images"],
    scale: Scale::Percent,
    step: |row| row.top1_error,
    evals: &[("held-out top-1", "held", |row| row.top1_error), ("held-out top-5", "top5", |row| row.top5_error)],
};

const RATE: Topic =
    Topic { head: ["lr", "Learning rate", ""], scale: Scale::Logarithmic, step: |row| row.lr, evals: &[] };

const SPEED: Topic =
    Topic { head: ["speed", "Throughput", "images/s"], scale: Scale::Plain, step: |row| row.images_per_s, evals: &[] };

const WAIT: Topic = Topic {
    head: ["wait", "Waiting for the loader", "ms a step"],
    scale: Scale::Plain,
    step: |row| row.loader_wait_ms,
    evals: &[],
};

/// The charts of one run.
pub fn of_one(run: &Run) -> Markup {
    let (marks, epochs) = (marks(run), epoch_ends(run));
    let figure = |topic: &Topic| {
        let values = step_values(run, topic.step);
        let line = |name, points| Series::new(name, "train", Style::Line, points);
        let cloud = |name| Series::new(name, "train", Style::Points, thinned(&values, CLOUD));
        let mut series = match topic.head[0] {
            "lr" => vec![line("", corners(&values))],
            "error" => vec![line("training top-1, smoothed", smoothed(&values))],
            "loss" => vec![cloud("each step"), line("training, smoothed", smoothed(&values))],
            _ => vec![cloud(""), line("", smoothed(&values))],
        };
        for (name, class, of) in topic.evals {
            series.push(Series::new(name, class, Style::Joined, eval_values(run, *of)));
        }
        chart(topic, series, run.step(), &epochs, &marks).figure()
    };
    html! {
        div.charts.two { @for topic in [LOSS, ERROR] { (figure(&topic)) } }
        div.charts.three { @for topic in [RATE, SPEED, WAIT] { (figure(&topic)) } }
    }
}

/// The charts of several runs, a colour each.
pub fn of_several(runs: &[Run]) -> Markup {
    let last = runs.iter().map(Run::step).max().unwrap_or(0);
    let figure = |head: [&'static str; 3], topic: &Topic, held_out: bool| {
        let series = runs.iter().enumerate().map(|(number, run)| {
            let (style, points) = match topic.evals {
                [(.., of), ..] if held_out => (Style::Joined, eval_values(run, *of)),
                _ if topic.scale == Scale::Logarithmic => (Style::Line, corners(&step_values(run, topic.step))),
                _ => (Style::Line, smoothed(&step_values(run, topic.step))),
            };
            Series::new(&run.name, &run_class(number), style, points)
        });
        let series: Vec<Series> = series.collect();
        Chart { legend: false, ..chart(&Topic { head, ..*topic }, series, last, &[], &[]) }.figure()
    };
    let wide = [
        figure(["loss", "Training loss, smoothed", LOSS.head[2]], &LOSS, false),
        figure(["held-loss", "Held-out loss", LOSS.head[2]], &LOSS, true),
        figure(["error", "Training error, top-1, smoothed", ERROR.head[2]], &ERROR, false),
        figure(["held-error", "Held-out error, top-1", ERROR.head[2]], &ERROR, true),
        figure(RATE.head, &RATE, false),
        figure(["speed", "Throughput", "images/s, smoothed"], &SPEED, false),
    ];
    html! {
        p.key.runs {
            @for (number, run) in runs.iter().enumerate() {
                span {
                    svg viewBox="0 0 24 10" { path class={ "line " (run_class(number)) } d="M1 5H23" {} }
                    (run.name)
                }
            }
        }
        div.charts.two { @for figure in wide { (figure) } }
    }
}

/// Colours of runs that the style sheet has; then they come again, dashed.
const COLOURS: usize = 8;

/// A run's colour and dashes.
pub fn run_class(number: usize) -> String {
    let dashes = match number / COLOURS {
        0 => "",
        round if round % 2 == 1 => " round1",
        _ => " round2",
    };
    format!("run{}{dashes}", number % COLOURS)
}

fn chart<'a>(topic: &Topic, series: Vec<Series>, last: u64, epochs: &'a [(u64, u64)], marks: &'a [Mark]) -> Chart<'a> {
    // A step's value in a hundred may be left outside, an evaluation of many images only where it would flatten all.
    let of = |joined: bool| {
        let series = series.iter().filter(move |series| (series.style == Style::Joined) == joined);
        series.flat_map(|series| series.points.iter().map(|point| point.1)).collect::<Vec<f64>>()
    };
    let (steps, evals) = (of(false), of(true));
    let y = match topic.scale {
        Scale::Percent => Axis::from_zero_with(&steps, &evals).in_percent(),
        Scale::Logarithmic => Axis::logarithmic(steps.into_iter().chain(evals)),
        _ => Axis::from_zero_with(&steps, &evals),
    };
    // Once is enough.
    let explains_marks = topic.head[0] == LOSS.head[0];
    Chart { epochs, marks, explains_marks, ..Chart::new(topic.head, last, y, series) }
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
    let starts: Vec<_> = run.starts().collect();
    let restarts = starts.windows(2).map(|pair| {
        let (step, pause) = (pair[1].step, duration(pair[1].unix_s - pair[0].unix_s));
        let title = format!("step {step}: went on, {} UTC, {pause} after the start before", utc(pair[1].unix_s));
        Mark { step: step as f64, skipped: false, title }
    });
    restarts.chain(skipped).filter(|mark| mark.step <= run.step() as f64).collect()
}
