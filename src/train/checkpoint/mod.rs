//! Checkpoints. One is a *generation*: a folder `step-00000219` with one safetensors file a stream and, written last,
//! `checkpoint.json`, which has the other files' hashes and its own. It is built as `step-00000219.unfinished`, flushed
//! and renamed, so that a generation is whole or not there; older ones are removed afterwards, their
//! `checkpoint.json` first.

mod load;
mod save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use load::{load, open};
pub use save::{Snapshot, Writer, check_space, generation_bytes, snapshot};

use super::run_dir;
use super::schedule::Schedule;
use crate::disk::{self, tensors};
use crate::error::{Error, Result};

/// Version of the layout; another one is refused.
pub const FORMAT: u32 = 2;

/// The file that makes a folder a generation.
const MARKER: &str = "checkpoint.json";

/// What an unfinished generation's name ends in.
const UNFINISHED: &str = ".unfinished";

/// What the name of one that turned out to be damaged ends in.
const DAMAGED: &str = ".damaged";

/// Where a run stands; with the tensors, all that it takes to go on to the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the layout.
    pub format: u32,
    /// Training steps done. The place in the data and all random numbers follow from it.
    pub step: u64,
    /// Streams, and so files.
    pub streams: usize,
    /// Where the schedule stands.
    pub schedule: Schedule,
    /// Whether an evaluation is due at this step and was not made yet.
    pub evaluation_due: bool,
    /// Share of held-out images whose best class is wrong, where they were evaluated at this step.
    pub heldout_error: Option<f64>,
    /// Mean loss of the newest steps, which spikes are told from.
    pub loss_mean: Option<f64>,
    /// Steps whose update was left out.
    pub skipped_steps: u64,
    /// The other files, by name.
    pub files: BTreeMap<String, tensors::Seal>,
}

impl State {
    /// At the start of a run.
    pub fn new(streams: usize, schedule: Schedule) -> State {
        State {
            format: FORMAT,
            step: 0,
            streams,
            schedule,
            evaluation_due: false,
            heldout_error: None,
            loss_mean: None,
            skipped_steps: 0,
            files: BTreeMap::new(),
        }
    }
}

/// `checkpoint.json`: the state and the hash of its JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    sha256: String,
    state: State,
}

impl Marker {
    fn of(state: &State) -> Marker {
        Marker { sha256: tensors::sha256(&serde_json::to_vec(state).unwrap_or_default()), state: state.clone() }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// A generation in a run's folder.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Its folder.
    pub path: PathBuf,
    /// What its name says.
    pub step: u64,
}

/// All generations of a run, oldest first, whole or damaged; unfinished ones are none.
pub fn list(run: &Path) -> Result<Vec<Generation>> {
    let folder = folder(run);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
    let generation = |path: PathBuf| {
        let step = path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
        path.join(MARKER).is_file().then_some(Generation { path, step })
    };
    let mut found: Vec<_> = entries.flatten().filter_map(|entry| generation(entry.path())).collect();
    found.sort_by_key(|generation| generation.step);
    Ok(found)
}

/// The newest whole generation of a run, or the one that `path` is itself, with its state. Damaged ones are passed
/// over with a warning: the run goes on from an earlier step of its own, to the same bits.
///
/// Fails where there is none, where all are damaged, and where the newest was written by another version.
pub fn find(path: &Path) -> Result<(PathBuf, State)> {
    if is_generation(path) {
        return verify(path).map(|state| (path.to_owned(), state));
    }
    if !path.is_dir() {
        return Err(Error::run(path, "no such run directory or checkpoint"));
    }
    let mut first = None;
    for generation in list(path)?.into_iter().rev() {
        let found = verify(&generation.path).and_then(|state| match state.step {
            step if step == generation.step => Ok(state),
            step => Err(Error::damaged(&generation.path, format!("{MARKER} is of step {step}, its name says another"))),
        });
        match found {
            Ok(state) => return Ok((generation.path, state)),
            Err(error @ Error::DamagedCheckpoint { .. }) => {
                tracing::warn!("{error}; looking for the one before");
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| Error::run(path, "holds no checkpoint yet")))
}

/// Whether a path given by the user is a checkpoint's.
pub fn is_generation(path: &Path) -> bool {
    path.join(MARKER).is_file()
}

/// The run that a path given by the user means: itself, or the one that a checkpoint belongs to.
pub fn run_of(path: &Path) -> PathBuf {
    if !is_generation(path) {
        return path.to_owned();
    }
    let above = |path: &Path| Some(path.parent()?.parent()?.to_owned());
    // As the user says it where that leads to a run; a link, or a name within the run, says less.
    let said = above(path).filter(|run| run_dir::is_run(run));
    said.or_else(|| above(&path.canonicalize().ok()?)).unwrap_or_else(|| path.to_owned())
}

/// Reads and hashes all files of a generation.
///
/// Fails with [`Error::DamagedCheckpoint`] where one is missing or not as it was written, and with [`Error::Run`] where
/// another version wrote it.
pub fn verify(generation: &Path) -> Result<State> {
    let state = load_state(generation)?;
    for (name, expected) in &state.files {
        let damaged = |problem: String| Error::damaged(generation, format!("{name}: {problem}"));
        let path = generation.join(name);
        // The length first: what is no file may have no end.
        let about = std::fs::metadata(&path).map_err(|error| damaged(error.to_string()))?;
        if !about.is_file() || about.len() != expected.bytes {
            return Err(damaged(format!("{} bytes, {MARKER} says {}", about.len(), expected.bytes)));
        }
        let found = tensors::seal_of(&path).map_err(|error| damaged(error.to_string()))?;
        if found.sha256 != expected.sha256 {
            let (found, expected) = (&found.sha256[..12], expected.sha256.get(..12).unwrap_or_default());
            let problem = format!("SHA-256 {found}..., {MARKER} says {expected}...: altered, or of another generation");
            return Err(damaged(problem));
        }
    }
    Ok(state)
}

/// Reads `checkpoint.json`; fails as [`verify`].
pub fn load_state(generation: &Path) -> Result<State> {
    /// A file that claims more is none of ours.
    const MAX_BYTES: u64 = 1 << 20;
    let damaged = |problem: String| Error::damaged(generation, format!("{MARKER}: {problem}"));
    let path = generation.join(MARKER);
    let length = std::fs::metadata(&path).map_err(|error| damaged(error.to_string()))?.len();
    if length > MAX_BYTES {
        return Err(damaged(format!("{length} bytes, expected at most {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| damaged(error.to_string()))?;
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
    let State { streams, files, .. } = &marker.state;
    if !(1..=2).contains(streams) {
        return Err(damaged(format!("is of {streams} streams, expected 1 or 2")));
    }
    // Other names are not looked up, wherever they lead.
    let (found, expected) = (files.keys().cloned(), (0..*streams).map(file_name));
    if !found.clone().eq(expected.clone()) {
        let show = |names: Vec<String>| if names.is_empty() { "no files".into() } else { names.join(" and ") };
        let (found, expected) = (show(found.collect()), show(expected.collect()));
        return Err(damaged(format!("names {found}, expected {expected}")));
    }
    Ok(marker.state)
}

/// Whether a marker has the seal of this version, and so is one of this version whose number is damaged.
fn altered_version(value: serde_json::Value) -> bool {
    serde_json::from_value(value)
        .is_ok_and(|marker: Marker| Marker::of(&State { format: FORMAT, ..marker.state }).sha256 == marker.sha256)
}

/// One of those that were taken out of the way, if there are any.
pub fn set_aside(run: &Path) -> Result<Option<PathBuf>> {
    let folder = folder(run);
    if !folder.is_dir() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.find(|path| path.as_os_str().to_string_lossy().ends_with(DAMAGED)))
}

/// Takes generations after `step` out of the way: they are damaged, and will be written anew.
pub fn set_aside_after(run: &Path, step: u64) -> Result<()> {
    for generation in list(run)?.into_iter().filter(|generation| generation.step > step) {
        let mut name = generation.path.clone().into_os_string();
        name.push(DAMAGED);
        disk::remove_folder(Path::new(&name), MARKER)?;
        disk::rename(&generation.path, Path::new(&name))?;
    }
    Ok(())
}

fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

fn file_name(stream: usize) -> String {
    format!("stream{stream}.safetensors")
}
