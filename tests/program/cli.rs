//! The command line on good and on bad input: what it prints, what it leaves behind, and its exit code.

use crate::support::place::{Place, TINY, checkpoint, failed, metrics, succeeded};
use crate::support::tolerance::LEARNED;

#[test]
fn describe_gives_the_papers_counts() {
    let place = Place::new();
    let text = place.ok(&["describe"]);
    for count in ["60,965,224", "724,406,816", "234,496"] {
        assert!(text.contains(count), "{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&place.ok(&["describe", "--json"])).unwrap();
    assert_eq!(json["network"]["parameters"], 60_965_224);
    assert_eq!(json["network"]["multiply_adds"], 724_406_816);
    assert_eq!(json["network"]["exchanged_bytes"], 234_496);
    // The halves of a split fc8 exchange fc7 both ways, 8,192 bytes more.
    let split: serde_json::Value =
        serde_json::from_str(&place.ok(&["describe", "--json", "--set", "net.fc8=split"])).unwrap();
    assert_eq!(split["network"]["exchanged_bytes"], 234_496 + 8_192);
    assert_eq!(split["network"]["parameters"], 60_965_224);
}

#[test]
fn describe_gives_the_textbook_nets_shapes() {
    let place = Place::new();
    let fashion =
        place.ok(&["describe", "--recipe", "fashion", "--set", "net.image_channels=1", "--set", "net.classes=10"]);
    for shape in ["96x54x54", "256x26x26", "256x5x5", "26,218,496"] {
        assert!(fashion.contains(shape), "no {shape} in\n{fashion}");
    }
    let half = place.ok(&["describe", "--recipe", "half"]);
    for shape in ["48x55x55", "128x27x27", "128x6x6", "2048"] {
        assert!(half.contains(shape), "no {shape} in\n{half}");
    }
}

#[test]
fn a_run_leaves_recipe_metrics_and_a_checkpoint_that_other_commands_read() {
    let place = Place::new();
    let text = succeeded(place.train(&["--out", "run", "--epochs", "2"]));
    assert!(
        text.contains("both streams emulated") && text.contains("held-out accuracy") && text.contains("exchanging"),
        "{text}"
    );
    let rows = metrics(&place.path("run"));
    let steps: Vec<_> = rows.iter().filter(|row| row["kind"] == "step").collect();
    assert_eq!(steps.len(), 10);
    for key in ["step", "epoch", "loss", "lr", "images_per_s"] {
        assert!(steps.iter().all(|row| row[key].is_number()), "{key}: {steps:?}");
    }
    let evals: Vec<_> = rows.iter().filter(|row| row["kind"] == "eval").collect();
    assert_eq!(evals.len(), 2);
    for key in ["step", "epoch", "loss", "top1_error", "top5_error"] {
        assert!(evals.iter().all(|row| row[key].is_number()), "{key}: {evals:?}");
    }
    let recipe = std::fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    assert!(recipe.contains("image_channels = 1") && recipe.contains("classes = 10"), "{recipe}");
    let names: Vec<_> = checkpoint(&place.path("run")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["checkpoint.json", "stream0.safetensors", "stream1.safetensors"]);

    let eval: serde_json::Value = serde_json::from_str(&place.ok(&["eval", "run", "--json"])).unwrap();
    assert_eq!(eval["top1_error"], evals[1]["top1_error"]);
    assert_eq!(eval["loss"], evals[1]["loss"]);
    let shown = place.ok(&["predict", "run", "3"]);
    assert!(shown.contains("labelled class 3") && shown.contains('%'), "{shown}");
    assert_eq!(place.ok(&["predict", "run", "--json"]).lines().count(), 5);
    place.ok(&["export", "run", "merged.safetensors"]);
    let file = std::fs::read(place.path("merged.safetensors")).unwrap();
    let merged = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(merged.tensor("conv2.weight").unwrap().shape(), [12, 4, 5, 5], "grouped");
    assert_eq!(merged.tensor("conv3.weight").unwrap().shape(), [16, 12, 3, 3], "reads both");
    assert_eq!(merged.tensor("fc8.weight").unwrap().shape(), [10, 20]);
    assert_eq!(merged.tensor("check.images").unwrap().shape(), [2, 1, 67, 67]);
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_was_never_stopped() {
    let place = Place::new();
    // Adam has two state tensors and the step in its formula; random crops and flips, dropout, and a schedule.
    let hard = [
        "--set",
        "optimizer.kind=adam",
        "--set",
        "input.resize=72",
        "--set",
        "input.crop=random",
        "--set",
        "input.flip=true",
        "--set",
        "schedule.drops=2",
        "--lr",
        "0.002",
    ];
    for recipe in [&[][..], &hard] {
        let train = |args: &[&str]| succeeded(place.train(&[recipe, args].concat()));
        train(&["--out", "whole", "--epochs", "3"]);
        train(&["--out", "parts", "--epochs", "3", "--steps", "3"]); // within the first epoch
        place.ok(&["--resume", "parts", "--steps", "5"]); // at its end
        place.ok(&["--resume", "parts", "--steps", "7", "--threads", "1"]);
        place.ok(&["--resume", "parts"]);
        assert_eq!(checkpoint(&place.path("parts")), checkpoint(&place.path("whole")));
        let losses = |run: &str| -> Vec<(u64, f64)> {
            let rows = metrics(&place.path(run));
            rows.iter()
                .filter(|row| row["kind"] == "step")
                .map(|row| (row["step"].as_u64().unwrap(), row["loss"].as_f64().unwrap()))
                .collect()
        };
        assert_eq!(losses("parts"), losses("whole"));
        std::fs::remove_dir_all(place.path("whole")).unwrap();
        std::fs::remove_dir_all(place.path("parts")).unwrap();
    }
}

#[test]
fn json_prints_the_metrics() {
    let place = Place::new();
    let text = succeeded(place.train(&["--out", "run", "--steps", "2", "--json"]));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        rows.iter().map(|row| row["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["start", "step", "step", "eval"]
    );
    let kept = metrics(&place.path("run")).into_iter().filter(|row| row["kind"] == "step" || row["kind"] == "eval");
    assert_eq!(rows[1..], kept.collect::<Vec<_>>(), "the lines of metrics.jsonl");
}

#[test]
fn check_grads_passes_and_bench_measures() {
    let place = Place::new();
    let text = place.ok(&["check-grads"]);
    assert!(text.contains("conv3.weight.theirs") && text.contains("ok") && !text.contains("WRONG"), "{text}");
    let tiny = [
        "--set",
        "net.image_size=67",
        "--set",
        "net.conv_channels=[8,12,16,16,12]",
        "--set",
        "net.dense_units=[24,20]",
    ];
    let args = [&["bench", "--batch-size", "4", "--steps", "2", "--json"], &tiny[..]].concat();
    let bench: serde_json::Value = serde_json::from_str(&place.ok(&args)).unwrap();
    for key in ["images_per_s", "peak_gflops", "peak_gb_per_s"] {
        assert!(bench[key].as_f64().unwrap() > 0., "{key}: {bench}");
    }
    std::fs::write(place.path("before.json"), bench.to_string()).unwrap();
    let args = [&["bench", "--batch-size", "4", "--steps", "2", "--compare", "before.json"], &tiny[..]].concat();
    let text = place.ok(&args);
    assert!(text.contains("times as fast as before") && text.contains("conv3") && text.contains("GB/s"), "{text}");
    let args = [&["bench", "--batch-size", "4", "--steps", "2", "--inference"], &tiny[..]].concat();
    assert!(place.ok(&args).contains("inference"));
    place.fails(&["bench", "--compare", "data/nothing.json"], 1, &["data/nothing.json"]);
    place.fails(&["bench", "--compare", "data/train-labels-idx1-ubyte"], 3, &["train-labels"]);
}

#[test]
fn bf16_on_the_cpu_learns_as_fp32_does() {
    let place = Place::new();
    // Channels as the fast convolutions want them.
    let learning =
        "--steps 50 --epochs 10 --set optimizer.kind=adam --lr 0.005 --set net.conv_channels=[32,32,64,64,32]";
    let learn = |precision: &str| {
        let args = [
            &["--gpus", "0", "--precision", precision, "--out", precision],
            &learning.split(' ').collect::<Vec<_>>()[..],
        ];
        let output = place.train(&args.concat());
        if output.status.code() == Some(5) && String::from_utf8_lossy(&output.stderr).contains("AVX512_BF16") {
            eprintln!("skipped: this CPU has no AVX512_BF16");
            return None;
        }
        assert_eq!(succeeded(output).contains("bf16"), precision == "bf16");
        metrics(&place.path(precision)).last().map(|row| row["loss"].as_f64().unwrap())
    };
    let [Some(fp32), Some(bf16)] = ["fp32", "bf16"].map(learn) else { return };
    eprintln!("held-out loss: fp32 {fp32}, bf16 {bf16}");
    assert!(fp32 < 1.95 && (bf16 - fp32).abs() < LEARNED && bf16 != fp32, "fp32 {fp32}, bf16 {bf16}; chance is 2.303");
}

#[test]
fn without_a_gpu_the_cpu_is_used_and_asking_for_gpus_is_an_error() {
    let place = Place::new();
    place.fails(&["--gpus", "0", "--precision", "tf32"], 5, &["--precision", "fp32", "GPU"]);
    let mut narrow = place.command(&["--gpus", "0", "--precision", "bf16"]);
    narrow.env("ALEXNET_SPLIT_SIMD", "avx2");
    failed(narrow.output().unwrap(), 5, &["--precision", "AVX512_BF16", "fp32", "GPU"]);
    for gpus in ["1", "2"] {
        let output = place.run(&["--gpus", gpus]);
        match output.status.code() {
            Some(10) => failed(output, 10, &["no NVIDIA driver was found", "--gpus 0"]),
            _ => failed(output, 11, &["asked for, 0 found", "--gpus 0"]),
        }
    }
    let doctor = place.run(&["doctor"]);
    assert!(matches!(doctor.status.code(), Some(10 | 11)), "{doctor:?}");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("MISSING"), "{doctor:?}");
    assert!(succeeded(place.train(&["--steps", "1", "--out", "chosen"])).contains("no GPU found"));
    place.fails(&["--gpus", "3"], 2, &["3"]);
    let text = succeeded(place.train(&["--gpus", "0", "--steps", "1", "--out", "run"]));
    assert!(text.contains("both streams emulated") && !text.contains("no GPU found"), "{text}");
}

#[test]
fn wrong_recipes_and_networks_are_named() {
    let place = Place::new();
    place.fails(&["--recipe", "fast"], 2, &["fast", "quick"]);
    place.fails(&["--set", "optimizer.rate=1"], 2, &["optimizer.rate", "unknown field"]);
    place.fails(&["--set", "net.fc8=left"], 2, &["net.fc8", "stream0"]);
    place.fails(&["--set", "net.image_size=40"], 2, &["layer", "window does not fit", "larger image"]);
    place.fails(&["--set", "net.conv_channels=[95,256,384,384,256]"], 2, &["conv1", "95"]);
    place.fails(&["--set", "net.image_size=256"], 2, &["input.resize", "224"]);
    std::fs::write(place.path("mine.toml"), "base = \"quick\"\n[optimizer]\nspeed = 3\n").unwrap();
    place.fails(&["--recipe", "mine.toml"], 2, &["mine.toml", "speed"]);
    std::fs::write(place.path("mine.toml"), place.ok(&["describe", "--recipe", "half", "--toml"])).unwrap();
    assert!(place.ok(&["describe", "--recipe", "mine.toml"]).contains("48x55x55"));
    std::fs::write(place.path("mine.toml"), "base = \"quick\"\n[train]\nbatch_size = 16\n").unwrap();
    failed(place.run(&["--recipe", "mine.toml", "--data", "data", "--batch-size", "81"]), 2, &["81", "80 images"]);
}

#[test]
fn wrong_data_names_the_file() {
    let place = Place::new();
    place.fails(&["--data", "nowhere"], 3, &["nowhere", "no such folder"]);
    let images = place.path("data/train-images-idx3-ubyte");
    let good = std::fs::read(&images).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (&good[..good.len() - 1], "truncated"),
        (&good[..10], "truncated"),
        (&[&[0, 0, 8, 1], &good[4..]].concat(), "wrong magic number 0x00000801"),
        (&[&good[..], &[0]].concat(), "longer"),
    ];
    for (bytes, problem) in cases {
        std::fs::write(&images, bytes).unwrap();
        failed(place.train(&[]), 3, &["train-images-idx3-ubyte", problem]);
    }
    std::fs::write(&images, &good).unwrap();
    std::fs::write(place.path("data/classes.txt"), "one\ntwo\n").unwrap();
    failed(place.train(&[]), 3, &["label 9 is out of range", "2 classes"]);
    std::fs::remove_file(place.path("data/classes.txt")).unwrap();
    std::fs::write(place.path("data/train-labels-idx1-ubyte.gz"), b"not gzip").unwrap();
    std::fs::remove_file(place.path("data/train-labels-idx1-ubyte")).unwrap();
    failed(place.train(&[]), 3, &["train-labels-idx1-ubyte.gz", "wrong magic number"]);
    std::fs::remove_file(place.path("data/train-labels-idx1-ubyte.gz")).unwrap();
    failed(place.train(&[]), 3, &["train-labels-idx1-ubyte", "no such file"]);
    assert!(!place.path("runs").exists(), "nothing was trained");
}

#[test]
fn run_directories_are_protected() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "2"]));
    let before = checkpoint(&place.path("run"));
    failed(place.train(&["--out", "run"]), 4, &["already holds a run", "--resume"]);
    // The lock that a running process holds.
    let lock = std::fs::File::options().write(true).open(place.path("run/lock")).unwrap();
    lock.lock().unwrap();
    place.fails(&["--resume", "run"], 4, &["in use"]);
    lock.unlock().unwrap();
    place.fails(&["--resume", "nowhere"], 4, &["nowhere"]);
    place.fails(&["eval", "data"], 4, &["no checkpoint"]);
    // A checkpoint of another network.
    let recipe = place.path("run/recipe.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text.replace("24", "26")).unwrap();
    place.fails(&["--resume", "run", "--steps", "3"], 4, &["another network", "fc6.weight.own"]);
    std::fs::write(&recipe, text).unwrap();
    assert_eq!(checkpoint(&place.path("run")), before);
    // A damaged one.
    let file = place.path("run/checkpoints/step-00000002/stream1.safetensors");
    std::fs::write(&file, &before[2].1[..100]).unwrap();
    place.fails(&["eval", "run"], 4, &["stream1.safetensors", "damaged"]);
    let newest = std::fs::read_dir(place.path("run/checkpoints")).unwrap().next().unwrap().unwrap().path();
    place.fails(&["--resume", newest.to_str().unwrap()], 4, &["is a checkpoint", "--resume", "run"]);
}

#[test]
fn a_diverged_run_stops_before_the_update_and_keeps_the_last_checkpoint() {
    let place = Place::new();
    // The first step is fine, its update is not.
    let every = ["--lr", "1e30", "--set", "train.checkpoint_steps=1"];
    let parts = ["loss is", "step-00000001", "--lr", "--on-nan", "bad-loss-step-00000002.json"];
    failed(place.train(&[&every[..], &["--out", "run"]].concat()), 6, &parts);
    let before = checkpoint(&place.path("run"));
    place.fails(&["--resume", "run"], 6, &parts);
    assert_eq!(checkpoint(&place.path("run")), before);
    let details = std::fs::read(place.path("run/bad-loss-step-00000002.json")).unwrap();
    let details: serde_json::Value = serde_json::from_slice(&details).unwrap();
    assert_eq!(details["images"].as_array().unwrap().len(), 16);
    for stream in 0..2 {
        let tensors = details["streams"][stream].as_array().unwrap();
        let find = |name: &str| tensors.iter().find(|tensor| tensor["tensor"] == name).unwrap();
        assert!(find("conv1.weight.own")["max"].as_f64().is_some_and(|max| max > 1e20), "{tensors:?}");
        assert!(find("drop7")["not_finite"].as_u64().unwrap() > 0, "{tensors:?}");
        assert_eq!(find("fc8.bias.gradient")["not_finite"], 5, "{tensors:?}");
    }
    failed(place.train(&["--out", "wild", "--lr", "1e30"]), 6, &["no checkpoint had been written yet"]);
}

#[test]
fn a_run_is_looked_at_with_its_own_classes_from_any_folder() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "1"]));
    // Given by a relative path, found from elsewhere.
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    let mut command = place.command(&["eval", "../run"]);
    succeeded(command.current_dir(place.path("elsewhere")).output().unwrap());

    let be = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    std::fs::create_dir(place.path("other")).unwrap();
    for (prefix, count) in [("train", 4), ("t10k", 4)] {
        let file = |what: &str| place.path("other").join(format!("{prefix}-{what}"));
        let pixels = vec![7; 4 * 28 * 28];
        std::fs::write(file("images-idx3-ubyte"), [be(&[0x803, count, 28, 28]), pixels].concat()).unwrap();
        std::fs::write(file("labels-idx1-ubyte"), [be(&[0x801, count]), vec![0, 1, 2, 3]].concat()).unwrap();
    }
    // The same number with other names: a warning, and matched by number.
    std::fs::create_dir(place.path("renamed")).unwrap();
    for entry in std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), place.path("renamed").join(entry.file_name())).unwrap();
    }
    let names: String = (0..10).map(|class| format!("name {class}\n")).collect();
    std::fs::write(place.path("renamed/classes.txt"), names).unwrap();
    let output = place.run(&["eval", "run", "--data", "renamed"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("\"name 0\" is the class that the run calls \"class 0\""), "{error}");
    succeeded(output);
    for command in [&["eval", "run"][..], &["eval", "run", "--views", "10"], &["predict", "run", "0"]] {
        place.fails(&[command, &["--data", "other"]].concat(), 3, &["other", "has 4 classes", "trained on 10"]);
    }
}

#[test]
fn predict_takes_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "1"]));
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    image::RgbImage::new(9, 9).save_with_format(place.path(".").join(name), image::ImageFormat::Png).unwrap();
    let output = place.command(&["predict", "run"]).arg(name).output().unwrap();
    assert!(succeeded(output).contains("caf\u{fffd}.png"));
}

#[test]
fn output_that_nobody_reads_ends_nothing() {
    let place = Place::new();
    let through = |line: &str| {
        let line = format!("{} {line}", env!("CARGO_BIN_EXE_alexnet-split"));
        let mut command = std::process::Command::new("bash");
        let command = command.args(["-o", "pipefail", "-c", &line]).current_dir(place.path("."));
        command.env("CUDA_VISIBLE_DEVICES", "-1").env("WORLD_SIZE", "1").output().unwrap()
    };
    let flags = TINY.join(" ").replace('[', "'[").replace(']', "]'");
    succeeded(through(&format!("{flags} --data data --out run --steps 3 --json | head -n 0")));
    succeeded(through("predict run --json | head -n 1"));
    succeeded(through("describe | true"));
    assert_eq!(metrics(&place.path("run")).iter().filter(|row| row["kind"] == "step").count(), 3);
    // Where it cannot be written, the end says so.
    failed(through("runs . > /dev/full"), 20, &["cannot write standard output"]);
}

#[test]
fn hints_can_be_followed_and_failed_starts_leave_no_run() {
    let place = Place::new();
    assert!(!succeeded(place.train(&["--out", "none", "--steps", "0"])).contains("Next:"), "there is no checkpoint");
    let text = succeeded(place.train(&["--out", "my run", "--steps", "1"]));
    let program = env!("CARGO_BIN_EXE_alexnet-split");
    let commands = ["predict 'my run'", "report 'my run'", "filters 'my run' filters.png", "--resume 'my run'"];
    for command in commands {
        assert!(text.contains(&format!("\n  {program} {command} ")), "no {command} in {text}");
        // As a shell reads them.
        let mut shell = std::process::Command::new("bash");
        let shell = shell.args(["-c", &format!("{program} {command}")]).current_dir(place.path("."));
        succeeded(shell.env("CUDA_VISIBLE_DEVICES", "-1").env("WORLD_SIZE", "1").output().unwrap());
    }
    let text = place.ok(&["--resume", "my run", "--epochs", "2"]);
    assert!(text.contains("--resume 'my run' --epochs 4 "), "{text}");
    assert!(place.ok(&["runs", "."]).contains("Next: alexnet-split report './my run'"));
    failed(place.train(&["--out", "run", "--trace", "no/trace.json"]), 1, &["no/trace.json"]);
    assert!(!place.path("run").exists());
}

#[test]
fn a_network_that_computes_nothing_is_wrong() {
    let place = Place::new();
    place.train(&["--out", "run", "--steps", "2", "--lr", "1e10", "--set", "train.checkpoint_steps=1"]);
    for views in ["1", "10"] {
        let row: serde_json::Value =
            serde_json::from_str(&place.ok(&["eval", "run", "--json", "--views", views])).unwrap();
        assert_eq!(row["loss"], serde_json::Value::Null, "a loss after all: {row}");
        assert_eq!((row["top1_error"].as_f64(), row["top5_error"].as_f64()), (Some(1.), Some(1.)), "{row}");
    }
}
