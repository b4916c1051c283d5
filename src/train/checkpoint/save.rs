//! Writing generations: a copy of the tensors is taken between two steps, and a thread writes it while training goes on.

use std::iter;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::{DAMAGED, MARKER, Marker, State, UNFINISHED, file_name, folder, list, load_state};
use crate::backend::Backend;
use crate::disk::tensors::{self, NamedTensor};
use crate::disk::{self, Draft};
use crate::error::{Error, Result};
use crate::net::pair::Pair;
use crate::net::plan::Plan;
use crate::net::stream::Tensor;

/// A generation that is to be written.
pub struct Snapshot {
    state: State,
    /// By stream.
    tensors: Vec<Vec<NamedTensor>>,
}

/// Bytes of one generation, without headers.
pub fn generation_bytes(plans: &[Plan], states: usize, mean_values: usize) -> u64 {
    let values: usize = plans.iter().flat_map(|plan| &plan.params).map(|param| (1 + states) * param.elems()).sum();
    4 * (values + mean_values) as u64
}

/// Fails where a run that keeps `keep` generations, the best one and the one being written will not find room in its
/// folder, beside those that are there already.
pub fn check_space(run: &Path, keep: usize, generation: u64) -> Result<()> {
    let there = list(run)?.len() as u64;
    let needed = generation.saturating_mul((keep as u64).saturating_add(2).saturating_sub(there));
    match disk::free_bytes(run) {
        Some(free) if free < needed => Err(Error::NoSpace {
            path: run.to_owned(),
            problem: format!(
                "{} are free, {} checkpoints of {} need {}; make room, or keep fewer with --keep 1",
                disk::show_bytes(free),
                needed / generation.max(1),
                disk::show_bytes(generation),
                disk::show_bytes(needed)
            ),
        }),
        _ => Ok(()),
    }
}

/// Copies all parameters, the optimizer's state and the mean image; `None` on a process that does not lead.
pub fn snapshot<B: Backend>(
    state: State,
    pair: &mut Pair<B>,
    state_names: &[&str],
    mean: &[f32],
) -> Result<Option<Snapshot>> {
    let kinds: Vec<Tensor> = iter::once(Tensor::Value).chain((0..state_names.len()).map(Tensor::State)).collect();
    let name = |kind, param: &str| match kind {
        Tensor::State(number) => format!("{}.{param}", state_names[number]),
        Tensor::Value | Tensor::Gradient => param.to_owned(),
    };
    let mut files: Vec<Vec<NamedTensor>> = Vec::new();
    let streams = pair.read_params(&kinds)?;
    for (plan, params) in pair.plans().iter().zip(streams) {
        let mut file = Vec::new();
        for (param, tensors) in plan.params.iter().zip(params) {
            file.extend(kinds.iter().zip(tensors).map(|(kind, values)| NamedTensor {
                name: name(*kind, &param.name),
                shape: param.shape.clone(),
                values,
            }));
        }
        files.push(file);
    }
    if let Some(first) = files.first_mut() {
        first.push(NamedTensor { name: "input.mean".into(), shape: vec![mean.len()], values: mean.to_vec() });
    }
    Ok(pair.leads().then_some(Snapshot { state, tensors: files }))
}

impl Snapshot {
    /// Writes the generation and removes older ones, but for the newest `keep` and the one of the least held-out error.
    ///
    /// Where it fails, those that were there are there still.
    pub fn write(self, run: &Path, keep: usize) -> Result<PathBuf> {
        let _span = tracing::info_span!("write checkpoint", step = self.state.step).entered();
        let whole = folder(run).join(format!("step-{:08}", self.state.step));
        if let Ok(there) = load_state(&whole) {
            // The same step of the same run, and so the same weights; an evaluation may have come since.
            let state = State { files: there.files, ..self.state };
            disk::write_whole(&whole.join(MARKER), &Marker::of(&state).to_json())?;
            return Ok(whole);
        }
        let mut unfinished = whole.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        // What processes that died have left.
        disk::remove_folder(&unfinished, MARKER)?;
        disk::remove_folder(&whole, MARKER)?;
        let written = self.write_into(&unfinished).and_then(|()| disk::rename(&unfinished, &whole));
        if written.is_err() {
            // What room there is, the run's owner needs now.
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        written?;
        prune(run, keep)?;
        Ok(whole)
    }

    fn write_into(mut self, unfinished: &Path) -> Result<()> {
        disk::create_folder(unfinished)?;
        for (stream, tensors) in self.tensors.iter().enumerate() {
            let name = file_name(stream);
            let seal = tensors::write(&unfinished.join(&name), tensors, None)?;
            self.state.files.insert(name, seal);
        }
        let mut marker = Draft::create(&unfinished.join(MARKER))?;
        marker.write(&Marker::of(&self.state).to_json())?;
        marker.finish()?;
        disk::sync_folder(unfinished)
    }
}

/// Removes what is not to be kept, and what processes that died have left.
fn prune(run: &Path, keep: usize) -> Result<()> {
    let generations = list(run)?;
    let error = |path: &Path| load_state(path).ok().and_then(|state| state.heldout_error);
    let errors = generations.iter().filter_map(|generation| Some((error(&generation.path)?, generation)));
    // Of equals the earliest.
    let best = errors.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, generation)| generation.step);
    let newest = generations.len().saturating_sub(keep.max(1));
    for old in generations[..newest].iter().filter(|old| Some(old.step) != best) {
        disk::remove_folder(&old.path, MARKER)?;
    }
    let folder = folder(run);
    for entry in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let without_marker = name.starts_with("step-") && !path.join(MARKER).exists();
        if without_marker || name.ends_with(UNFINISHED) || name.ends_with(DAMAGED) {
            disk::remove_folder(&path, MARKER)?;
        }
    }
    Ok(())
}

/// Writes generations one after the other on a thread of its own.
pub struct Writer {
    run: PathBuf,
    keep: usize,
    writing: Option<JoinHandle<Result<PathBuf>>>,
}

impl Writer {
    /// For a run that keeps the newest `keep` generations, and the best.
    pub fn new(run: &Path, keep: usize) -> Writer {
        Writer { run: run.to_owned(), keep, writing: None }
    }

    /// Starts to write; waits first for the one that is being written, and returns where it is.
    pub fn start(&mut self, snapshot: Snapshot) -> Result<Option<PathBuf>> {
        let earlier = self.finish()?;
        let (run, keep) = (self.run.clone(), self.keep);
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let thread = thread.spawn(move || snapshot.write(&run, keep));
        self.writing = Some(thread.map_err(|error| Error::Device(format!("cannot start a thread: {error}")))?);
        Ok(earlier)
    }

    /// The generation that has been written since the last call, if one has.
    pub fn poll(&mut self) -> Result<Option<PathBuf>> {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(None) }
    }

    /// Waits for the one that is being written.
    pub fn finish(&mut self) -> Result<Option<PathBuf>> {
        let panicked =
            || Err(Error::run(&self.run, "writing a checkpoint stopped at an internal error; please report it"));
        self.writing.take().map(|thread| thread.join().unwrap_or_else(|_| panicked())).transpose()
    }
}
