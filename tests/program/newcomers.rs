//! The first hour with the program: what people try, and the messages where it cannot be done.

use std::fs;

use crate::support;
use crate::support::place::{Place, failed, succeeded};

/// A run whose data are gone.
fn run_without_data() -> Place {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "1"]));
    fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    place
}

fn write_png(place: &Place, name: &str) {
    let image = image::GrayImage::from_fn(40, 30, |x, y| image::Luma([(5 * x + y) as u8]));
    image.save_with_format(place.path(name), image::ImageFormat::Png).unwrap();
}

#[test]
fn files_are_looked_at_without_the_data_set() {
    let place = run_without_data();
    write_png(&place, "a.png");
    let before = place.ok(&["predict", "run", "a.png", "--data", "elsewhere", "--json"]);
    assert_eq!(place.ok(&["predict", "run", "a.png", "--json"]), before);
    place.ok(&["export", "run", "y.safetensors"]);
    // Its own images are another matter.
    place.fails(&["predict", "run", "0"], 3, &["data", "no such folder", "--data"]);
    place.fails(&["predict", "run"], 3, &["data", "no such folder"]);
}

#[test]
fn a_bad_file_keeps_nobody_from_seeing_the_others() {
    let place = run_without_data();
    write_png(&place, "a.png");
    fs::write(place.path("bad.png"), "no picture").unwrap();
    let output = place.run(&["predict", "run", "bad.png", "a.png", "gone.png"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("a.png") && shown.matches('%').count() == 5, "{shown}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("bad.png") && told.contains("gone.png") && told.contains("2 of 3 images"), "{told}");
    let output = place.run(&["predict", "run", "a.png", "bad.png", "--json"]);
    let lines: Vec<serde_json::Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["top"].is_array() && lines[1]["error"].as_str().unwrap().contains("not an image"), "{lines:?}");
    assert_eq!((lines.len(), output.status.code()), (2, Some(3)));
}

#[test]
fn export_writes_what_its_files_ending_says() {
    let place = Place::new();
    for name in ["y.onnx", "y.pth", "y"] {
        place.fails(&["export", "run", name], 2, &[name, "y.safetensors"]);
    }
    // Nothing of a run is written over.
    succeeded(place.train(&["--out", "run", "--steps", "1"]));
    let checkpoint = "run/checkpoints/step-00000001/stream0.safetensors";
    place.fails(&["export", "run", checkpoint], 2, &["lies in a checkpoint"]);
    place.fails(&["report", "run", "--images", "0", "--out", "run/metrics.jsonl"], 2, &["ends in .html"]);
    place.ok(&["checkpoint", "verify", "run"]);
}

#[test]
fn the_images_that_come_with_it_are_in_the_binary() {
    let place = Place::new();
    let unpacked = place.path("cache/fashion-mnist");
    let mut command = place.command(&["train", "--steps", "1", "--out", "run"]);
    command.args(support::place::TINY).env("ALEXNET_SPLIT_CACHE", place.path("cache"));
    let text = succeeded(command.output().unwrap());
    assert!(text.contains(&*unpacked.to_string_lossy()), "{text}");
    // A file where the cache's folder would be.
    fs::write(place.path("file"), "").unwrap();
    let mut command = place.command(&["train", "--steps", "1", "--out", "other"]);
    let output = command.args(support::place::TINY).env("ALEXNET_SPLIT_CACHE", place.path("file")).output().unwrap();
    failed(output, 3, &["file/fashion-mnist", "ALEXNET_SPLIT_CACHE", "--data"]);
    for file in ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "classes.txt", "LICENSE"] {
        let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist").join(file);
        assert_eq!(fs::read(unpacked.join(file)).unwrap(), fs::read(own).unwrap(), "{file}");
    }
}

#[test]
fn wrong_values_are_told_with_right_ones() {
    let place = Place::new();
    for rate in ["nan", "-1", "0", "inf", "fast"] {
        failed(place.train(&["--lr", rate]), 2, &["--lr", "number above 0"]);
    }
    place.fails(&["resume", "my run"], 2, &["alexnet-split --resume 'my run'"]);
    let world = |settings: &[(&str, &str)], words: &[&str]| {
        let mut command = place.train_command(&["--steps", "1"]);
        command.env_remove("WORLD_SIZE").envs(settings.iter().copied());
        failed(command.output().unwrap(), 19, words);
    };
    world(&[("WORLD_SIZE", "2"), ("RANK", "2"), ("MASTER_ADDR", "localhost")], &["RANK is 2", "0 or 1"]);
    world(&[("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "0")], &["SLURM_STEP_NUM_TASKS is 8", "two"]);
}

#[test]
fn a_wrong_value_in_a_recipe_is_told_with_its_key() {
    let place = Place::new();
    for (text, words) in [
        ("base = \"quick\"\n[optimizer]\nlr = \"fast\"\n", ["optimizer.lr", "fast"]),
        ("base = \"quick\"\n[train]\nbatch_size = -3\n", ["train.batch_size", "-3"]),
        ("base = \"quick\"\n[input]\nflip = 1\n", ["input.flip", "1"]),
    ] {
        fs::write(place.path("own.toml"), text).unwrap();
        place.fails(&["describe", "--recipe", "own.toml"], 2, &[&["own.toml"], &words[..]].concat());
    }
    // Nothing but zeros, without an end.
    place.fails(&["describe", "--recipe", "/dev/zero"], 2, &["/dev/zero", "expected a recipe"]);
    succeeded(place.train(&["--out", "run", "--steps", "1"]));
    let words = ["optimizer.lr is 0.005, not 0.25", "train.seed is 2012, not 3"];
    failed(place.train(&["--out", "run", "--continue", "--lr", "0.25", "--seed", "3"]), 4, &words);
}
