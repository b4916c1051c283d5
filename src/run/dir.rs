//! A run's directory: its settings and results, and a lock while it is in use.
//!
//! | file | holds |
//! |---|---|
//! | `recipe.toml` | every hyper-parameter; a folder that has it is a run |
//! | `run.json` | version, commit, data, instructions, classes, how many checkpoints are kept |
//! | `metrics.jsonl` | a line for each step, evaluation, and record of the streams; cut back when the run is resumed |
//! | `journal.jsonl` | a line for each start, warning, checkpoint and end; never cut |
//! | `log.txt` | what the terminal showed |
//! | `tensorboard/` | the same metrics, and the filters, for TensorBoard |
//! | `filters/` | pictures of the first layer's kernels |
//! | `timeline.json` | what each stream did in one step, the newest that was recorded |
//! | `checkpoints/` | see `checkpoint` |

use super::files;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Recipe;
use crate::data::DataSet;
use crate::data::bitmap::Bitmap;
use crate::disk::{self, Lock, append_line, read_if_there, write_whole};
use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::rows::{Event, Row, unix_s};
use crate::run::tensorboard::EventFile;

/// The most steps that TensorBoard is given.
const SHOWN_STEPS: u64 = 10_000;

/// The start of a run, besides its recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this program.
    pub version: String,
    /// The commit that it was built from.
    #[serde(default)]
    pub commit: Option<String>,
    /// The data folder.
    pub data: PathBuf,
    /// Training images in it; unknown of runs of older versions.
    #[serde(default)]
    pub images: Option<usize>,
    /// Channels, height, width of the images; unknown of runs of older versions.
    #[serde(default)]
    pub image: Option<[usize; 3]>,
    /// The instructions that it was begun with, see [`Backend::instructions`](crate::backend::Backend::instructions);
    /// unknown of runs of older versions.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Class names by label.
    pub classes: Vec<String>,
    /// Checkpoints that are kept, besides the best.
    #[serde(default = "two")]
    pub keep: usize,
}

fn two() -> usize {
    2
}

impl RunInfo {
    /// Whether `data`, from `folder`, can be the run's data; other class names give a warning.
    ///
    /// Fails where it has another number of classes, or a class of the run's by another number.
    pub fn has_classes_of(&self, data: &DataSet, folder: &Path) -> Result<()> {
        let (found, expected) = (data.classes.len(), self.classes.len());
        if found != expected {
            let problem = format!("has {found} classes, the run was trained on {expected}");
            return Err(Error::data(folder, problem));
        }
        let differ = || data.classes.iter().zip(&self.classes).enumerate().filter(|(_, (found, own))| found != own);
        let moved =
            differ().find_map(|(at, (name, _))| Some((name, at, self.classes.iter().position(|own| own == name)?)));
        if let Some((name, found, expected)) = moved {
            let problem = format!(
                "class {name:?} has number {found}, in the run it has {expected}: labels would be wrong; prepare the set \
                 again with --classes and a file of the run's classes in their order (run.json has them)"
            );
            return Err(Error::data(folder, problem));
        }
        if let Some((_, (found, expected))) = differ().next() {
            // ImageNet's are called by their numbers in one form, by words in another.
            tracing::warn!(
                "{}: {found:?} is the class that the run calls {expected:?}, by its number",
                folder.display()
            );
        }
        Ok(())
    }

    /// The same, for training to continue as it began.
    ///
    /// Fails where there are other numbers of classes or of training images, and so other batches.
    pub fn goes_on_with(&self, data: &DataSet, folder: &Path) -> Result<()> {
        self.has_classes_of(data, folder)?;
        match (data.train.len(), self.images) {
            (found, Some(expected)) if found != expected => {
                let problem = format!("has {found} training images, the run was begun with {expected}");
                Err(Error::data(folder, problem))
            }
            _ => Ok(()),
        }
    }
}

/// A run's directory that no other process may train in until this is dropped.
pub struct Claim {
    path: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// Claims an existing directory.
    ///
    /// Fails where another process has.
    pub fn new(path: &Path) -> Result<Claim> {
        let file = path.join(files::LOCK);
        if !path.is_dir() {
            return Err(Error::run(path, "no such run directory"));
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(Error::io("open", &file))?;
        match Lock::wait(lock).map_err(Error::io("lock", &file))? {
            Some(lock) => Ok(Claim { path: path.to_owned(), _lock: lock }),
            None => Err(Error::run(path, "is in use by another run; wait for it or choose another --out")),
        }
    }
}

/// An open run directory; claimed until dropped.
pub struct RunDir {
    path: PathBuf,
    /// `None` where another process keeps the directory.
    files: Option<Files>,
}

struct Files {
    metrics: File,
    journal: File,
    events: EventFile,
    /// TensorBoard is given one step of this many.
    every: u64,
    _claim: Claim,
}

impl RunDir {
    /// Makes a new run directory; `fill` writes the files that must be there before it is a run.
    ///
    /// Fails where it holds a run already or is in use.
    pub fn create(path: &Path, recipe: &Recipe, info: &RunInfo, fill: impl FnOnce() -> Result<()>) -> Result<RunDir> {
        disk::create_folder(&path.join(files::CHECKPOINTS))?;
        let claim = Claim::new(path)?;
        let is_begun = is_run(path) || !checkpoint::list(path)?.is_empty();
        if is_begun && !path.join(files::RECIPE).is_file() {
            return Err(Error::run(path, "holds a run without its recipe.toml; choose another --out"));
        }
        if is_begun {
            let problem =
                format!("already holds a run; continue it with --resume {}, or choose another --out", path.display());
            return Err(Error::run(path, problem));
        }
        store_info(path, info)?;
        fill()?;
        store_recipe(path, recipe)?;
        RunDir::open(claim, None)
    }

    /// Opens an existing one to continue after `step`: later lines of the metrics are dropped, and its evaluation where
    /// that is to be made (again).
    pub fn resume(claim: Claim, step: u64, evaluation_due: bool) -> Result<RunDir> {
        let metrics = claim.path.join(files::METRICS);
        let text = String::from_utf8_lossy(&read_if_there(&metrics)?).into_owned();
        let done = |line: &&str| {
            let Ok(row) = serde_json::from_str::<Value>(line) else { return false };
            let again = evaluation_due && row["kind"] == "eval";
            row["step"].as_u64().is_some_and(|at| at < step || (at == step && !again))
        };
        let kept: String = text.lines().filter(done).flat_map(|line| [line, "\n"]).collect();
        if kept != text {
            write_whole(&metrics, kept.as_bytes())?;
        }
        RunDir::open(claim, Some(step))
    }

    fn open(claim: Claim, resumed_after: Option<u64>) -> Result<RunDir> {
        let path = claim.path.clone();
        let open = |name: &str| {
            let file = path.join(name);
            OpenOptions::new().create(true).append(true).open(&file).map_err(Error::io("open", &file))
        };
        // An incomplete line of a killed process would spoil the next one.
        let journal = path.join(files::JOURNAL);
        let torn = read_if_there(&journal)?.last().is_some_and(|byte| *byte != b'\n');
        let mut events = EventFile::create(&path.join(files::TENSORBOARD), unix_s())?;
        resumed_after.map_or(Ok(()), |step| events.restarted(step))?;
        let files =
            Files { metrics: open(files::METRICS)?, journal: open(files::JOURNAL)?, events, every: 1, _claim: claim };
        let mut run = RunDir { path, files: Some(files) };
        if torn && let Some(files) = &mut run.files {
            append_line(&mut files.journal, &journal, "")?;
        }
        Ok(run)
    }

    /// The run directory that the other process keeps.
    pub fn elsewhere(path: &Path) -> RunDir {
        RunDir { path: path.to_owned(), files: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of a run of `steps` steps TensorBoard is shown 10,000 or fewer: it draws no more, and at 277 bytes per step the
    /// paper's 90 epochs of ImageNet would fill 250 MB.
    pub fn expect_steps(&mut self, steps: u64) {
        if let Some(files) = &mut self.files {
            files.every = steps.div_ceil(SHOWN_STEPS).max(1);
        }
    }

    /// Removes what a run leaves in its directory that has done nothing: its recipe, its journal and its log. Leaves all
    /// where there is a line of metrics, a checkpoint, or anything else.
    pub fn discard_unless_trained(&mut self) {
        let Some(files) = self.files.take() else { return };
        drop(files.events);
        let inner = |folder: &str| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.path.join(folder)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        const FILES: [&str; 6] = [files::RECIPE, files::INFO, files::METRICS, files::JOURNAL, files::LOG, files::LOCK];
        const FOLDERS: [&str; 2] = [files::CHECKPOINTS, files::TENSORBOARD];
        let is_own = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            FILES.iter().chain(&FOLDERS).any(|own| name == *own)
        };
        let is_empty = std::fs::metadata(self.path.join(files::METRICS)).is_ok_and(|about| about.len() == 0);
        let events = inner(files::TENSORBOARD);
        if !is_empty || !inner("").iter().all(is_own) || !inner(files::CHECKPOINTS).is_empty() || events.len() > 1 {
            return;
        }
        // The recipe first, without which it is no run. What cannot be removed stays, and tells what happened.
        let own = FILES.map(|name| self.path.join(name));
        for path in own.iter().chain(&events) {
            let _ = std::fs::remove_file(path);
        }
        for name in FOLDERS {
            let _ = std::fs::remove_dir(self.path.join(name));
        }
    }

    /// Adds a line to the metrics.
    pub fn log(&mut self, row: &Row) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        if !matches!(row, Row::Step(row) if !row.step.is_multiple_of(files.every)) {
            files.events.log(row)?;
        }
        append(&mut files.metrics, &self.path.join(files::METRICS), row)
    }

    /// Adds a line to the journal.
    pub fn journal(&mut self, event: &Event) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.events.flush()?;
        append(&mut files.journal, &self.path.join(files::JOURNAL), event)
    }

    /// Keeps a picture of the first layer's kernels.
    pub fn keep_picture(&mut self, step: u64, picture: &Bitmap) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let path = self.path.join(files::FILTERS).join(format!("step-{step:08}.png"));
        let png = picture.png().map_err(Error::io("write", &path))?;
        files.events.image(step, "filters", &png, picture.width(), picture.height())?;
        files.events.flush()?;
        std::fs::create_dir_all(self.path.join(files::FILTERS))
            .and_then(|()| std::fs::write(&path, png))
            .map_err(Error::io("write", &path))
    }

    /// Gives TensorBoard the distribution of values.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        self.files.as_mut().map_or(Ok(()), |files| files.events.histogram(step, tag, values))
    }

    /// Replaces a small file that is only for viewing, and so need not be durable.
    pub fn show(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if self.files.is_none() {
            return Ok(());
        }
        let (path, temporary) = (self.path.join(name), self.path.join(format!("{name}.tmp")));
        std::fs::write(&temporary, bytes).map_err(Error::io("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(Error::io("rename to", &path))
    }
}

fn append(file: &mut File, path: &Path, row: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(row).map_err(|error| Error::run(path, format!("cannot be written: {error}")))?;
    append_line(file, path, &line)
}

/// Whether a folder holds a run, or parts of one.
pub fn is_run(path: &Path) -> bool {
    [files::RECIPE, files::METRICS, files::JOURNAL].iter().any(|name| path.join(name).is_file())
}

/// The recipe of an existing run.
pub fn load_recipe(run: &Path) -> Result<Recipe> {
    if !run.join(files::RECIPE).is_file() {
        return Err(Error::run(run, "is not a run directory: it has no recipe.toml"));
    }
    let path = run.join(files::RECIPE);
    Recipe::load(&path).map_err(|error| match error {
        Error::Io { .. } => error,
        // Not the key that the user asks for now.
        wrong => Error::run(path, format!("damaged: {wrong}")),
    })
}

/// Writes `run.json`.
pub fn store_info(run: &Path, info: &RunInfo) -> Result<()> {
    let text = serde_json::to_string_pretty(info)
        .map_err(|error| Error::run(run, format!("run.json cannot be written: {error}")))?;
    write_whole(&run.join(files::INFO), text.as_bytes())
}

/// Writes `recipe.toml`, which makes a folder a run.
pub fn store_recipe(run: &Path, recipe: &Recipe) -> Result<()> {
    write_whole(&run.join(files::RECIPE), recipe.to_toml().as_bytes())
}

/// The start of an existing run.
pub fn load_info(run: &Path) -> Result<RunInfo> {
    let path = run.join(files::INFO);
    if !path.exists() {
        return Err(Error::run(path, "is missing"));
    }
    serde_json::from_slice(&read_if_there(&path)?).map_err(|error| Error::run(path, format!("damaged: {error}")))
}
