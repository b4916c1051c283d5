//! Checkpoints. Each is a folder `step-00000219` with one safetensors file for each stream and, written last,
//! `checkpoint.json`, which has the other files' hashes and its own. It is built as `step-00000219.unfinished`, flushed
//! and renamed, so that a checkpoint is whole or not there; older ones are removed afterwards, their
//! `checkpoint.json` first.

mod load;
mod retain;
mod save;

use crate::run::files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use load::{load, open};
pub use retain::Keep;
pub use save::{Snapshot, Writer, check_space, checkpoint_bytes, snapshot};

use super::dir;
use super::schedule::Schedule;
use crate::disk::{self, tensors};
use crate::error::{Error, Result};

/// Version of the layout; another one is refused.
pub const FORMAT: u32 = 2;

/// The file that makes a folder a checkpoint.
const MARKER: &str = "checkpoint.json";

/// The ending of an unfinished checkpoint's name.
const UNFINISHED: &str = ".unfinished";

/// The ending of the name of a checkpoint that turned out to be damaged.
const DAMAGED: &str = ".damaged";

/// The state of training: with the tensors, all that a run needs to continue to the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of the layout.
    pub format: u32,
    /// Training steps done. The place in the data and all random numbers follow from it.
    pub step: u64,
    /// Streams, and so files.
    pub streams: usize,
    /// The state of the schedule.
    pub schedule: Schedule,
    /// Whether an evaluation is due at this step and was not made yet.
    pub evaluation_due: bool,
    /// Share of held-out images whose best class is wrong, where they were evaluated at this step.
    pub heldout_error: Option<f64>,
    /// Mean loss of the newest steps, with which a jump is compared.
    pub loss_mean: Option<f64>,
    /// Steps whose update was left out.
    pub skipped_steps: u64,
    /// Bad losses since the last good one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bad_in_a_row: u32,
    /// The step of the checkpoint that they made the run go back to: its weights are no better.
    #[serde(default, skip_serializing_if = "is_default")]
    pub went_back_to: Option<u64>,
    /// Whether a signal caused it: an uninterrupted run would not have it to go back to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_signal: bool,
    /// Of a run that may go back: the steps of the newest checkpoint before this one that is not there for a signal, and
    /// of the newest from which a good step was made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub saved: Option<u64>,
    /// See `saved`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub good: Option<u64>,
    /// The other files, by name.
    pub files: BTreeMap<String, tensors::Seal>,
}

impl TrainState {
    /// At the start of a run.
    pub fn new(streams: usize, schedule: Schedule) -> TrainState {
        TrainState {
            format: FORMAT,
            step: 0,
            streams,
            schedule,
            evaluation_due: false,
            heldout_error: None,
            loss_mean: None,
            skipped_steps: 0,
            bad_in_a_row: 0,
            went_back_to: None,
            on_signal: false,
            saved: None,
            good: None,
            files: BTreeMap::new(),
        }
    }

    /// Updates that made the weights what they are, and losses in `loss_mean`: steps left out are in neither, also where
    /// they were left out by going back.
    pub fn updates(&self) -> u64 {
        self.step.saturating_sub(self.skipped_steps)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `checkpoint.json`: the state and the hash of its JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    sha256: String,
    state: TrainState,
}

impl Marker {
    fn of(state: &TrainState) -> Marker {
        Marker { sha256: tensors::sha256(&serde_json::to_vec(state).unwrap_or_default()), state: state.clone() }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// A checkpoint in a run's folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The step in its name.
    pub step: u64,
}

/// All checkpoints of a run, oldest first, whole or damaged; unfinished ones are not listed.
pub fn list(run: &Path) -> Result<Vec<Checkpoint>> {
    Ok(folders(run)?.into_iter().filter(|checkpoint| is_checkpoint(&checkpoint.path)).collect())
}

/// The same, and those newer than all of them that have lost their marker.
pub fn list_all(run: &Path) -> Result<Vec<Checkpoint>> {
    let mut found = folders(run)?;
    // Older ones without it are being removed, or a process died while it removed them.
    let newest = found.iter().rposition(|checkpoint| is_checkpoint(&checkpoint.path));
    let mut place = 0..;
    found.retain(|checkpoint| place.next() > newest || is_checkpoint(&checkpoint.path));
    Ok(found)
}

/// Folders that are named as checkpoints are, oldest first.
fn folders(run: &Path) -> Result<Vec<Checkpoint>> {
    let folder = folder(run);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
    let checkpoint = |path: PathBuf| match ours(&path)? {
        (step, "") => Some(Checkpoint { path, step }),
        _ => None,
    };
    let mut found: Vec<_> = entries.flatten().filter_map(|entry| checkpoint(entry.path())).collect();
    found.sort_by_key(|checkpoint| checkpoint.step);
    Ok(found)
}

/// The newest whole checkpoint of a run, or the one that `path` is itself, with its state. Damaged ones are skipped
/// with a warning: the run continues from an earlier step, to the same bits.
///
/// Fails where there is none, where all are damaged, and where the newest was written by another version.
pub fn find(path: &Path) -> Result<(PathBuf, TrainState)> {
    if is_checkpoint(path) {
        return verify(path).map(|state| (path.to_owned(), state));
    }
    if !path.is_dir() {
        return Err(Error::run(path, "no such run directory or checkpoint"));
    }
    find_newest(path)
}

fn find_newest(run: &Path) -> Result<(PathBuf, TrainState)> {
    /// Retries while a run in training removes what has been listed before it is read.
    const PATIENCE: u32 = 20;
    let mut again = 0;
    'again: loop {
        let (listed, mut first) = (list_all(run)?, None);
        for checkpoint in listed.iter().rev() {
            let error = match verify_named(checkpoint) {
                Ok(state) => return Ok((checkpoint.path.clone(), state)),
                Err(error) => error,
            };
            if again < PATIENCE && list_all(run)? != listed {
                again += 1;
                continue 'again;
            }
            if !matches!(error, Error::DamagedCheckpoint { .. }) {
                return Err(error);
            }
            tracing::warn!("{error}; trying the checkpoint before it");
            first.get_or_insert(error);
        }
        return Err(first.unwrap_or_else(|| Error::run(run, "holds no checkpoint yet")));
    }
}

/// All checkpoints with a valid marker, oldest first, with their states.
pub fn states(run: &Path) -> Result<Vec<(Checkpoint, TrainState)>> {
    let read = |checkpoint: Checkpoint| {
        let state = load_state(&checkpoint.path).ok().filter(|state| state.step == checkpoint.step)?;
        Some((checkpoint, state))
    };
    Ok(list(run)?.into_iter().filter_map(read).collect())
}

/// The checkpoint that a run goes back to: the newest one older than `before`; where there is none, the oldest one
/// again. Those that a signal caused, which an uninterrupted run would not have, only where there is no other.
pub fn find_to_go_back(run: &Path, before: Option<u64>) -> Result<(PathBuf, TrainState)> {
    let (signalled, regular): (Vec<_>, Vec<_>) = states(run)?.into_iter().partition(|(_, state)| state.on_signal);
    let older = regular.iter().rev().filter(|(_, state)| before.is_none_or(|before| state.step < before));
    let others = regular.iter().filter(|(_, state)| before.is_some_and(|before| state.step >= before));
    for (checkpoint, _) in older.chain(others).chain(signalled.iter().rev()) {
        match verify_named(checkpoint) {
            Ok(state) => return Ok((checkpoint.path.clone(), state)),
            Err(error) => tracing::warn!("{error}; trying another checkpoint"),
        }
    }
    Err(Error::run(run, "holds no checkpoint to go back to"))
}

/// Whether a path given by the user is a checkpoint's.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join(MARKER).is_file()
}

/// The run of a path given by the user: itself, or the one that a checkpoint belongs to.
pub fn run_of(path: &Path) -> PathBuf {
    if !is_checkpoint(path) {
        return path.to_owned();
    }
    let above = |path: &Path| Some(path.parent()?.parent()?.to_owned());
    // The path as the user wrote it, if that leads to a run; a link, or a name within the run, does not.
    let said = above(path).filter(|run| dir::is_run(run));
    said.or_else(|| above(&path.canonicalize().ok()?)).unwrap_or_else(|| path.to_owned())
}

/// [`verify`], and that it is of the step that its name says.
pub fn verify_named(checkpoint: &Checkpoint) -> Result<TrainState> {
    match verify(&checkpoint.path)? {
        state if state.step == checkpoint.step => Ok(state),
        TrainState { step, .. } => {
            Err(Error::damaged(&checkpoint.path, format!("{MARKER} is of step {step}, its name says another")))
        }
    }
}

/// Reads and hashes all files of a checkpoint.
///
/// Fails with [`Error::DamagedCheckpoint`] where one is missing or not as it was written, and with [`Error::Run`] where
/// another version wrote it.
pub fn verify(checkpoint: &Path) -> Result<TrainState> {
    let state = load_state(checkpoint)?;
    for (name, expected) in &state.files {
        let damaged = |problem: String| Error::damaged(checkpoint, format!("{name}: {problem}"));
        let path = checkpoint.join(name);
        // The length first: something that is not a file may have no end.
        let about = std::fs::metadata(&path).map_err(|error| unreadable(checkpoint, &path, error))?;
        if !about.is_file() || about.len() != expected.bytes {
            return Err(damaged(format!("{} bytes, {MARKER} says {}", about.len(), expected.bytes)));
        }
        let found = tensors::seal_of(&path).map_err(|error| unreadable(checkpoint, &path, error))?;
        if found.sha256 != expected.sha256 {
            let (found, expected) = (&found.sha256[..12], expected.sha256.get(..12).unwrap_or_default());
            let problem = format!("SHA-256 {found}..., {MARKER} says {expected}...: altered, or of another checkpoint");
            return Err(damaged(problem));
        }
    }
    Ok(state)
}

/// Reads `checkpoint.json`; fails as [`verify`].
pub fn load_state(checkpoint: &Path) -> Result<TrainState> {
    /// A longer file is not one of ours.
    const MAX_BYTES: u64 = 1 << 20;
    let damaged = |problem: String| Error::damaged(checkpoint, format!("{MARKER}: {problem}"));
    let path = checkpoint.join(MARKER);
    let about = std::fs::metadata(&path).map_err(|error| unreadable(checkpoint, &path, error))?;
    // The length first: something that is not a file may have no end.
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(damaged(format!("{} bytes, expected a file of at most {MAX_BYTES}", about.len())));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(checkpoint, &path, error))?;
    // The version first: another one may have other fields.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    let version = value.pointer("/state/format").or(value.get("format")).and_then(serde_json::Value::as_u64);
    if version.is_some_and(|version| version != u64::from(FORMAT)) {
        if altered_version(value) {
            return Err(damaged("its version was altered".into()));
        }
        let found = version.unwrap_or_default();
        let advice = if found > u64::from(FORMAT) { "a newer program wrote it" } else { "an older program wrote it" };
        return Err(Error::run(path, format!("layout version {found}, this program reads {FORMAT}: {advice}")));
    }
    let marker: Marker = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if Marker::of(&marker.state).sha256 != marker.sha256 {
        return Err(damaged("its contents do not have the SHA-256 that it names".into()));
    }
    let TrainState { streams, files, .. } = &marker.state;
    if !(1..=2).contains(streams) {
        return Err(damaged(format!("is of {streams} streams, expected 1 or 2")));
    }
    // Files with other names are never opened, wherever they lead.
    let (found, expected) = (files.keys().cloned(), (0..*streams).map(file_name));
    if !found.clone().eq(expected.clone()) {
        let show = |names: Vec<String>| if names.is_empty() { "no files".into() } else { names.join(" and ") };
        let (found, expected) = (show(found.collect()), show(expected.collect()));
        return Err(damaged(format!("names {found}, expected {expected}")));
    }
    Ok(marker.state)
}

/// The error of a checkpoint's file that cannot be read: damaged, unless it may be whole for another user or at another
/// time.
fn unreadable(checkpoint: &Path, file: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{OutOfMemory, PermissionDenied, StaleNetworkFileHandle, TimedOut};
    /// ENFILE and EMFILE: too many open files.
    const OPEN_FILES: [i32; 2] = [23, 24];
    let passes = [OutOfMemory, PermissionDenied, StaleNetworkFileHandle, TimedOut].contains(&error.kind());
    if passes || error.raw_os_error().is_some_and(|code| OPEN_FILES.contains(&code)) {
        return Error::io("read", file)(error);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error::damaged(checkpoint, format!("{name}: {error}"))
}

/// Whether a marker has the hash of this version, and so is one of this version whose version number is damaged.
fn altered_version(value: serde_json::Value) -> bool {
    serde_json::from_value(value)
        .is_ok_and(|marker: Marker| Marker::of(&TrainState { format: FORMAT, ..marker.state }).sha256 == marker.sha256)
}

/// A damaged checkpoint of a run, for a run where none is whole enough to be listed.
pub fn left_over(run: &Path) -> Result<Option<PathBuf>> {
    let folder = folder(run);
    if !folder.is_dir() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
    let is_damaged = |path: &PathBuf| ours(path).is_some_and(|(_, ending)| ending == DAMAGED);
    let damaged = entries.flatten().map(|entry| entry.path()).find(is_damaged);
    Ok(damaged.or(folders(run)?.pop().map(|checkpoint| checkpoint.path)))
}

/// The step in the name of a checkpoint's folder, and the name's ending; `None` for everything that this program has
/// not made.
fn ours(path: &Path) -> Option<(u64, &'static str)> {
    let name = path.file_name()?.to_str()?.strip_prefix("step-")?;
    let ending = [UNFINISHED, DAMAGED].into_iter().find(|ending| name.ends_with(ending)).unwrap_or_default();
    let digits = name.strip_suffix(ending)?;
    let step = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    path.is_dir().then_some((step, ending))
}

/// Renames the checkpoints after `step`, which are damaged and will be written again.
pub fn set_aside_after(run: &Path, step: u64) -> Result<()> {
    for checkpoint in folders(run)?.into_iter().filter(|checkpoint| checkpoint.step > step) {
        let mut name = checkpoint.path.clone().into_os_string();
        name.push(DAMAGED);
        disk::remove_folder(Path::new(&name), MARKER)?;
        disk::rename(&checkpoint.path, Path::new(&name))?;
    }
    Ok(())
}

fn folder(run: &Path) -> PathBuf {
    run.join(files::CHECKPOINTS)
}

fn file_name(stream: usize) -> String {
    format!("stream{stream}.safetensors")
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use super::*;

    #[test]
    fn what_may_be_whole_for_another_user_is_not_damaged() {
        let error = |error: IoError| unreadable(Path::new("run/step-1"), Path::new("run/step-1/a"), error);
        for passes in [ErrorKind::PermissionDenied.into(), IoError::from_raw_os_error(24)] {
            assert!(matches!(error(passes), Error::Io { .. }));
        }
        for stays in [ErrorKind::NotFound.into(), ErrorKind::InvalidData.into(), IoError::from_raw_os_error(5)] {
            assert!(matches!(error(stays), Error::DamagedCheckpoint { .. }));
        }
    }
}
