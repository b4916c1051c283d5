//! `bench`: training speed by layer and pass, beside the machine's peak and PyTorch, measured in turn.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use alexnet_split::backend::cpu::peak::measure_peak_gflops;
use alexnet_split::backend::{AugmentShape, Precision, Window};
use alexnet_split::data::{Batch, Images};
use alexnet_split::error::{Error, Result};
use alexnet_split::net::pair::Pair;
use alexnet_split::net::plan::Plan;
use alexnet_split::net::spec::Net;
use alexnet_split::report::times::{Activity, Pass, StreamTimes};
use alexnet_split::rng::{Philox, Purpose};
use serde_json::{Value, json};

use super::place::{self, Place, on_place};
use crate::cli::BenchArgs;

/// One layer's row.
struct Row {
    name: String,
    /// By pass: milliseconds of the slower stream, and GFLOP/s of both streams by the direct count.
    passes: Vec<(f64, Option<f64>)>,
}

pub fn bench(args: &BenchArgs) -> Result<()> {
    let recipe = super::recipe(&args.recipe, "paper")?;
    let net = Net::from_options(&recipe.net)?;
    let n = recipe.train.batch_size;
    let place = place::choose(&args.device, net.streams);
    let threads = args.device.threads.map_or_else(rayon::current_num_threads, usize::from);
    let peak = matches!(place, Place::Cpu { .. }).then(|| measure_peak_gflops(threads));
    let (batch, input, mean) = random_batch(&net, n);
    let options = place::gpu_options(&args.device, None);
    let start_peer = |python| Peer::start(python, &place, options.precision, n, threads, net.classes());
    let mut peer = args.pytorch.as_deref().map(start_peer).transpose()?;
    let (mut ours_ms, mut theirs_ms) = (Vec::new(), Vec::new());
    let (plans, times, device) = on_place!(place, options, net.streams, |seats, about| {
        let mut pair = Pair::new(&net, seats, None, n, recipe.state_names().len(), recipe.train.dropout)?;
        pair.set_input(&input, &mean)?;
        pair.init(recipe.train.seed, recipe.init.weights, recipe.init.biases)?;
        for step in 0..=u64::from(args.steps) {
            let start = Instant::now();
            pair.forward_backward(&batch, recipe.train.seed, step)?;
            pair.update(|kind| recipe.update(kind, recipe.optimizer.lr * 1e-3, step + 1))?;
            pair.settle()?;
            if step == 0 {
                pair.reset_times(); // the warm-up
                continue;
            }
            ours_ms.push(start.elapsed().as_secs_f64() * 1e3);
            if let Some(peer) = &mut peer {
                theirs_ms.push(peer.step()?);
            }
        }
        (pair.plans().to_vec(), pair.times()?, about)
    });
    let rows = rows(&plans, &times, n);
    let macs: u64 = plans.iter().flat_map(|plan| &plan.layers).map(|layer| layer.macs()).sum();
    let first: u64 =
        plans.iter().flat_map(|plan| &plan.layers).filter(|layer| layer.x == 0).map(|layer| layer.macs()).sum();
    // Forward, weight gradient, and input gradient but for the first layer.
    let flops_per_image = 2. * (3 * macs - first) as f64;
    let speed = |ms: &[f64]| n as f64 * 1e3 / median(ms);
    let ours = speed(&ours_ms);
    let gflops = flops_per_image * ours / 1e9;
    if args.json {
        let layers: Vec<Value> = rows.iter().map(|row| json!({"layer": row.name, "ms": row.passes.iter().map(|p| p.0).collect::<Vec<_>>(), "gflops": row.passes.iter().map(|p| p.1).collect::<Vec<_>>()})).collect();
        let pytorch = peer.as_ref().map(|peer| json!({"images_per_s": speed(&theirs_ms), "ratio": ours / speed(&theirs_ms), "about": peer.about, "ms": theirs_ms}));
        println!(
            "{}",
            json!({"device": device, "batch_size": n, "images_per_s": ours, "step_ms": ours_ms, "gflops": gflops, "peak_gflops": peak, "passes": ["forward", "backward", "update"], "layers": layers, "pytorch": pytorch})
        );
        return Ok(());
    }
    println!("{device}; recipe {}, batch {n}, median of {} steps\n", recipe.name, args.steps);
    println!(
        "{:<8} {:>12} {:>9} {:>13} {:>9} {:>11}",
        "layer", "forward ms", "GFLOP/s", "backward ms", "GFLOP/s", "update ms"
    );
    for row in &rows {
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.0}"));
        let [forward, backward, update] = [row.passes[0], row.passes[1], row.passes[2]];
        println!(
            "{:<8} {:>12.1} {:>9} {:>13.1} {:>9} {:>11.1}",
            row.name,
            forward.0,
            rate(forward.1),
            backward.0,
            rate(backward.1),
            update.0
        );
    }
    println!(
        "\ntraining       {ours:.1} images/s ({:.1} to {:.1})",
        speed_of(n, &ours_ms, f64::max),
        speed_of(n, &ours_ms, f64::min)
    );
    let share = |peak| format!(", {:.0}% of the measured peak of {peak:.0}", 100. * gflops / peak);
    println!("arithmetic     {gflops:.0} GFLOP/s by direct convolution{}", peak.map_or(String::new(), share));
    match &peer {
        Some(peer) => {
            let theirs = speed(&theirs_ms);
            println!(
                "PyTorch        {theirs:.1} images/s ({:.1} to {:.1}), {}, step by step in turn",
                speed_of(n, &theirs_ms, f64::max),
                speed_of(n, &theirs_ms, f64::min),
                peer.about
            );
            println!("ratio          {:.2}", ours / theirs);
        }
        None => println!("PyTorch        not measured; give --pytorch PYTHON, a Python that has it"),
    }
    Ok(())
}

fn rows(plans: &[Plan], times: &[StreamTimes], n: usize) -> Vec<Row> {
    let row = |layer: usize| {
        let macs: u64 = plans.iter().map(|plan| plan.layers[layer].macs()).sum();
        let passes = Pass::ALL.iter().map(|&pass| {
            let ms = |times: &StreamTimes| {
                times.get(layer, pass, Activity::Compute).as_secs_f64() * 1e3 / times.steps.max(1) as f64
            };
            let slower = times.iter().map(ms).fold(0., f64::max);
            let products = match pass {
                Pass::Forward => 1,
                Pass::Backward if plans[0].layers[layer].x == 0 => 1,
                Pass::Backward => 2,
                Pass::Update => 0,
            };
            let flops = 2. * (products * macs * n as u64) as f64;
            (slower, (flops > 0.).then(|| flops / (slower * 1e6)))
        });
        Row { name: plans[0].layers[layer].name.to_string(), passes: passes.collect() }
    };
    (0..plans[0].layers.len()).map(row).collect()
}

/// Random bytes of the network's size, to be uploaded and turned into floats in every step as in training.
fn random_batch(net: &Net, n: usize) -> (Batch, AugmentShape, Vec<f32>) {
    let [c, h, w] = net.image;
    let rng = Philox::new(1, Purpose::Check, 2);
    let words = (0..(n * c * h * w).div_ceil(16) as u32).flat_map(|i| rng.block([i, 0, 0, 0]));
    let pixels = words.flat_map(u32::to_le_bytes).take(n * c * h * w).collect();
    let images = Images::Bytes(pixels, vec![Window { row: 0, col: 0, mirrored: false }; n]);
    let labels = (0..n).map(|i| (i % net.classes()) as u32).collect();
    (
        Batch { images, labels },
        AugmentShape { c, h, w, resize: h, channels: c, size: h, scale: 1. },
        vec![128.; c * h * w],
    )
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn speed_of(n: usize, ms: &[f64], worst: fn(f64, f64) -> f64) -> f64 {
    n as f64 * 1e3 / ms.iter().copied().reduce(worst).unwrap_or(f64::NAN)
}

/// scripts/bench_pytorch.py, which makes a step whenever it is sent a line.
struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    about: String,
}

impl Peer {
    /// Starts the script for the same kind of device and arithmetic as ours; it answers once it has chosen the fastest of
    /// its ways to run the network.
    fn start(
        python: &Path,
        place: &Place,
        precision: Precision,
        n: usize,
        threads: usize,
        classes: usize,
    ) -> Result<Peer> {
        let (device, precision) = match (place, precision) {
            (Place::Cpu { .. }, _) => ("cpu", "fp32"),
            (Place::Gpus(_), Precision::Fp32) => ("cuda", "fp32"),
            (Place::Gpus(_), Precision::Tf32) => ("cuda", "tf32"),
            (Place::Gpus(_), Precision::Bf16) => ("cuda", "bf16"),
        };
        let mut command = Command::new(python);
        command.arg(peer_script()?).args(["--serve", "--device", device, "--precision", precision]);
        for (flag, value) in [("--batch-size", n), ("--threads", threads), ("--classes", classes)] {
            command.arg(flag).arg(value.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Peer(format!("--pytorch: cannot run {}: {error}", python.display())))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Peer("--pytorch: no pipes to the script".into()));
        };
        let mut peer = Peer { child, to: Some(to), from: BufReader::new(from), about: String::new() };
        let hello = peer.answer()?;
        let said = |key: &str| hello[key].as_str().unwrap_or("?");
        let tried = hello["tried"].as_object().map_or(0, |tried| tried.len());
        let malloc = if hello["jemalloc"] == true { "jemalloc" } else { "the system's malloc" };
        peer.about = format!(
            "PyTorch {}, {} ({} on {}), the fastest of {tried} variants, {malloc}",
            said("torch"),
            said("variant"),
            said("precision"),
            said("device")
        );
        Ok(peer)
    }

    fn step(&mut self) -> Result<f64> {
        let sent = self.to.as_mut().map(|to| to.write_all(b"step\n").and_then(|()| to.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(Error::Peer("--pytorch: the script has ended".into()));
        }
        self.answer()?["ms"].as_f64().ok_or_else(|| Error::Peer("--pytorch: the script's answer has no \"ms\"".into()))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        let answer = read.ok().filter(|&bytes| bytes > 0).and_then(|_| serde_json::from_str(&line).ok());
        answer.ok_or_else(|| {
            Error::Peer(format!("--pytorch: scripts/bench_pytorch.py gave no answer {line:?}; see its message above"))
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.to = None; // end of input ends the script
        let _ = self.child.wait();
    }
}

/// Where the script is: in a checkout one works in, beside an installed program, or where this one was built.
fn peer_script() -> Result<PathBuf> {
    const SCRIPT: &str = "scripts/bench_pytorch.py";
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let beside = beside.iter().flat_map(|folder| [folder.join(SCRIPT), folder.join("..").join(SCRIPT)]);
    let mut places = vec![PathBuf::from(SCRIPT)];
    places.extend(beside);
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT));
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Error::Peer(format!("--pytorch: {SCRIPT} is missing; looked for {}", looked.join(", "))))
}
