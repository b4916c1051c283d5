//! `checkpoint list` and `checkpoint verify`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::run::checkpoint::{self, Checkpoint, TrainState};
use crate::text::show_bytes;
use serde_json::json;

use crate::cli::{CheckpointArgs, CheckpointCommand};

pub fn checkpoint(command: &CheckpointCommand) -> Result<()> {
    match command {
        CheckpointCommand::List(args) => list(args),
        CheckpointCommand::Verify(args) => verify(args),
    }
}

/// The contents of `checkpoint.json`; hashes are not looked at.
fn list(args: &CheckpointArgs) -> Result<()> {
    let checkpoints = checkpoints(&args.path)?;
    let states: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint::load_state(&checkpoint.path)).collect();
    let error = |state: &Result<TrainState>| state.as_ref().ok().and_then(|state| state.heldout_error);
    // Of equals the first, which is the one that is kept.
    let errors = states.iter().enumerate().filter_map(|(number, state)| Some((number, error(state)?)));
    let best = errors.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(number, _)| number);
    for (number, (checkpoint, state)) in checkpoints.iter().zip(&states).enumerate() {
        let (is_best, path) = (best == Some(number), checkpoint.path.display().to_string());
        if args.json {
            let row = match state {
                Ok(state) => json!({
                    "path": path, "step": state.step, "bytes": bytes(state), "lr": state.schedule.lr,
                    "heldout_error": state.heldout_error, "best": is_best,
                }),
                Err(error) => json!({"path": path, "problem": error.to_string()}),
            };
            outln!("{row}");
            continue;
        }
        match state {
            Ok(state) => {
                let error = state.heldout_error.map_or("not evaluated".into(), |e| format!("error {:.1}%", 100. * e));
                let mark = if is_best { ", the best" } else { "" };
                let size = show_bytes(bytes(state));
                outln!("{path}  step {}, {size}, lr {}, {error}{mark}", state.step, state.schedule.lr);
            }
            Err(error) => outln!("{error}"),
        }
    }
    Ok(())
}

/// Reads and hashes everything.
fn verify(args: &CheckpointArgs) -> Result<()> {
    let mut first = None;
    for checkpoint in checkpoints(&args.path)? {
        let found = checkpoint::verify_named(&checkpoint);
        let problem = found.as_ref().err().map(Error::to_string);
        if args.json {
            outln!(
                "{}",
                json!({"path": checkpoint.path.display().to_string(), "whole": found.is_ok(), "problem": problem})
            );
        } else if let Ok(state) = &found {
            outln!("{}  whole, {}", checkpoint.path.display(), show_bytes(bytes(state)));
        } else {
            outln!("{}", problem.unwrap_or_default());
        }
        first = first.or(found.err());
    }
    first.map_or(Ok(()), Err)
}

/// Those of a run, or the one that `path` is itself.
fn checkpoints(path: &Path) -> Result<Vec<Checkpoint>> {
    if checkpoint::is_checkpoint(path) {
        // Whatever it is called: it is asked for by name.
        let step = checkpoint::load_state(path).map_or(0, |state| state.step);
        return Ok(vec![Checkpoint { path: path.to_owned(), step }]);
    }
    if !path.is_dir() {
        return Err(Error::run(path, "no such run directory or checkpoint"));
    }
    let found = checkpoint::list_all(path)?;
    if found.is_empty() {
        return Err(Error::run(path, "holds no checkpoint"));
    }
    Ok(found)
}

fn bytes(state: &TrainState) -> u64 {
    state.files.values().map(|file| file.bytes).sum()
}
