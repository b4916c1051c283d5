//! `convert`: the same network with one stream instead of two, or with two instead of one.

use std::path::{Path, PathBuf};

use crate::backend::cpu::CpuBackend;
use crate::config::Recipe;
use crate::disk;
use crate::engine::merge::{fill_groups, merge, split, take_groups};
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::{Error, Result};
use crate::net::plan::Op;
use crate::net::spec::Net;
use crate::run::checkpoint::{self, Keep};
use crate::run::dir::{self, RunDir};
use crate::run::rows::{End, Event, Start, unix_s};

use crate::cli::ConvertArgs;

pub fn convert(args: &ConvertArgs) -> Result<()> {
    let (path, mut state) = checkpoint::find(&args.run)?;
    let run = checkpoint::run_of(&path);
    let (recipe, info) = (dir::load_recipe(&run)?, dir::load_info(&run)?);
    let mut converted = recipe.clone();
    converted.net.streams = Some(3 - state.streams);
    let (mut from, mut to) = (network(&recipe)?, network(&converted)?);
    let mean = checkpoint::load(&path, &state, &mut from, recipe.state_names())?;

    let states = (0..recipe.state_names().len()).map(Tensor::State);
    for tensor in [Tensor::Value].into_iter().chain(states) {
        transfer(&path, &mut from, &mut to, tensor)?;
    }
    state.streams = 3 - state.streams;
    // The one checkpoint of a new run.
    (state.on_signal, state.bad_in_a_row, state.went_back_to, state.saved, state.good) = Default::default();
    state.files.clear();
    let step = state.step;
    let snapshot = checkpoint::snapshot(state, &mut to, converted.state_names(), &mean)?;
    let what = format!("{} of step {step}, converted from {}", streams(to.plans().len()), path.display());
    write(&args.out, |unfinished| {
        let keep = Keep { newest: 1, good: None };
        let write = || snapshot.map_or(Ok(()), |snapshot| snapshot.write(unfinished, keep).map(drop));
        let mut made = RunDir::create(unfinished, &converted, &info, write)?;
        let (command, version) = (super::command_line(), env!("CARGO_PKG_VERSION").into());
        let start = Start { unix_s: unix_s(), step, command, version, ..Start::default() };
        made.journal(&Event::Start(Box::new(start)))?;
        let (how, message) = ("finished".into(), what.clone());
        made.journal(&Event::End(End { unix_s: unix_s(), step: Some(step), how, exit_code: 0, message }))
    })?;
    outln!("wrote {}: {what}", args.out.display());
    if to.plans().iter().any(|plan| plan.layers.iter().any(|layer| matches!(layer.op, Op::Lrn(_)))) {
        outln!(
            "A single stream normalizes over the border between the halves: the two channels on each side of it differ."
        );
    }
    Ok(())
}

/// Copies the tensors of `from`, which come from the checkpoint at `path`, to `to`; one of them has two streams, the
/// other has one.
fn transfer(path: &Path, from: &mut Pair<CpuBackend>, to: &mut Pair<CpuBackend>, tensor: Tensor) -> Result<()> {
    let merged = merge(from, tensor)?;
    if from.plans().len() == 2 {
        return split(to, tensor, &fill_groups(merged, from.plans()));
    }
    let halves = take_groups(merged.clone(), to.plans());
    split(to, tensor, &halves)?;
    let kept = fill_groups(merge(to, tensor)?, to.plans());
    match merged.iter().find(|(name, all)| kept.get(*name) != Some(all)) {
        Some((name, _)) => {
            let problem = format!(
                "{name} connects the two halves, which two streams cannot: the network was trained as a single stream"
            );
            Err(Error::run(path, problem))
        }
        None => Ok(()),
    }
}

/// Fills a folder beside `out`, then renames it to `out`: an interrupted conversion is not a run.
fn write(out: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if out.is_file() || out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::run(out, "exists already; choose another name"));
    }
    let unfinished = make_beside(out)?;
    let written = fill(&unfinished).and_then(|()| disk::rename(&unfinished, out));
    if written.is_err() {
        // The user needs the free space now.
        let _ = std::fs::remove_dir_all(&unfinished);
    }
    written
}

/// Makes the folder that holds the new run until it is complete.
fn make_beside(out: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(out).map_err(Error::io("find", out))?;
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name().filter(|_| !out.ends_with("."))) else {
        return Err(Error::run(out, "is not a name for a new folder; give one that does not exist yet"));
    };
    let mut name = name.to_owned();
    name.push(".unfinished");
    let unfinished = folder.join(name);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    std::fs::create_dir(&unfinished).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::run(
            &unfinished,
            "exists: another conversion is running, or was killed; if none is running, remove it",
        ),
        _ => Error::io("create", &unfinished)(error),
    })?;
    Ok(unfinished)
}

fn network(recipe: &Recipe) -> Result<Pair<CpuBackend>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Pair::on_cpu(&Net::from_options(&recipe.net)?, 1, recipe.state_names().len(), threads, recipe.train.dropout)
}

fn streams(number: usize) -> &'static str {
    if number == 1 { "one stream" } else { "two streams" }
}
