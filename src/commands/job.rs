//! The job of a training process: the run, the step that it begins at, and its directory, which no other process may
//! train in from then on.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::backend::Precision;
use crate::config::Recipe;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::net::plan::Plan;
use crate::net::spec::Net;
use crate::run::checkpoint;
use crate::run::dir::{self, Claim, RunDir, RunInfo};
use crate::run::reader::Run;
use serde::{Deserialize, Serialize};

use super::device_flags;
use crate::cli::TrainArgs;

/// Checkpoints that are kept, besides the best.
const DEFAULT_KEEP: usize = 2;

/// The job: the same in every process of a run.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub recipe: Recipe,
    pub data: PathBuf,
    /// The run's directory.
    pub run: PathBuf,
    pub start: Start,
    pub steps: Option<u64>,
    pub histograms: bool,
}

/// The start of a run.
#[derive(Serialize, Deserialize)]
pub enum Start {
    /// It is a new one.
    New,
    /// It was begun, but has no checkpoint.
    Over,
    /// From a checkpoint, after so many steps, perhaps before their evaluation.
    Checkpoint { path: PathBuf, step: u64, evaluation_due: bool },
}

impl Start {
    /// Steps done before.
    pub fn step(&self) -> u64 {
        if let Start::Checkpoint { step, .. } = self { *step } else { 0 }
    }
}

/// The claim that keeps other processes out of a run's directory until it is opened.
pub enum Hold {
    /// A new one's folder.
    Folder(Option<NewFolder>),
    /// The claim on one that was begun.
    Claim(Claim),
}

/// A folder that this process makes, and perhaps the one that it is in; removed again if they stay empty.
pub struct NewFolder {
    pub path: PathBuf,
    parent: Option<PathBuf>,
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Fails where there is anything in it.
        let gone = std::fs::remove_dir(&self.path);
        if let (Ok(()), Some(parent)) = (gone, &self.parent) {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// The job that the flags ask for, in a directory that this process has locked.
pub fn job(args: &TrainArgs) -> Result<(Job, Hold)> {
    let begun = args.out.as_deref().filter(|run| args.continues && dir::is_run(run));
    let resumed = args.resume.as_deref().or(begun);
    let (mut recipe, data) = match &args.resume {
        None => {
            let mut recipe = super::recipe(&args.recipe, "quick")?;
            if let Some(lr) = args.lr {
                recipe = recipe.with(&format!("optimizer.lr={lr:?}"))?;
            }
            (recipe, super::data_folder(&args.data)?)
        }
        Some(path) if checkpoint::is_checkpoint(path) => {
            let run = checkpoint::run_of(path);
            return Err(Error::run(path, format!("is a checkpoint; continue its run with --resume {}", run.display())));
        }
        Some(run) => {
            let recipe = dir::load_recipe(run)?;
            same_precision(&recipe, args, "the run")?;
            (recipe, args.data.data.clone().map_or_else(|| dir::load_info(run).map(|info| info.data), Ok)?)
        }
    };
    // The same command again does not undo settings that were changed since.
    let before = begun.map(dir::load_recipe).transpose()?;
    let before = before.as_ref().unwrap_or(&recipe);
    let (epochs, on_bad_loss, precision) = (before.train.epochs, before.train.on_bad_loss, before.train.precision);
    recipe.train.epochs = args.epochs.unwrap_or(epochs);
    recipe.train.on_bad_loss = args.on_nan.unwrap_or(on_bad_loss);
    recipe.train.precision = device_flags::asked(&args.device).or(recipe.train.precision).or(precision);
    let (run, start, hold) = match (resumed, &args.out) {
        (Some(run), _) => {
            // Before the checkpoints are read: a process that trains there changes them.
            let claim = Claim::new(run)?;
            (run.to_owned(), begun_at(run)?, Hold::Claim(claim))
        }
        (None, Some(run)) => {
            let made = (!run.exists()).then(|| NewFolder { path: run.clone(), parent: None });
            (run.clone(), Start::New, Hold::Folder(made))
        }
        (None, None) => {
            let folder = next_run(&recipe.name)?;
            (folder.path.clone(), Start::New, Hold::Folder(Some(folder)))
        }
    };
    Ok((Job { recipe, data, run, start, steps: args.steps, histograms: args.histograms }, hold))
}

/// The point at which an existing run continues.
fn begun_at(run: &Path) -> Result<Start> {
    if !checkpoint::list(run)?.is_empty() {
        let (path, state) = checkpoint::find(run)?;
        return Ok(Start::Checkpoint { path, step: state.step, evaluation_due: state.evaluation_due });
    }
    // Damaged checkpoints are no reason to lose all that was trained: that is for the run's owner to decide.
    match checkpoint::left_over(run)? {
        Some(path) => {
            let problem =
                format!("has only damaged checkpoints: {}; start a new run with another --out", path.display());
            Err(Error::run(run, problem))
        }
        None if Run::read(run)?.has_saved() => {
            let problem = "its checkpoints are missing, but its journal lists some; restore them, or start a \
                           new run with another --out";
            Err(Error::run(run, problem))
        }
        None => Ok(Start::Over),
    }
}

impl Job {
    /// Opens the run's directory; returns it, how many checkpoints are kept in it besides the best, and its folder, if
    /// this process has made it.
    pub fn open(
        &self,
        hold: Option<Hold>,
        recipe: &Recipe,
        data: &DataSet,
        keep: Option<NonZeroUsize>,
        instructions: String,
    ) -> Result<(RunDir, usize, Option<NewFolder>)> {
        match hold {
            None => Ok((RunDir::elsewhere(&self.run), DEFAULT_KEEP, None)),
            Some(Hold::Folder(made)) => {
                Net::from_options(&recipe.net).and_then(|net| Plan::all(&net))?;
                let info = RunInfo {
                    version: env!("CARGO_PKG_VERSION").into(),
                    commit: commit(),
                    data: lasting_path(&self.data)?,
                    images: Some(data.train.len()),
                    image: Some([data.train.channels, data.train.height, data.train.width]),
                    instructions: Some(instructions),
                    classes: data.classes.clone(),
                    keep: keep.map_or(DEFAULT_KEEP, NonZeroUsize::get),
                };
                Ok((RunDir::create(&self.run, recipe, &info, || Ok(()))?, info.keep, made))
            }
            Some(Hold::Claim(claim)) => {
                let info = dir::load_info(&self.run)?;
                same_recipe(&self.run, recipe)?;
                if let Some(before) = info.instructions.as_ref().filter(|before| **before != instructions) {
                    tracing::warn!(
                        "{}: the run began with {before} instructions and continues with {instructions}: sums are \
                         rounded in another order, so the last bits will not be those of a run that never stopped",
                        self.run.display()
                    );
                }
                // A changed setting is kept.
                let keep = keep.map_or(info.keep, NonZeroUsize::get);
                if keep != info.keep {
                    dir::store_info(&self.run, &RunInfo { keep, ..info })?;
                }
                let evaluation_due = matches!(self.start, Start::Checkpoint { evaluation_due: true, .. });
                let run = RunDir::resume(claim, self.start.step(), evaluation_due)?;
                checkpoint::set_aside_after(&self.run, self.start.step())?;
                Ok((run, keep, None))
            }
        }
    }
}

/// Fails where `--precision` differs from the precision of `whose` recipe.
pub fn same_precision(recipe: &Recipe, args: &TrainArgs, whose: &str) -> Result<()> {
    match (recipe.train.precision, device_flags::asked(&args.device)) {
        (Some(before), Some(asked)) if before != asked => {
            let problem = format!("{whose} computes in {}; omit the flag, or start a new run", name(before));
            Err(Error::recipe("--precision", problem))
        }
        _ => Ok(()),
    }
}

fn name(precision: Precision) -> String {
    format!("{precision:?}").to_lowercase()
}

/// Fails where the run in `path` is of another recipe than the one asked for; saves the values that may change between
/// starts.
fn same_recipe(path: &Path, recipe: &Recipe) -> Result<()> {
    let before = dir::load_recipe(path)?;
    let mut stored = before.clone();
    stored.train.epochs = recipe.train.epochs;
    stored.train.on_bad_loss = recipe.train.on_bad_loss;
    // Runs of older versions do not record it.
    stored.train.precision = stored.train.precision.or(recipe.train.precision);
    if stored != *recipe {
        let other = stored.differences(recipe);
        let problem = format!(
            "holds a run of another recipe ({}); give the flags that it was started with, or choose another --out",
            other.join(", ")
        );
        return Err(Error::run(path, problem));
    }
    if stored == before { Ok(()) } else { dir::store_recipe(path, recipe) }
}

/// The commit that this program was built from.
pub fn commit() -> Option<String> {
    option_env!("ALEXNET_SPLIT_COMMIT").map(str::to_owned)
}

/// The data folder as it can be found from other folders, as far as `run.json` can say it.
fn lasting_path(data: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(data).map_err(Error::io("find", data))?;
    let told = [absolute, data.to_owned()].into_iter().find(|path| path.to_str().is_some());
    told.ok_or_else(|| {
        Error::data(data, "its name is not UTF-8, which run.json needs; make a link to it with another name")
    })
}

/// Makes the first `runs/<recipe>-<n>` that is not there yet.
pub fn next_run(recipe: &str) -> Result<NewFolder> {
    let runs = Path::new("runs");
    let parent = (!runs.exists()).then(|| runs.to_owned());
    std::fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
    for path in (1..100_000).map(|n| runs.join(format!("{recipe}-{n}"))) {
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(NewFolder { path, parent }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
    Err(Error::run(runs, "holds too many runs; give --out"))
}
