//! A run as it stands on disk, read without disturbing it; for `report` and `runs`.

use super::dir::{RunInfo, is_run};
use super::files;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::rows::{Eval, Event, Filters, Row, Skipped, Start, Step, Times};
use crate::disk::read_if_there as read;
use crate::engine::timeline::Timeline;
use crate::error::{Error, Result};

/// Steps that the newest training loss and speed are averaged over, at most.
const NEWEST: usize = 20;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a directory, but nothing was trained.
    NeverStarted,
    /// A process holds its lock.
    Running,
    /// It did all that was asked for.
    Finished,
    /// Somebody stopped it, and it ended in order.
    Interrupted,
    /// The loss was NaN or infinite.
    Diverged,
    /// An error ended it.
    Failed,
    /// It ended without a word: killed, or the machine stopped.
    Killed,
}

impl State {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            State::NeverStarted => "never started",
            State::Running => "running",
            State::Finished => "finished",
            State::Interrupted => "interrupted",
            State::Diverged => "diverged",
            State::Failed => "failed",
            State::Killed => "killed",
        }
    }
}

/// A run's files.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its directory.
    pub path: PathBuf,
    /// The directory's name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// `recipe.toml`; empty where there is none.
    pub recipe: String,
    /// `run.json`; empty where there is none or it is damaged.
    pub info: RunInfo,
    /// Training steps, by step.
    pub steps: Vec<Step>,
    /// Evaluations of the held-out images, by step.
    pub evals: Vec<Eval>,
    /// The streams' times.
    pub times: Vec<Times>,
    /// The first layer's kernels in numbers.
    pub filters: Vec<Filters>,
    /// Updates that were not made, or were taken back.
    pub skipped: Vec<Skipped>,
    /// `journal.jsonl`; empty for runs of older versions.
    pub journal: Vec<Event>,
    /// The newest sampled step.
    pub timeline: Option<Timeline>,
    /// Pictures of the first layer's kernels, oldest first.
    pub snapshots: Vec<PathBuf>,
    /// The time at which these files were read, in seconds since 1970.
    pub read_unix_s: f64,
    /// The time at which the metrics were last written, in seconds since 1970.
    pub written_unix_s: Option<f64>,
}

impl Run {
    /// Reads a run's directory. The lock is tested, never held; lines that are incomplete or unknown are skipped.
    ///
    /// Fails where `path` is no run, or a file of it is there and cannot be read.
    pub fn read(path: &Path) -> Result<Run> {
        if !path.is_dir() {
            return Err(Error::run(path, "no such run directory; `alexnet-split runs` lists the runs in runs/"));
        }
        if !is_run(path) {
            return Err(Error::run(path, "is not a run directory: it has neither recipe.toml nor metrics.jsonl"));
        }
        let locked = is_locked(path);
        let name = std::path::absolute(path).ok().and_then(|path| path.file_name().map(|name| name.to_owned()));
        let mut run = Run {
            path: path.to_owned(),
            name: name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
            state: State::NeverStarted,
            recipe: String::from_utf8_lossy(&read(&path.join(files::RECIPE))?).into_owned(),
            info: serde_json::from_slice(&read(&path.join(files::INFO))?).unwrap_or_default(),
            steps: Vec::new(),
            evals: Vec::new(),
            times: Vec::new(),
            filters: Vec::new(),
            skipped: Vec::new(),
            journal: rows(&read(&path.join(files::JOURNAL))?),
            timeline: serde_json::from_slice(&read(&path.join(files::TIMELINE))?).ok(),
            snapshots: snapshots(path),
            read_unix_s: unix_s(SystemTime::now()),
            written_unix_s: path.join(files::METRICS).metadata().and_then(|data| data.modified()).ok().map(unix_s),
        };
        for row in rows(&read(&path.join(files::METRICS))?) {
            match row {
                Row::Step(row) => put(&mut run.steps, row, |row| row.step),
                Row::Eval(row) => put(&mut run.evals, row, |row| row.step),
                Row::Times(row) => put(&mut run.times, row, |row| row.step),
                Row::Filters(row) => put(&mut run.filters, row, |row| row.step),
                Row::Skipped(row) => {
                    // What was learned in them is undone.
                    let undone = row.step.saturating_sub(row.steps)..row.step;
                    run.steps.retain(|step| !undone.contains(&step.step.saturating_sub(1)));
                    put(&mut run.skipped, row, |row| row.step);
                }
                Row::Other => {}
            }
        }
        run.state = run.state_now(locked);
        Ok(run)
    }

    fn state_now(&self, locked: bool) -> State {
        if locked {
            return State::Running;
        }
        let newest = self.journal.iter().rev().find(|event| matches!(event, Event::Start(_) | Event::End(_)));
        match newest {
            Some(Event::End(end)) => match end.how.as_str() {
                "finished" => State::Finished,
                "interrupted" => State::Interrupted,
                "diverged" => State::Diverged,
                _ => State::Failed,
            },
            Some(_) => State::Killed,
            None if self.steps.is_empty() && self.evals.is_empty() => State::NeverStarted,
            // Older versions kept no journal; the last thing that they did was an evaluation.
            None if self.evals.last().map_or(0, |row| row.step) >= self.step() => State::Finished,
            None => State::Killed,
        }
    }

    /// Whether its journal tells of a checkpoint.
    pub fn has_saved(&self) -> bool {
        self.journal.iter().any(|event| matches!(event, Event::Checkpoint { .. }))
    }

    /// The number of streams of the network; 2 where no file says it.
    pub fn streams(&self) -> usize {
        let times = self.times.last().map(|row| row.streams.len());
        times.or(self.timeline.as_ref().map(|timeline| timeline.streams.len())).unwrap_or(2)
    }

    /// Updates that were left out or taken back, in all.
    pub fn skipped_updates(&self) -> u64 {
        // Where a run goes back to a checkpoint twice, the second time leaves out those of the first again.
        let mut spans: Vec<(u64, u64)> =
            self.skipped.iter().map(|row| (row.step.saturating_sub(row.steps), row.step)).collect();
        spans.sort_unstable();
        let mut reached = 0;
        spans.into_iter().fold(0, |count, (from, to)| {
            let new = to.saturating_sub(from.max(reached));
            reached = reached.max(to);
            count + new
        })
    }

    /// Training steps done, as far as the files tell.
    pub fn step(&self) -> u64 {
        // A run that continues from a checkpoint has done its steps before the first line of its metrics.
        let begun = self.starts().last().map(|start| start.step);
        let skipped = self.skipped.last().map(|row| row.step);
        let rows = [self.steps.last().map(|row| row.step), self.evals.last().map(|row| row.step), skipped, begun];
        rows.into_iter().flatten().max().unwrap_or(0)
    }

    /// Steps that it is to make in all.
    pub fn total_steps(&self) -> Option<u64> {
        let told = self.starts().last().and_then(|start| start.total_steps);
        told.or_else(|| (self.state == State::Finished).then(|| self.step())).filter(|&total| total > 0)
    }

    /// Epochs done or begun.
    pub fn epoch(&self) -> u64 {
        let begun = self.steps.last().map_or(0, |row| row.epoch.saturating_add(1));
        begun.max(self.evals.last().map_or(0, |row| row.epoch))
    }

    /// Epochs that it is to make in all.
    pub fn epochs(&self) -> Option<u64> {
        let told = self.starts().last().and_then(|start| start.epochs);
        told.or_else(|| self.recipe_value("train", "epochs")?.try_into().ok())
    }

    fn recipe_value(&self, table: &str, key: &str) -> Option<i64> {
        self.recipe.parse::<toml::Table>().ok()?.get(table)?.get(key)?.as_integer()
    }

    /// Steps at which an epoch ended, and how many epochs had then been made.
    pub fn epoch_ends(&self) -> Vec<(u64, u64)> {
        let changes = self.steps.windows(2).filter(|pair| pair[0].epoch != pair[1].epoch);
        changes.map(|pair| (pair[0].step, pair[1].epoch)).collect()
    }

    /// Each start and resumption.
    pub fn starts(&self) -> impl DoubleEndedIterator<Item = &Start> {
        self.journal.iter().filter_map(|event| match event {
            Event::Start(start) => Some(&**start),
            _ => None,
        })
    }

    /// Its warnings.
    pub fn warnings(&self) -> impl Iterator<Item = (f64, &str)> {
        self.journal.iter().filter_map(|event| match event {
            Event::Warning { unix_s, text } => Some((*unix_s, text.as_str())),
            _ => None,
        })
    }

    /// The message that the run ended with last; empty where there is none, and while it runs.
    pub fn last_words(&self) -> &str {
        match self.journal.iter().rev().find(|event| matches!(event, Event::Start(_) | Event::End(_))) {
            Some(Event::End(end)) if self.state != State::Running => &end.message,
            _ => "",
        }
    }

    /// Mean training loss of the newest steps.
    pub fn training_loss(&self) -> Option<f64> {
        self.newest(|row| row.loss)
    }

    /// Mean training speed of the newest steps.
    pub fn images_per_s(&self) -> Option<f64> {
        self.newest(|row| row.images_per_s)
    }

    fn newest(&self, of: impl Fn(&Step) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.steps.iter().rev().take(NEWEST).map(of).filter(|v| v.is_finite()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Seconds that it trained, all its parts together; from the journal, or without one from the speed of each step.
    pub fn took_s(&self) -> Option<f64> {
        let mut total = None;
        let mut open: Option<f64> = None;
        // A part that was killed lasted at least until its last line.
        let mut alive = f64::NEG_INFINITY;
        let mut close = |open: &mut Option<f64>, until: f64| {
            if let Some(start) = open.take() {
                total = Some(total.unwrap_or(0.) + (until - start).max(0.));
            }
        };
        for event in &self.journal {
            match event {
                Event::Start(start) => {
                    close(&mut open, alive);
                    open = Some(start.unix_s);
                    alive = start.unix_s;
                }
                Event::End(end) => close(&mut open, end.unix_s),
                Event::Warning { unix_s, .. } | Event::Checkpoint { unix_s, .. } => alive = alive.max(*unix_s),
                Event::Other => {}
            }
        }
        let until = if self.state == State::Running { Some(self.read_unix_s) } else { self.written_unix_s };
        close(&mut open, until.unwrap_or(alive));
        total.or_else(|| {
            let images = self.recipe_value("train", "batch_size")? as f64;
            let seconds: f64 = self.steps.iter().map(|row| images / row.images_per_s).filter(|v| v.is_finite()).sum();
            (seconds > 0.).then_some(seconds)
        })
    }

    /// A number of 0 to 1, where it is known how many steps there are to be.
    pub fn progress(&self) -> Option<f64> {
        self.total_steps().map(|total| (self.step() as f64 / total as f64).min(1.))
    }
}

/// All runs in a folder, those started first at the front; with the errors of those that cannot be read.
///
/// Fails where the folder cannot be listed.
pub fn list(folder: &Path) -> Result<(Vec<Run>, Vec<Error>)> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_run(path)).collect();
    paths.sort();
    let (mut runs, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match Run::read(&path) {
            Ok(run) => runs.push(run),
            Err(error) => errors.push(error),
        }
    }
    let started = |run: &Run| run.starts().next().map_or(f64::NEG_INFINITY, |start| start.unix_s);
    runs.sort_by(|a, b| started(a).total_cmp(&started(b)));
    Ok((runs, errors))
}

/// Names that tell runs apart: with as much of their paths as it takes.
pub fn tell_apart(runs: &mut [Run]) {
    let paths: Vec<Vec<String>> = runs
        .iter()
        .map(|run| std::path::absolute(&run.path).unwrap_or_else(|_| run.path.clone()))
        .map(|path| path.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    for number in 0..runs.len() {
        let same = |parts: usize| {
            let own = paths[number].iter().take(parts);
            paths.iter().filter(|path| path.iter().take(parts).eq(own.clone())).count()
        };
        // A run that is named twice stays what it is.
        let equal = paths.iter().filter(|path| **path == paths[number]).count();
        let parts = (1..paths[number].len()).find(|&parts| same(parts) <= equal).unwrap_or(1);
        if parts > 1 {
            let named: Vec<&str> = paths[number].iter().take(parts).rev().map(String::as_str).collect();
            runs[number].name = named.join("/");
        }
    }
}

/// Whether a process trains the run: tried with a shared lock that is given back at once.
fn is_locked(path: &Path) -> bool {
    File::open(path.join(files::LOCK)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The lines that are whole.
fn rows<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Vec<T> {
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Adds a row; earlier ones of the same or a later step belong to a part of the run that was done again.
fn put<T>(rows: &mut Vec<T>, row: T, step: impl Fn(&T) -> u64) {
    while rows.last().is_some_and(|last| step(last) >= step(&row)) {
        rows.pop();
    }
    rows.push(row);
}

/// Pictures in `filters/`, by step.
fn snapshots(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join(files::FILTERS)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| step_of(path).is_some()).collect();
    found.sort_by_key(|path| step_of(path));
    found
}

/// The step in a picture's name, `step-00000050.png`.
pub fn step_of(picture: &Path) -> Option<u64> {
    picture.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok()
}

fn unix_s(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0., |time| time.as_secs_f64())
}
