//! Checkpoints: a folder a step with one safetensors file a stream and a small JSON, which appear together: they are
//! written to a temporary folder, flushed, and the folder is renamed.

use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::run_dir::sync_folder;
use super::schedule::Schedule;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::net::pair::Pair;
use crate::net::stream::Tensor;

/// Version of the layout; another one is refused.
const FORMAT: u32 = 1;

/// The small JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout.
    pub format: u32,
    /// Training steps done. The place in the data and all random numbers follow from it.
    pub step: u64,
    /// Streams, and so files.
    pub streams: usize,
    /// Where the schedule stands.
    pub schedule: Schedule,
}

impl State {
    /// After `step` steps.
    pub fn new(step: u64, streams: usize, schedule: Schedule) -> State {
        State { format: FORMAT, step, streams, schedule }
    }
}

/// Writes a checkpoint under `run` and removes older ones once it is whole. `mean` is the input's mean image.
pub fn save<B: Backend>(
    run: &Path,
    state: &State,
    pair: &mut Pair<B>,
    state_names: &[&str],
    mean: &[f32],
) -> Result<PathBuf> {
    let _span = tracing::info_span!("checkpoint", step = state.step).entered();
    let folder = run.join("checkpoints");
    let whole = folder.join(format!("step-{:08}", state.step));
    if !pair.told(|| Ok(!whole.exists()))? {
        return Ok(whole); // the same step of the same run: the same bits
    }
    let temporary = folder.join("unfinished");
    if pair.leads() {
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        std::fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
    }
    for (stream, plan) in pair.plans().to_vec().iter().enumerate() {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for (index, param) in plan.params.iter().enumerate() {
            let value = pair.read_param(stream, index, Tensor::Value)?;
            tensors.push((param.name.clone(), param.shape.clone(), value));
            for (number, name) in state_names.iter().enumerate() {
                let values = pair.read_param(stream, index, Tensor::State(number))?;
                tensors.push((format!("{name}.{}", param.name), param.shape.clone(), values));
            }
        }
        if stream == 0 {
            tensors.push(("input.mean".into(), vec![mean.len()], mean.to_vec()));
        }
        if pair.leads() {
            write_tensors(&temporary.join(file_name(stream)), &tensors, None)?;
        }
    }
    // The other process waits here: its next exchange has a deadline, and a disk may be slow.
    pair.told(|| publish(run, state, &temporary, &whole))?;
    Ok(whole)
}

/// Makes a finished folder the newest checkpoint.
fn publish(run: &Path, state: &State, temporary: &Path, whole: &Path) -> Result<()> {
    let json = temporary.join("checkpoint.json");
    std::fs::write(&json, serde_json::to_string_pretty(state).unwrap_or_default())
        .map_err(Error::io("write", &json))?;
    flush(&json)?;
    sync_folder(temporary)?;
    std::fs::rename(temporary, whole).map_err(Error::io("rename to", whole))?;
    whole.parent().map_or(Ok(()), sync_folder)?;
    for old in list(run)?.into_iter().filter(|old| old != whole) {
        std::fs::remove_dir_all(&old).map_err(Error::io("remove", &old))?;
    }
    Ok(())
}

/// The newest checkpoint of a run, or the one that `path` is itself.
pub fn find(path: &Path) -> Result<PathBuf> {
    if path.join("checkpoint.json").is_file() {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return Err(Error::run(path, "no such run directory or checkpoint"));
    }
    list(path)?.pop().ok_or_else(|| Error::run(path, "holds no checkpoint yet"))
}

/// The run that a path given by the user means: itself, or the one that a checkpoint belongs to.
pub fn run_of(path: &Path) -> &Path {
    let is_checkpoint = path.join("checkpoint.json").is_file();
    path.parent().and_then(Path::parent).filter(|_| is_checkpoint).unwrap_or(path)
}

/// Reads the small JSON.
pub fn load_state(checkpoint: &Path) -> Result<State> {
    let path = checkpoint.join("checkpoint.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let state: State = serde_json::from_str(&text).map_err(|error| Error::run(&path, format!("damaged: {error}")))?;
    if state.format != FORMAT {
        return Err(Error::run(path, format!("layout version {}, this program reads {FORMAT}", state.format)));
    }
    Ok(state)
}

/// Sets all parameters of `pair` (and, where `state_names` are given, the optimizer's state) and returns the mean.
///
/// Fails, naming the tensor, where the checkpoint is of another network, and where it is damaged.
pub fn load<B: Backend>(
    checkpoint: &Path,
    state: &State,
    pair: &mut Pair<B>,
    state_names: &[&str],
) -> Result<Vec<f32>> {
    let streams = pair.plans().len();
    if state.streams != streams {
        let problem = format!("is of a network of {} streams, the recipe's has {streams}", state.streams);
        return Err(Error::run(checkpoint, problem));
    }
    let mut mean = Vec::new();
    for (stream, plan) in pair.plans().to_vec().iter().enumerate() {
        let path = checkpoint.join(file_name(stream));
        // Only the process that leads needs to see the run's directory.
        let bytes = if pair.leads() { std::fs::read(&path).map_err(Error::io("read", &path))? } else { Vec::new() };
        let file = || SafeTensors::deserialize(&bytes).map_err(|error| Error::run(&path, format!("damaged: {error}")));
        for (index, param) in plan.params.iter().enumerate() {
            let read = |name: &str| read_tensor(&path, &file()?, name, Some(&param.shape));
            pair.write_param(stream, index, Tensor::Value, || read(&param.name))?;
            for (number, name) in state_names.iter().enumerate() {
                pair.write_param(stream, index, Tensor::State(number), || read(&format!("{name}.{}", param.name)))?;
            }
        }
        if stream == 0 {
            mean = pair.told_values(|| read_tensor(&path, &file()?, "input.mean", None))?;
        }
    }
    Ok(mean)
}

/// Writes named f32 tensors, flushed to disk.
pub fn write_tensors(
    path: &Path,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: Option<std::collections::HashMap<String, String>>,
) -> Result<()> {
    let views = tensors.iter().map(|(name, shape, values)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        view.map(|view| (name.as_str(), view)).map_err(|error| Error::run(path, format!("tensor {name}: {error}")))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    safetensors::serialize_to_file(views, metadata, path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        error => Error::run(path, error.to_string()),
    })?;
    flush(path)
}

/// The one tensor that matters of a file, of `elems` values.
///
/// Fails, naming the file, where it is not that.
pub fn read_tensor_file(path: &Path, name: &str, elems: usize) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| Error::data(path, format!("damaged: {error}")))?;
    let values = read_tensor(path, &file, name, None)?;
    if values.len() != elems {
        return Err(Error::data(path, format!("{} values, expected {elems}", values.len())));
    }
    Ok(values)
}

fn read_tensor(path: &Path, file: &SafeTensors, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>> {
    let another = |problem: String| Error::run(path, format!("is of another network than the recipe's: {problem}"));
    let view = file.tensor(name).map_err(|_| another(format!("it has no tensor {name}")))?;
    if view.dtype() != Dtype::F32 || shape.is_some_and(|shape| shape != view.shape()) {
        return Err(another(format!(
            "tensor {name}: expected F32 {shape:?}, found {:?} {:?}",
            view.dtype(),
            view.shape()
        )));
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// All whole checkpoints of a run, oldest first.
fn list(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join("checkpoints");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("checkpoint.json").is_file()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")));
    found.sort();
    Ok(found)
}

fn file_name(stream: usize) -> String {
    format!("stream{stream}.safetensors")
}

fn flush(path: &Path) -> Result<()> {
    File::options().write(true).open(path).and_then(|file| file.sync_all()).map_err(Error::io("flush", path))
}
