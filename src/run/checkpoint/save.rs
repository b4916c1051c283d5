//! Writing checkpoints: a copy of the tensors is taken between two steps, and a thread writes it while training goes
//! on.

use std::iter;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::retain::{Candidate, Keep, kept};
use super::{Checkpoint, DAMAGED, MARKER, Marker, TrainState, UNFINISHED, file_name, folder, list, load_state, ours};
use crate::backend::Backend;
use crate::disk::tensors::{self, NamedTensor};
use crate::disk::{self, FileWriter};
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::{Error, NO_SPACE, Result};
use crate::net::plan::Plan;
use crate::text::{counted, show_bytes};

/// Least space for metrics, pictures and logs.
const OTHER_FILES: u64 = 1_000_000;

/// A checkpoint that is to be written.
pub struct Snapshot {
    state: TrainState,
    /// By stream.
    tensors: Vec<Vec<NamedTensor>>,
}

/// Bytes of one checkpoint, without headers.
pub fn checkpoint_bytes(plans: &[Plan], states: usize, mean_values: usize) -> u64 {
    let values: usize = plans.iter().flat_map(|plan| &plan.params).map(|param| (1 + states) * param.elems()).sum();
    4 * (values + mean_values) as u64
}

/// Fails where a run that keeps `keep` checkpoints, the best one and the one being written do not fit on the disk of
/// its folder, beside those that are there already.
pub fn check_space(run: &Path, keep: usize, bytes: u64) -> Result<()> {
    let there = list(run)?.len() as u64;
    // The new one is written before an old one goes.
    let count = (keep as u64).saturating_add(2).saturating_sub(there).max(1);
    let needed = bytes.saturating_mul(count).saturating_add(OTHER_FILES);
    match disk::free_bytes(run) {
        Some(free) if free < needed => {
            let [free, each, needed] = [free, bytes, needed].map(show_bytes);
            let advice = if keep > 1 { "free some space, or keep fewer with --keep 1" } else { "free some space" };
            let problem = format!(
                "{free} are free, {} of {each} and metrics need {needed}; {advice}",
                counted(count as usize, "checkpoint[s]")
            );
            Err(Error::NoSpace { path: run.to_owned(), problem })
        }
        _ => Ok(()),
    }
}

/// Copies all parameters, the optimizer's state and the mean image; `None` on a process that does not lead.
pub fn snapshot<B: Backend>(
    state: TrainState,
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
    /// Writes the checkpoint and removes older ones, but for those to be kept.
    ///
    /// A failure leaves the older ones as they are.
    pub fn write(self, run: &Path, keep: Keep) -> Result<PathBuf> {
        let _span = tracing::info_span!("write checkpoint", step = self.state.step).entered();
        let whole = folder(run).join(format!("step-{:08}", self.state.step));
        let there = load_state(&whole).ok();
        // Unless steps were skipped: the run may have gone back and reached this step again.
        if let Some(there) = there.filter(|there| there.skipped_steps == self.state.skipped_steps) {
            // The same step of the same run, and so the same weights; an evaluation may have come since.
            let on_signal = there.on_signal && self.state.on_signal;
            let state = TrainState { files: there.files, on_signal, ..self.state };
            disk::write_whole(&whole.join(MARKER), &Marker::of(&state).to_json())?;
            return clean_up(run, keep).map(|()| whole);
        }
        let mut unfinished = whole.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        // Files of processes that died.
        disk::remove_folder(&unfinished, MARKER)?;
        let written = self
            .write_into(&unfinished)
            .and_then(|()| disk::remove_folder(&whole, MARKER))
            .and_then(|()| disk::rename(&unfinished, &whole));
        if written.is_err() {
            // The run's owner needs the free space now.
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        written?;
        clean_up(run, keep).map(|()| whole)
    }

    fn write_into(mut self, unfinished: &Path) -> Result<()> {
        disk::create_folder(unfinished)?;
        for (stream, tensors) in self.tensors.iter().enumerate() {
            let name = file_name(stream);
            let seal = tensors::write(&unfinished.join(&name), tensors, None)?;
            self.state.files.insert(name, seal);
        }
        let mut marker = FileWriter::create(&unfinished.join(MARKER))?;
        marker.write(&Marker::of(&self.state).to_json())?;
        marker.finish()?;
        disk::sync_folder(unfinished)
    }
}

/// [`prune`], whose failures do not end the run: the new checkpoint is complete.
fn clean_up(run: &Path, keep: Keep) -> Result<()> {
    match prune(run, keep) {
        Err(error) if error.exit_code() != NO_SPACE => {
            tracing::warn!("old checkpoints could not be removed: {error}");
            Ok(())
        }
        pruned => pruned,
    }
}

/// Removes checkpoints that are not kept, and files of processes that died.
fn prune(run: &Path, keep: Keep) -> Result<()> {
    let all = list(run)?;
    let candidate = |checkpoint: &Checkpoint| {
        let (on_signal, heldout_error) =
            load_state(&checkpoint.path).map_or((false, None), |state| (state.on_signal, state.heldout_error));
        Candidate { step: checkpoint.step, on_signal, heldout_error }
    };
    let kept = kept(&all.iter().map(candidate).collect::<Vec<_>>(), keep);
    for old in all.iter().filter(|checkpoint| !kept.contains(&checkpoint.step)) {
        disk::remove_folder(&old.path, MARKER)?;
    }
    let (folder, newest) = (folder(run), kept.last().copied());
    for entry in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?.flatten() {
        let path = entry.path();
        let is_left = |(step, ending): (u64, &str)| match ending {
            // A damaged one until its step is made again.
            DAMAGED => Some(step) <= newest,
            "" => !path.join(MARKER).exists(),
            _ => true,
        };
        if ours(&path).is_some_and(is_left) {
            disk::remove_folder(&path, MARKER)?;
        }
    }
    Ok(())
}

/// Writes checkpoints one after the other on a thread of its own.
pub struct Writer {
    run: PathBuf,
    keep: usize,
    writing: Option<JoinHandle<Result<PathBuf>>>,
}

impl Writer {
    /// For a run that keeps the newest `keep` checkpoints, and the best.
    pub fn new(run: &Path, keep: usize) -> Writer {
        Writer { run: run.to_owned(), keep, writing: None }
    }

    /// Starts to write; waits first for the one that is being written, and returns its path. From the checkpoint of
    /// step `good` a good step was made.
    pub fn start(&mut self, snapshot: Snapshot, good: Option<u64>) -> Result<Option<PathBuf>> {
        let earlier = self.finish()?;
        let (run, keep) = (self.run.clone(), Keep { newest: self.keep, good });
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let thread = thread.spawn(move || snapshot.write(&run, keep));
        self.writing = Some(thread.map_err(|error| Error::Device(format!("cannot start a thread: {error}")))?);
        Ok(earlier)
    }

    /// The checkpoint that has been written since the last call, if one has.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_the_one_that_is_written_before_an_old_one_goes() {
        let run = tempfile::tempdir().unwrap();
        for step in 1..=9 {
            let checkpoint = folder(run.path()).join(format!("step-{step:08}"));
            std::fs::create_dir_all(&checkpoint).unwrap();
            std::fs::write(checkpoint.join(MARKER), "").unwrap();
        }
        check_space(run.path(), 2, 1).unwrap();
        let error = check_space(run.path(), 1, u64::MAX / 4).unwrap_err().to_string();
        assert!(error.contains("1 checkpoint of") && !error.contains("--keep"), "{error}");
    }
}
