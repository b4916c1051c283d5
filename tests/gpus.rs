//! Training on GPUs as a user does it, on the software CUDA device: one GPU, two, and two processes give the same bits;
//! every fault ends in its message and exit code, in time, with the last checkpoint intact.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use alexnet_split::backend::cuda::kernels::Exact;
use support::place::{Place, checkpoint, failed, metrics, output_within, succeeded};
use support::softgpu;
use support::tolerance::{LEARNED, MERGED};
use support::trace::tracks;

/// Longer than any healthy run here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The `--exchange-timeout` of tests in which something hangs.
const TIMEOUT: Duration = Duration::from_secs(4);

/// A training run of the tiny net on the software device, not yet started; `None` where there is no compiler.
fn train(place: &Place, args: &[&str], settings: &[(&str, &str)]) -> Option<Command> {
    let mut command = place.train_command(args);
    on_gpus(&mut command, settings)?;
    Some(command)
}

fn on_gpus<'a>(command: &'a mut Command, settings: &[(&str, &str)]) -> Option<&'a mut Command> {
    Some(softgpu::with_gpus(command, 2)?.envs(settings.iter().copied()))
}

/// The two processes of a run, by their commands and settings.
fn two_processes(commands: [Command; 2], settings: [&[(&str, &str)]; 2]) -> Option<[Command; 2]> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let meeting = [("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)];
    let mut commands = commands;
    for ((command, settings), rank) in commands.iter_mut().zip(settings).zip(["0", "1"]) {
        on_gpus(command, &[&meeting[..], &[("RANK", rank), ("LOCAL_RANK", rank)], settings].concat())?;
    }
    Some(commands)
}

fn both(commands: [Command; 2]) -> [Output; 2] {
    std::thread::scope(|scope| {
        let [mut zero, mut one] = commands;
        let other = scope.spawn(move || output_within(&mut one, PATIENCE));
        [output_within(&mut zero, PATIENCE), other.join().unwrap()]
    })
}

fn losses(run: &Path) -> Vec<(u64, f64)> {
    let rows = metrics(run);
    let rows = rows.iter().filter(|row| row["kind"] == "step" || row["kind"] == "eval");
    rows.map(|row| (row["step"].as_u64().unwrap(), row["loss"].as_f64().unwrap())).collect()
}

#[test]
fn one_gpu_two_gpus_and_two_processes_give_the_same_bits() {
    let place = Place::new();
    // Another order of streams, blocks and threads each time.
    let runs: [(&str, &[&str], &str); 4] = [
        ("one", &["--gpus", "1"], "1"),
        ("two", &["--gpus", "2", "--exchange", "nccl"], "2"),
        ("copies", &["--gpus", "2"], "3"),
        ("processes", &[], "4"),
    ];
    for (out, args, seed) in runs {
        let args = [args, &["--steps", "3", "--precision", "fp32", "--out", out]].concat();
        let settings: &[(&str, &str)] = &[("SOFTGPU_SEED", seed)];
        if out == "processes" {
            // Only process 0 gets the recipe.
            let commands = [place.train_command(&args), place.command(&[])];
            let Some(commands) = two_processes(commands, [settings, settings]) else { return };
            let [zero, one] = both(commands).map(succeeded);
            assert!(zero.contains("held-out accuracy") && zero.contains("hidden behind computing"), "{zero}");
            assert_eq!(one, "", "process 0 reports");
        } else {
            let Some(mut command) = train(&place, &args, settings) else { return };
            let text = succeeded(output_within(&mut command, PATIENCE));
            assert!(text.contains("software device") && text.contains("hidden behind computing"), "{text}");
        }
        assert_eq!(losses(&place.path(out)), losses(&place.path("one")), "{out}");
        assert_eq!(checkpoint(&place.path(out)), checkpoint(&place.path("one")), "{out}");
    }

    succeeded(place.train(&["--gpus", "0", "--steps", "3", "--out", "cpu"]));
    for (gpu, cpu) in losses(&place.path("one")).iter().zip(losses(&place.path("cpu"))) {
        assert_eq!(gpu.0, cpu.0);
        assert!((gpu.1 - cpu.1).abs() <= MERGED * cpu.1, "step {}: {} on GPUs, {} on the CPU", cpu.0, gpu.1, cpu.1);
    }

    // Stopped and resumed elsewhere, in the precision that the run was begun in: the same bits again.
    let steps = |run: &str, args: &[&str]| {
        let mut command = place.command(&[&["--resume", run], args].concat());
        on_gpus(&mut command, &[]).map(|command| succeeded(output_within(command, PATIENCE)))
    };
    let args = ["--gpus", "2", "--steps", "1", "--precision", "fp32", "--out", "parts"];
    let Some(mut command) = train(&place, &args, &[]) else { return };
    succeeded(output_within(&mut command, PATIENCE));
    steps("parts", &["--gpus", "1", "--steps", "2"]);
    let other = ["--resume", "parts", "--gpus", "1", "--precision", "bf16", "--steps", "3"];
    place.fails(&other, 2, &["--precision", "fp32", "omit the flag"]);
    // The same command again, without the flag, keeps the precision, too.
    let again = ["--gpus", "1", "--out", "parts", "--continue", "--steps", "2"];
    let Some(mut command) = train(&place, &again, &[]) else { return };
    let text = succeeded(output_within(&mut command, PATIENCE));
    assert!(text.contains("fp32") && text.contains("nothing to do"), "{text}");
    let resume = place.command(&["--resume", "parts", "--steps", "3"]);
    let Some(commands) = two_processes([resume, place.command(&[])], [&[], &[]]) else { return };
    let [_, _] = both(commands).map(succeeded);
    assert_eq!(checkpoint(&place.path("parts")), checkpoint(&place.path("one")));
    // And on to the CPU, which reads what the GPUs wrote.
    place.ok(&["--resume", "parts", "--gpus", "0", "--steps", "4"]);
}

#[test]
fn gpus_that_reach_each_other_copy_and_others_use_nccl() {
    let place = Place::new();
    for (reach, transport) in [("1", "device copies"), ("0", "NCCL 2.")] {
        let args = ["--gpus", "2", "--steps", "1", "--precision", "fp32", "--out", reach];
        let Some(mut command) = train(&place, &args, &[("SOFTGPU_PEER", reach)]) else { return };
        let text = succeeded(output_within(&mut command, PATIENCE));
        assert!(text.contains(&format!("exchange by {transport}")), "{text}");
    }
    assert_eq!(checkpoint(&place.path("0")), checkpoint(&place.path("1")));
}

#[test]
fn tensor_cores_give_the_same_bits_on_one_gpu_and_two() {
    let place = Place::new();
    for precision in ["tf32", "bf16"] {
        for gpus in ["1", "2"] {
            let out = format!("{precision}-{gpus}");
            let args = ["--gpus", gpus, "--precision", precision, "--steps", "2", "--out", &out];
            let Some(mut command) = train(&place, &args, &[("SOFTGPU_SEED", gpus)]) else { return };
            let text = succeeded(output_within(&mut command, PATIENCE));
            assert!(text.contains(precision), "{text}");
        }
        let [one, two] = ["1", "2"].map(|gpus| place.path(&format!("{precision}-{gpus}")));
        assert_eq!(losses(&one), losses(&two), "{precision}");
        assert_eq!(checkpoint(&one), checkpoint(&two), "{precision}");
    }
    assert_ne!(losses(&place.path("tf32-1")), losses(&place.path("bf16-1")));
}

#[test]
fn bf16_learns_as_fp32_does() {
    let place = Place::new();
    // Enough for the loss to fall well below ln 10; one GPU, since two give the same bits; tf32 rounds less than bf16.
    let learn = &|precision: &str| {
        let learning = ["--steps", "30", "--epochs", "6", "--set", "optimizer.kind=adam", "--lr", "0.005"];
        let args = [&["--gpus", "1", "--precision", precision, "--out", precision][..], &learning].concat();
        succeeded(output_within(&mut train(&place, &args, &[])?, PATIENCE));
        let rows = metrics(&place.path(precision));
        rows.last().map(|row| (row["loss"].as_f64().unwrap(), row["top1_error"].as_f64().unwrap()))
    };
    let learned = std::thread::scope(|scope| {
        let running = ["fp32", "bf16"].map(|precision| scope.spawn(move || learn(precision)));
        running.map(|thread| thread.join().unwrap())
    });
    eprintln!("held-out loss and error: {learned:?}");
    let [Some(fp32), Some(bf16)] = learned else { return };
    for (precision, (loss, error)) in [("fp32", fp32), ("bf16", bf16)] {
        assert!(loss < 1.95 && error <= 0.6, "{precision}: loss {loss}, error {error}; chance is 2.303 and 0.9");
        assert!((loss - fp32.0).abs() < LEARNED, "{precision}: loss {loss}, fp32's is {}", fp32.0);
    }
}

/// A run that stands at step 1, for something to go wrong with.
fn begun() -> Place {
    let place = Place::new();
    succeeded(place.train(&["--gpus", "0", "--steps", "1", "--out", "run"]));
    place
}

/// Goes on with the run, which must fail so within `patience` and leave its checkpoint as it was.
fn goes_wrong(
    place: &Place,
    args: &[&str],
    settings: &[(&str, &str)],
    code: i32,
    parts: &[&str],
    patience: Duration,
) -> Option<()> {
    let before = checkpoint(&place.path("run"));
    let mut command = place.command(&[&["--resume", "run", "--steps", "3"], args].concat());
    on_gpus(&mut command, settings)?;
    let start = Instant::now();
    failed(output_within(&mut command, patience), code, parts);
    eprintln!("{settings:?}: {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(checkpoint(&place.path("run")), before, "{settings:?}");
    Some(())
}

#[test]
fn what_a_machine_lacks_is_said() {
    let place = begun();
    let check = |args: &[&str], setting: (&str, &str), code: i32, parts: &[&str]| {
        goes_wrong(&place, args, &[setting], code, parts, PATIENCE)
    };
    let (one, two) = (["--gpus", "1"], ["--gpus", "2"]);
    if check(&two, ("SOFTGPU_DEVICES", "0"), 11, &["2 GPUs asked for, 0 found", "--gpus 0"]).is_none() {
        return;
    }
    check(&two, ("SOFTGPU_DEVICES", "1"), 11, &["2 GPUs asked for, 1 found", "--gpus 1"]);
    check(&one, ("SOFTGPU_CAPABILITY", "75"), 12, &["7.5", "8.0"]);
    check(&one, ("SOFTGPU_MEMORY_MB", "1"), 15, &["memory", "--batch-size"]);
    check(&["--gpus", "2", "--exchange", "copy"], ("SOFTGPU_PEER", "0"), 16, &["--exchange nccl"]);

    // A folder with a driver, but not what else is needed.
    let (folder, all) = (place.path("libraries"), softgpu::folder().unwrap());
    std::fs::create_dir(&folder).unwrap();
    let bring = |name: &str| symlink(all.join(name), folder.join(name)).unwrap();
    bring("libcuda.so");
    let setting = ("ALEXNET_SPLIT_LIBRARIES", folder.to_str().unwrap());
    if softgpu::has_library("libnvrtc.so") || softgpu::has_library("libnccl.so.2") {
        eprintln!("skipped: this machine has CUDA's libraries, which would be found instead");
        return;
    }
    check(&one, setting, 13, &["NVRTC", "pip install"]);
    bring("libnvrtc.so");
    check(&["--gpus", "2", "--exchange", "nccl"], setting, 14, &["NCCL", "pip install", "--exchange copy"]);
}

#[test]
fn every_fault_ends_in_its_message_in_time() {
    let place = begun();
    let empty_cache = place.path("cache");
    let timeout = TIMEOUT.as_secs().to_string();
    let args = ["--gpus", "2", "--exchange", "nccl", "--exchange-timeout", &timeout];
    let check = |fault: &str, code: i32, parts: &[&str]| {
        let settings = [("SOFTGPU_FAULT", fault)];
        goes_wrong(&place, &args, &settings, code, parts, PATIENCE)
    };
    if check("oom:40", 15, &["out of memory"]).is_none() {
        return;
    }
    check("launch:conv_backward_weight:3", 17, &["conv_backward_weight"]);
    check("launch:conv_backward_weight:3,slow-abort", 17, &["conv_backward_weight"]);
    // The twentieth exchange is one of the first step's.
    check("nccl-error:1:20", 18, &["rank 1", "for layer", ", step "]);
    check("nccl-hang:0:20", 18, &["rank", "for layer", ", step ", "within 4 s", "--exchange-timeout"]);
    check("stall:1:20", 18, &["rank 1", "for layer", ", step ", "does not return"]);
    let settings = [("SOFTGPU_FAULT", "compile"), ("ALEXNET_SPLIT_CACHE", empty_cache.to_str().unwrap())];
    goes_wrong(&place, &args, &settings, 13, &["told to fail"], PATIENCE);
}

#[test]
fn two_processes_end_when_one_does() {
    let place = begun();
    let before = checkpoint(&place.path("run"));
    let timeout = TIMEOUT.as_secs().to_string();
    let start = |settings: [&[(&str, &str)]; 2]| {
        let zero = place.command(&["--resume", "run", "--steps", "3", "--exchange-timeout", &timeout]);
        two_processes([zero, place.command(&["--exchange-timeout", &timeout])], settings)
    };
    // Killed in the middle of an exchange.
    let Some(commands) = start([&[], &[("SOFTGPU_FAULT", "die:1:20")]]) else { return };
    let [zero, one] = both(commands);
    assert_eq!(one.status.code(), Some(66), "{one:?}");
    failed(zero, 18, &["rank 0", "for layer", ", step ", "remote process"]);
    // Hangs: both say so.
    let Some(commands) = start([&[], &[("SOFTGPU_FAULT", "nccl-hang:1:20")]]) else { return };
    for output in both(commands) {
        failed(output, 18, &["rank", "for layer", ", step "]);
    }
    // Has no room for its half.
    let Some(commands) = start([&[], &[("SOFTGPU_MEMORY_MB", "1")]]) else { return };
    let [zero, one] = both(commands);
    failed(one, 15, &["out of memory"]);
    failed(zero, 18, &["rank 0", "remote process"]);
    // Cannot compile its kernels: known before the two meet.
    let empty_cache = place.path("cache");
    let settings = [("SOFTGPU_FAULT", "compile"), ("ALEXNET_SPLIT_CACHE", empty_cache.to_str().unwrap())];
    let Some(commands) = start([&[], &settings]) else { return };
    let [zero, one] = both(commands);
    failed(one, 13, &["told to fail"]);
    failed(zero, 19, &["process 1 has ended", "see its message"]);
    // Never comes.
    let Some([mut zero, _]) = start([&[], &[]]) else { return };
    failed(output_within(&mut zero, PATIENCE), 19, &["process 1 cannot be reached", "MASTER_PORT"]);
    assert_eq!(checkpoint(&place.path("run")), before);
}

#[test]
fn a_process_that_sees_one_gpu_uses_it() {
    let place = Place::new();
    let zero = place.train_command(&["--out", "run", "--steps", "1"]);
    // As `srun --gpus-per-task 1` and a launcher that sets CUDA_VISIBLE_DEVICES do.
    let alone: &[(&str, &str)] = &[("SOFTGPU_DEVICES", "1")];
    let Some(commands) = two_processes([zero, place.command(&[])], [alone, alone]) else { return };
    let [zero, _] = both(commands).map(succeeded);
    assert!(zero.contains("process 0 of 2"), "{zero}");
}

/// A driver takes machine code of its own major version of CUDA and of older ones.
#[test]
fn kernels_are_compiled_for_the_driver_that_is_there() {
    let place = Place::new();
    let cache = place.path("cache");
    let run = |driver: &str, nvrtc: &str, out: &str| {
        let settings =
            [("SOFTGPU_DRIVER", driver), ("SOFTGPU_NVRTC", nvrtc), ("ALEXNET_SPLIT_CACHE", cache.to_str().unwrap())];
        train(&place, &["--out", out, "--steps", "1", "--gpus", "1"], &settings)
            .map(|mut command| output_within(&mut command, PATIENCE))
    };
    let Some(output) = run("12040", "13", "newer") else { return };
    failed(output, 13, &["NVRTC 13.99", "a driver for CUDA 12", "nvidia-cuda-nvrtc-cu12"]);
    run("12040", "12", "same").map(succeeded);
    run("13000", "12", "older").map(succeeded);
}

#[test]
fn the_timeline_of_two_gpus_comes_from_their_clocks() {
    let place = Place::new();
    let args = ["--out", "run", "--steps", "2", "--gpus", "2", "--trace", "trace.json"];
    let Some(mut command) = train(&place, &args, &[]) else { return };
    succeeded(output_within(&mut command, PATIENCE));
    let tracks = tracks(&place.path("trace.json"));
    for stream in ["stream 0", "stream 1"] {
        let find = |name: &str| &tracks.values().find(|(track, _)| track == name).unwrap().1;
        let (spans, exchanges) = (find(stream), find(&format!("{stream}: exchange")));
        let count = |what: &str| spans.iter().filter(|(_, _, name)| name == what).count();
        assert_eq!((count("step 2"), count("backward"), count("fc6")), (1, 2, 2 * 3), "{spans:?}");
        assert!(exchanges.iter().filter(|(_, _, name)| name == "conv3 backward").count() == 2, "{exchanges:?}");
        let step = spans.iter().find(|(_, _, name)| name == "step 2").unwrap();
        assert!(exchanges.iter().any(|(from, to, _)| *from >= step.0 && *to <= step.1), "within the step");
    }
}

#[test]
fn a_signal_to_one_process_ends_both_at_the_same_step() {
    let place = Place::new();
    let zero = place.train_command(&["--out", "run", "--epochs", "100"]);
    let Some(commands) = two_processes([zero, place.command(&[])], [&[], &[]]) else { return };
    let piped = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let [zero, one] = commands.map(piped);
    let until = Instant::now() + PATIENCE;
    while std::fs::read_to_string(place.path("run/metrics.jsonl")).map_or(0, |text| text.lines().count()) < 2 {
        assert!(Instant::now() < until, "no steps");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &one.id().to_string()]).status().unwrap().success());
    let [zero, one] = [zero, one].map(|child| child.wait_with_output().unwrap());
    let steps = losses(&place.path("run")).last().unwrap().0;
    let step = format!("after step {steps}");
    failed(zero, 143, &["SIGTERM", &step, "--resume run"]);
    failed(one, 143, &["SIGTERM", &step]);
    let eval = place.ok(&["eval", "run", "--gpus", "0"]);
    assert!(eval.contains(&format!("step {steps}:")), "{eval}");
}

#[test]
fn compiled_kernels_are_kept_safely() {
    let place = begun();
    let kept = place.path("kernels");
    let entries = || {
        let mut entries: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&kept)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        entries.sort();
        entries
    };
    let look = |folder: &Path| {
        let mut command = place.command(&["eval", "run", "--gpus", "1"]);
        let command = on_gpus(&mut command, &[("ALEXNET_SPLIT_CACHE", folder.to_str().unwrap())])?;
        Some(succeeded(output_within(command, PATIENCE)))
    };
    let Some(first) = look(&kept) else { return };
    let whole = entries();
    assert_eq!(whole.len(), Exact::SOURCES.len(), "one a file");
    // Cut short, a bit flipped, empty, and what another program left there: each is made anew.
    std::fs::write(&whole[0].0, &whole[0].1[..whole[0].1.len() - 1]).unwrap();
    let mut flipped = whole[1].1.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&whole[1].0, flipped).unwrap();
    std::fs::write(&whole[2].0, b"").unwrap();
    std::fs::write(&whole[3].0, [0xff; 100]).unwrap();
    // By two processes at once.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| look(&kept));
        assert_eq!(look(&kept).unwrap(), first);
        assert_eq!(other.join().unwrap().unwrap(), first);
    });
    let names = |entries: &[(PathBuf, Vec<u8>)]| entries.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&entries()), names(&whole), "no temporary files are left");
    for (path, bytes) in entries() {
        assert!(bytes.len() > 1000 && bytes[..8] == whole.iter().find(|(name, _)| *name == path).unwrap().1[..8]);
    }
    // Nothing can be kept below a file, as in a home that is read-only.
    let file = place.path("file");
    std::fs::write(&file, b"").unwrap();
    assert_eq!(look(&file.join("kernels")).unwrap(), first);
}
