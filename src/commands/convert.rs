//! `convert`: the same network in one stream in place of two, or in two in place of one.

use std::path::{Path, PathBuf};

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::disk;
use alexnet_split::error::{Error, Result};
use alexnet_split::net::merge::{fill_groups, merge, split, take_groups};
use alexnet_split::net::pair::Pair;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::Net;
use alexnet_split::net::stream::Tensor;
use alexnet_split::recipe::Recipe;
use alexnet_split::train::checkpoint::{self, Keep};
use alexnet_split::train::run_dir::{self, RunDir};
use serde_json::json;

use crate::cli::ConvertArgs;

pub fn convert(args: &ConvertArgs) -> Result<()> {
    let (path, mut state) = checkpoint::find(&args.run)?;
    let run = checkpoint::run_of(&path);
    let (recipe, info) = (run_dir::load_recipe(&run)?, run_dir::load_info(&run)?);
    let mut converted = recipe.clone();
    converted.net.streams = Some(3 - state.streams);
    let (mut from, mut to) = (network(&recipe)?, network(&converted)?);
    let mean = checkpoint::load(&path, &state, &mut from, recipe.state_names())?;

    let states = (0..recipe.state_names().len()).map(Tensor::State);
    for tensor in [Tensor::Value].into_iter().chain(states) {
        let merged = merge(&mut from, tensor)?;
        if state.streams == 2 {
            split(&mut to, tensor, &fill_groups(merged, from.plans()))?;
        } else {
            let halves = take_groups(merged.clone(), to.plans());
            split(&mut to, tensor, &halves)?;
            let kept = fill_groups(merge(&mut to, tensor)?, to.plans());
            if let Some(name) = merged.iter().find_map(|(name, all)| (kept.get(name) != Some(all)).then_some(name)) {
                let problem = format!("{name} connects the halves, which two streams do not: it was trained as one");
                return Err(Error::run(&path, problem));
            }
        }
    }
    state.streams = 3 - state.streams;
    state.files.clear();
    let step = state.step;
    if args.out.is_file() || args.out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::run(&args.out, "is there already; give another name"));
    }
    // Beside it first: a conversion that does not come to its end is no run.
    let mut unfinished = args.out.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    remove(&unfinished)?;
    let snapshot = checkpoint::snapshot(state, &mut to, converted.state_names(), &mean)?;
    let what = format!("{} of step {step}, converted from {}", streams(to.plans().len()), path.display());
    let made = (|| {
        let keep = Keep { newest: 1, good: None };
        let write = || snapshot.map_or(Ok(()), |snapshot| snapshot.write(&unfinished, keep).map(drop));
        let mut made = RunDir::create(&unfinished, &converted, &info, write)?;
        made.journal("start", &json!({"step": step, "command": ["convert"], "version": env!("CARGO_PKG_VERSION")}))?;
        made.journal("end", &json!({"step": step, "how": "finished", "exit_code": 0, "message": what}))?;
        drop(made);
        disk::rename(&unfinished, &args.out)
    })();
    if made.is_err() {
        // What room there is, the user needs now.
        let _ = remove(&unfinished);
    }
    made?;
    outln!("wrote {}: {what}", args.out.display());
    if to.plans().iter().any(|plan| plan.layers.iter().any(|layer| matches!(layer.op, Op::Lrn(_)))) {
        outln!(
            "A single stream normalizes over the border between the halves: the two channels on each side of it differ."
        );
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder).map_err(Error::io("remove", folder)) } else { Ok(()) }
}

fn network(recipe: &Recipe) -> Result<Pair<CpuBackend>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Pair::on_cpu(&Net::from_options(&recipe.net)?, 1, recipe.state_names().len(), threads, recipe.train.dropout)
}

fn streams(number: usize) -> &'static str {
    if number == 1 { "one stream" } else { "two streams" }
}
