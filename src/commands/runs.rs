//! `runs`: the runs of a folder, one line each.

use crate::error::{Error, Result};
use crate::run::reader::{self, Run};
use crate::run::rows::Event;
use crate::text::{ago, percent, quoted, short, shortened};
use serde_json::{Value, json};

use crate::cli::RunsArgs;

/// Columns where the output is no terminal.
const WIDTH: usize = 160;

/// The least width of the column with a run's end.
const LEAST_WORDS: usize = 14;

pub fn runs(args: &RunsArgs) -> Result<()> {
    let folder = &args.folder;
    if !folder.is_dir() {
        let problem = "no such folder; give the one that your runs are in, or train one: alexnet-split";
        return Err(Error::run(folder, problem));
    }
    let (runs, errors) = reader::list(folder)?;
    for error in errors {
        errln!("left out: {error}");
    }
    if args.json {
        runs.iter().for_each(|run| outln!("{}", as_json(run)));
        return Ok(());
    }
    if runs.is_empty() {
        outln!("no runs in {}", folder.display());
        return Ok(());
    }
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.into());
    out!("{}", table(&runs, width));
    outln!("Next: alexnet-split report {}", quoted(&runs[runs.len() - 1].path.to_string_lossy()));
    Ok(())
}

/// A value that is not a number is null.
fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

fn as_json(run: &Run) -> Value {
    let eval = run.evals.last();
    json!({
        "name": run.name,
        "path": run.path.display().to_string(),
        "state": run.state.name(),
        "epoch": run.epoch(),
        "epochs": run.epochs(),
        "step": run.step(),
        "total_steps": run.total_steps(),
        "top1_error": finite(eval.map(|eval| eval.top1_error)),
        "held_out_loss": finite(eval.map(|eval| eval.loss)),
        "loss": finite(run.training_loss()),
        "images_per_s": finite(run.images_per_s()),
        "started_unix_s": run.starts().next().map(|start| start.unix_s),
        "ended_unix_s": ended(run),
        "message": run.last_words(),
    })
}

fn ended(run: &Run) -> Option<f64> {
    match run.journal.iter().rev().find(|event| matches!(event, Event::Start(_) | Event::End(_))) {
        Some(Event::End(end)) => Some(end.unix_s),
        _ => None,
    }
}

/// Columns as wide as their longest cell; the last one takes what the terminal has left.
fn table(runs: &[Run], width: usize) -> String {
    const HEADS: [&str; 9] = ["run", "state", "epoch", "step", "error", "loss", "images/s", "started", "how it ended"];
    let number = |value: Option<f64>| finite(value).map_or_else(|| "-".into(), short);
    let of = |done: u64, total: Option<u64>| total.map_or_else(|| done.to_string(), |total| format!("{done}/{total}"));
    let cells = |run: &Run| -> [String; 9] {
        [
            shortened(&run.name.replace(char::is_control, "?"), (width / 4).max(16)),
            run.state.name().into(),
            of(run.epoch(), run.epochs()),
            of(run.step(), run.total_steps()),
            run.evals.last().map_or_else(|| "-".into(), |eval| percent(eval.top1_error)),
            number(run.training_loss()),
            number(run.images_per_s()),
            run.starts().next().map_or_else(|| "-".into(), |start| ago(start.unix_s, run.read_unix_s)),
            run.last_words().split_whitespace().collect::<Vec<_>>().join(" "),
        ]
    };
    let rows: Vec<[String; 9]> = [HEADS.map(str::to_owned)].into_iter().chain(runs.iter().map(cells)).collect();
    let mut columns: Vec<(usize, usize)> =
        (0..8).map(|column| (column, rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))).collect();
    // The columns that a narrow terminal leaves out, least important first; --json has all.
    for least in [6, 7, 2, 5] {
        if columns.iter().map(|(_, wide)| wide + 2).sum::<usize>() + LEAST_WORDS > width {
            columns.retain(|(column, _)| *column != least);
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for &(column, wide) in &columns {
            // Words to the left, numbers to the right.
            let cell = &row[column];
            line += &if matches!(column, 0 | 1 | 7) { format!("{cell:<wide$}  ") } else { format!("{cell:>wide$}  ") };
        }
        let left = width.saturating_sub(line.chars().count()).max(LEAST_WORDS);
        line += &shortened(&row[8], left);
        out += line.trim_end();
        out.push('\n');
    }
    out
}
