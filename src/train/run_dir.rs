//! A run's directory: `recipe.toml`, `run.json`, `metrics.jsonl`, `checkpoints/`, and a lock while it is in use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// What a run was started with, besides its recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this program.
    pub version: String,
    /// The data folder.
    pub data: PathBuf,
    /// Class names by label.
    pub classes: Vec<String>,
}

/// An open run directory; locked until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The metrics and the lock; `None` where another process keeps the directory.
    files: Option<[File; 2]>,
}

impl RunDir {
    /// Makes a new run directory.
    ///
    /// Fails where it holds a run already or is in use.
    pub fn create(path: &Path, recipe: &Recipe, info: &RunInfo) -> Result<RunDir> {
        std::fs::create_dir_all(path.join("checkpoints")).map_err(Error::io("create", path))?;
        let lock = lock(path)?;
        if path.join("recipe.toml").exists() {
            let problem =
                format!("already holds a run; continue it with --resume {}, or choose another --out", path.display());
            return Err(Error::run(path, problem));
        }
        write_whole(&path.join("run.json"), serde_json::to_string_pretty(info).unwrap_or_default().as_bytes())?;
        write_whole(&path.join("recipe.toml"), recipe.to_toml().as_bytes())?;
        RunDir::open_metrics(path, lock)
    }

    /// Opens an existing one to go on after `step`: later lines of the metrics are dropped.
    pub fn resume(path: &Path, step: u64) -> Result<RunDir> {
        let lock = lock(path)?;
        let metrics = path.join("metrics.jsonl");
        let text = if metrics.exists() {
            std::fs::read_to_string(&metrics).map_err(Error::io("read", &metrics))?
        } else {
            String::new()
        };
        let done = |line: &&str| {
            serde_json::from_str::<serde_json::Value>(line)
                .is_ok_and(|row| row["step"].as_u64().is_some_and(|at| at <= step))
        };
        let kept: String = text.lines().filter(done).flat_map(|line| [line, "\n"]).collect();
        if kept != text {
            write_whole(&metrics, kept.as_bytes())?;
        }
        RunDir::open_metrics(path, lock)
    }

    fn open_metrics(path: &Path, lock: File) -> Result<RunDir> {
        let file = path.join("metrics.jsonl");
        let metrics = OpenOptions::new().create(true).append(true).open(&file).map_err(Error::io("open", &file))?;
        Ok(RunDir { path: path.to_owned(), files: Some([metrics, lock]) })
    }

    /// The run directory that the other process keeps.
    pub fn elsewhere(path: &Path) -> RunDir {
        RunDir { path: path.to_owned(), files: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the metrics.
    pub fn log(&mut self, row: &serde_json::Value) -> Result<()> {
        let Some([metrics, _lock]) = &mut self.files else { return Ok(()) };
        writeln!(metrics, "{row}").map_err(Error::io("write", &self.path.join("metrics.jsonl")))
    }
}

/// The recipe of an existing run.
pub fn load_recipe(run: &Path) -> Result<Recipe> {
    let path = run.join("recipe.toml");
    if !path.is_file() {
        return Err(Error::run(run, "is not a run directory: it has no recipe.toml"));
    }
    Recipe::load(&path)
}

/// What an existing run was started with.
pub fn load_info(run: &Path) -> Result<RunInfo> {
    let path = run.join("run.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text).map_err(|error| Error::run(path, format!("damaged: {error}")))
}

fn lock(path: &Path) -> Result<File> {
    let file = path.join("lock");
    if !path.is_dir() {
        return Err(Error::run(path, "no such run directory"));
    }
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).open(&file).map_err(Error::io("open", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Error::run(path, "is in use by another run; wait for it or choose another --out"))
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &file)(error)),
    }
}

/// Writes a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
    file.write_all(bytes).map_err(Error::io("write", &temporary))?;
    file.sync_all().map_err(Error::io("flush", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io("rename to", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes renames in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Only Unix lets a folder be opened and flushed.
    if cfg!(unix) {
        let folder_file = File::open(folder).map_err(Error::io("open", folder))?;
        folder_file.sync_all().map_err(Error::io("flush", folder))?;
    }
    Ok(())
}
