//! Faults that a run survives: its process killed before and within every operation on the disk, a disk that is full at
//! any of them, signals, streams that fail, checkpoints that are damaged. In the end it has the bits of a run that was
//! left alone.

mod soak;
#[path = "../support/mod.rs"]
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alexnet_split::disk::tensors::sha256;
use alexnet_split::run::checkpoint::TrainState;
use rayon::prelude::*;
use support::place::{Place, checkpoint, failed, metrics, output_within, succeeded};
use support::process::{PATIENCE, send, wait_for};

/// Six steps in two epochs (the second is cut short), a checkpoint after each.
const RUN: [&str; 8] = ["--out", "run", "--epochs", "2", "--steps", "6", "--set", "train.checkpoint_steps=1"];

/// The files of the undisturbed run.
fn undisturbed() -> Vec<(String, Vec<u8>)> {
    let place = Place::new();
    succeeded(place.train(&RUN));
    checkpoint(&place.path("run"))
}

/// Goes on as a user would who knows no more than that the run has ended.
fn go_on(place: &Place) {
    if place.path("run/recipe.toml").exists() {
        place.ok(&["--resume", "run", "--steps", "6"]);
    } else {
        succeeded(place.train(&RUN));
    }
}

/// Of a run that has died, what was saved is there and whole: the step before the newest whose checkpoint had begun.
fn nothing_is_lost(place: &Place, context: &str) {
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    let mut rows = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let newest = rows.find(|row| row["kind"] == "step").and_then(|row| row["step"].as_u64());
    // After a step's line its checkpoint is begun, which waits for the one before.
    let Some(saved) = newest.and_then(|step| step.checked_sub(2)).filter(|step| *step > 0) else { return };
    place.ok(&["checkpoint", "verify", "run"]);
    let list = place.ok(&["checkpoint", "list", "run", "--json"]);
    let last: serde_json::Value = serde_json::from_str(list.lines().last().unwrap()).unwrap();
    assert!(last["step"].as_u64().unwrap() >= saved, "{context}: step {newest:?} was done, {last} is the newest");
}

/// The run is as if nothing had happened, without stray files.
fn is_whole(place: &Place, expected: &[(String, Vec<u8>)], context: &str) {
    assert!(checkpoint(&place.path("run")) == expected, "other bits: {context}");
    place.ok(&["checkpoint", "verify", "run"]);
    let steps: Vec<u64> = metrics(&place.path("run"))
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6], "{context}");
    let names = std::fs::read_dir(place.path("run/checkpoints")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() <= 3 && names.iter().all(|name| !name.contains('.')), "{context}: {names:?}");
}

#[test]
fn every_operation_on_the_disk_may_be_the_last_one() {
    let expected = undisturbed();
    let advice = AtomicUsize::new(0);
    // As many faults as there are operations; the first that does not strike is one too far.
    let strikes = |fault: &str, at: usize| {
        let place = Place::new();
        let context = format!("{fault}@{at}");
        let output = place.train_command(&RUN).env("ALEXNET_SPLIT_FAULT", &context).output().unwrap();
        if output.status.success() {
            return false;
        }
        if fault == "full" {
            let advised =
                String::from_utf8_lossy(&output.stderr).contains("Free some space and continue with --resume run");
            advice.fetch_add(usize::from(advised), Ordering::Relaxed);
            failed(output, 20, &["injected"]);
        } else {
            assert_eq!(output.status.signal(), Some(9), "{context}: {output:?}");
        }
        nothing_is_lost(&place, &context);
        go_on(&place);
        is_whole(&place, &expected, &context);
        true
    };
    // They wait for the disk more than they compute.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(6).build().unwrap();
    for fault in ["kill", "tear", "full"] {
        let mut done = 0;
        loop {
            let strikes = || (done + 1..=done + 18).into_par_iter().map(|at| strikes(fault, at)).collect();
            let struck: Vec<bool> = pool.install(strikes);
            let count = struck.iter().take_while(|struck| **struck).count();
            assert!(struck[count..].iter().all(|struck| !struck), "{fault} from {done}: {struck:?}");
            done += count;
            if count < struck.len() {
                break;
            }
        }
        println!("{fault}: {done} operations");
        // Run directory, six steps, six checkpoints of two files each.
        assert!(done > 100, "only {done} operations");
    }
    // All within training: making the directory and the journal's last line are outside of it.
    assert!(advice.into_inner() > 100);
}

/// Starts the run, with more steps, and waits until it has done some.
fn started(place: &Place, args: &[&str]) -> Child {
    let mut command = place.train_command(args);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let steps = || std::fs::read_to_string(place.path("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait_for("steps", || steps() >= 4);
    child
}

#[test]
fn a_signal_saves_and_ends_and_a_second_one_ends_at_once() {
    let long = ["--out", "run", "--epochs", "400", "--set", "train.checkpoint_steps=100000"];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new();
        let child = started(&place, &long);
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let name = format!("SIG{signal}");
        failed(output, code, &["ended by", &name, "--resume run"]);
        let listed: serde_json::Value = serde_json::from_str(&place.ok(&["runs", ".", "--json"])).unwrap();
        assert_eq!(listed["state"], "interrupted", "{listed}");
        assert!(listed["message"].as_str().unwrap().contains(&name), "{listed}");
        let files = checkpoint(&place.path("run"));
        let state: serde_json::Value = serde_json::from_slice(&files[0].1).unwrap();
        let step = state["state"]["step"].as_u64().unwrap();
        assert_eq!(metrics(&place.path("run")).iter().rfind(|row| row["kind"] == "step").unwrap()["step"], step);
        // To the end of the next epoch: as a run that was not disturbed.
        let steps = (step / 5 * 5 + 5).to_string();
        place.ok(&["--resume", "run", "--steps", &steps]);
        let whole = Place::new();
        succeeded(whole.train(&[&long[..], &["--steps", &steps]].concat()));
        assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
        let evals = |place: &Place| -> Vec<_> {
            metrics(&place.path("run")).into_iter().filter(|row| row["kind"] == "eval").collect()
        };
        assert_eq!(evals(&place), evals(&whole));
    }
    // Twice: whatever is being done, and nothing more is saved.
    let place = Place::new();
    let mut child = started(&place, &["--out", "run", "--epochs", "4000"]);
    send("STOP", &child);
    send("TERM", &child);
    send("INT", &child);
    send("CONT", &child);
    let status = child.wait().unwrap();
    assert!([Some(130), Some(143)].contains(&status.code()), "{status}");
}

#[test]
fn a_signal_is_heard_in_an_evaluation_too() {
    let (place, whole) = (Place::with_much_to_evaluate(), Place::with_much_to_evaluate());
    let run = ["--out", "run", "--epochs", "2"];
    let child = started(&place, &run);
    let of_kind =
        |place: &Place, kind: &str| metrics(&place.path("run")).iter().filter(|row| row["kind"] == kind).count();
    while of_kind(&place, "step") < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["SIGTERM", "after step 5"]);
    assert_eq!(of_kind(&place, "eval"), 0, "it was not waited for");
    let state: serde_json::Value = serde_json::from_slice(&checkpoint(&place.path("run"))[0].1).unwrap();
    assert_eq!(state["state"]["evaluation_due"], true);
    // It is made up for, and the schedule learns of it.
    place.ok(&["--resume", "run"]);
    succeeded(whole.train(&run));
    assert_eq!(of_kind(&place, "eval"), 2);
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn a_stream_that_fails_ends_the_other_and_the_same_command_goes_on() {
    let expected = undisturbed();
    let place = Place::new();
    let mut command = place.train_command(&RUN);
    let output = output_within(command.env("ALEXNET_SPLIT_FAULT", "panic@4"), PATIENCE);
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("stream 1 stopped at an internal error: a fault asked for in step 4"), "{text}");
    go_on(&place);
    is_whole(&place, &expected, "panic");

    // One command begins the run and resumes it, as a supervisor repeats it.
    let always = [&RUN[..], &["--continue", "--trace", "t.json"]].concat();
    for (fault, ends) in [("panic@4", Some(8)), ("crash@5", None)] {
        let place = Place::new();
        let output = output_within(place.train_command(&always).env("ALEXNET_SPLIT_FAULT", fault), PATIENCE);
        assert_eq!(output.status.code(), ends, "{output:?}");
        succeeded(place.train(&always));
        is_whole(&place, &expected, fault);
        // What was seen before stays.
        let tracks = ["t.json", "t.1.json"].map(|file| std::fs::read_to_string(place.path(file)).unwrap());
        assert!(tracks[0].contains("\"step 2\"") && tracks[1].contains("\"step 6\""), "{fault}");
        // The same command again finds nothing left to do; another recipe is not gone on with.
        let again = succeeded(place.train(&always));
        assert!(again.contains("nothing to do"), "{again}");
        failed(place.train(&[&RUN[..], &["--continue", "--lr", "0.1"]].concat()), 4, &["another recipe"]);
    }
    let place = Place::new();
    failed(place.train(&["--continue"]), 2, &["--out"]);
}

/// Changes a checkpoint.json, and seals it as the program that wrote it would.
fn resealed(checkpoint: &Path, change: &dyn Fn(&mut TrainState)) {
    let path = checkpoint.join("checkpoint.json");
    let mut marker: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut state: TrainState = serde_json::from_value(marker["state"].take()).unwrap();
    change(&mut state);
    marker["sha256"] = sha256(&serde_json::to_vec(&state).unwrap()).into();
    marker["state"] = serde_json::to_value(&state).unwrap();
    std::fs::write(path, marker.to_string()).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_aloud() {
    let expected = undisturbed();
    let newest = |place: &Place| place.path("run/checkpoints/step-00000006");
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path, &Path));
    let rewrite = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    };
    let damages: [Damage; 12] = [
        ("stream0.safetensors", &|new, _| rewrite(&new.join("stream0.safetensors"), &|bytes| bytes.truncate(1000))),
        ("stream0.safetensors", &|new, _| rewrite(&new.join("stream0.safetensors"), &|bytes| bytes[3000] ^= 1)),
        ("stream1.safetensors", &|new, _| rewrite(&new.join("stream1.safetensors"), &|bytes| bytes[3] ^= 0x80)),
        ("stream1.safetensors", &|new, _| std::fs::remove_file(new.join("stream1.safetensors")).unwrap()),
        ("checkpoint.json", &|new, _| rewrite(&new.join("checkpoint.json"), &|bytes| bytes.truncate(90))),
        ("checkpoint.json", &|new, _| {
            let path = new.join("checkpoint.json");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, text.replace("\"step\": 6", "\"step\": 7")).unwrap();
        }),
        // What would be read for ever.
        ("stream1.safetensors", &|new, _| {
            std::fs::remove_file(new.join("stream1.safetensors")).unwrap();
            std::os::unix::fs::symlink("/dev/zero", new.join("stream1.safetensors")).unwrap();
        }),
        // One bit, which makes the version another one.
        ("checkpoint.json", &|new, _| {
            let path = new.join("checkpoint.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"format\": 2"));
            std::fs::write(path, text.replace("\"format\": 2", "\"format\": 3")).unwrap();
        }),
        // The halves of two checkpoints.
        ("another checkpoint", &|new, old| {
            std::fs::copy(old.join("stream1.safetensors"), new.join("stream1.safetensors")).map(drop).unwrap();
        }),
        ("names no files", &|new, _| resealed(new, &|state| state.files.clear())),
        ("names stream0.safetensors, expected", &|new, _| {
            resealed(new, &|state| drop(state.files.remove("stream1.safetensors")));
        }),
        ("names ../stream1.safetensors", &|new, _| {
            resealed(new, &|state| {
                let seal = state.files.remove("stream1.safetensors").unwrap();
                state.files.insert("../stream1.safetensors".into(), seal);
            });
        }),
    ];
    for (number, (part, damage)) in damages.into_iter().enumerate() {
        let place = Place::new();
        succeeded(place.train(&RUN));
        damage(&newest(&place), &place.path("run/checkpoints/step-00000005"));
        place.fails(&["checkpoint", "verify", "run"], 4, &["step-00000006", part]);
        let output = place.run(&["--resume", "run", "--steps", "6"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.contains("step-00000006") && error.contains(part) && error.contains("the checkpoint before it"),
            "{error}"
        );
        assert!(succeeded(output).contains("continues from step 5"), "damage {number}");
        is_whole(&place, &expected, part);
        let journal = std::fs::read_to_string(place.path("run/journal.jsonl")).unwrap();
        assert!(journal.contains("the checkpoint before it"), "the warning is kept: {journal}");
        // A checkpoint that was asked for by name is not replaced by another.
        damage(&newest(&place), &place.path("run/checkpoints/step-00000005"));
        place.fails(&["eval", "run/checkpoints/step-00000006"], 4, &[part, "damaged"]);
    }
    // All of them: nothing is begun anew behind the user's back.
    let place = Place::new();
    succeeded(place.train(&RUN));
    for checkpoint in std::fs::read_dir(place.path("run/checkpoints")).unwrap() {
        rewrite(&checkpoint.unwrap().path().join("stream0.safetensors"), &|bytes| bytes[3000] ^= 1);
    }
    place.fails(&["--resume", "run"], 4, &["step-00000006", "damaged"]);
}

#[test]
fn checkpoints_of_something_else_are_refused_with_expected_and_found() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    let path = place.path("run/checkpoints/step-00000006/checkpoint.json");
    let text = std::fs::read_to_string(&path).unwrap();
    resealed(path.parent().unwrap(), &|state| state.format = 3);
    place.fails(&["--resume", "run"], 4, &["layout version 3", "reads 2", "newer"]);
    std::fs::write(&path, text).unwrap();
    let recipe = place.path("run/recipe.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let with = |from: &str, to: &str, parts: &[&str]| {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&recipe, text.replace(from, to)).unwrap();
        place.fails(&["eval", "run"], 4, parts);
    };
    with("classes = 10", "classes = 12", &["fc8", "expected F32 [6, 10]", "[5, 10]"]);
    with("streams = 2", "streams = 1", &["of a network of 2 streams, the recipe's has 1"]);
    with("fc8 = \"split\"", "fc8 = \"stream0\"", &["fc8", "expected F32 [10, 10]", "[5, 10]"]);
}

#[test]
fn folders_that_are_not_what_they_are_called_are_named() {
    // A copy of a checkpoint by another name is passed over, and the whole one stays.
    let place = Place::new();
    succeeded(place.train(&RUN));
    let folder = |step: u32| place.path(&format!("run/checkpoints/step-{step:08}"));
    std::fs::rename(folder(5), folder(9)).unwrap();
    let output = place.run(&["--resume", "run", "--steps", "6"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("step-00000009") && error.contains("is of step 5"), "{error}");
    assert!(succeeded(output).contains("continues from step 6"));
    // Old weights are not taken for those of a new run.
    std::fs::remove_file(place.path("run/recipe.toml")).unwrap();
    failed(place.train(&RUN), 4, &["run", "without its recipe.toml", "--out"]);

    // A line of the journal that was not finished does not take the next one with it.
    let place = Place::new();
    succeeded(place.train(&RUN));
    let journal = place.path("run/journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, &text[..text.len() - 20]).unwrap();
    place.ok(&["--resume", "run", "--epochs", "3"]);
    let text = std::fs::read_to_string(&journal).unwrap();
    let starts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    assert_eq!(starts.filter(|row| row["kind"] == "start").count(), 2, "{text}");
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--epochs", "8", "--lr", "0.02", "--keep", "1"]));
    let evals: Vec<(u64, f64)> = metrics(&place.path("run"))
        .iter()
        .filter(|row| row["kind"] == "eval")
        .map(|row| (row["step"].as_u64().unwrap(), row["top1_error"].as_f64().unwrap()))
        .collect();
    let best = evals.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    let mut expected = vec![best, 40];
    expected.dedup();
    let list = place.ok(&["checkpoint", "list", "run", "--json"]);
    let rows: Vec<serde_json::Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> = rows.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, expected, "{evals:?}");
    assert_eq!(rows.iter().find(|row| row["best"] == true).unwrap()["step"], best);
    // Free space is checked before anything is computed.
    failed(place.train(&["--out", "many", "--keep", "100000000000"]), 20, &["free", "checkpoints of", "--keep 1"]);
    assert!(metrics(&place.path("many")).is_empty());
}

#[test]
fn two_streams_become_one_and_come_back() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "4", "--set", "net.lrn=false"]));
    place.ok(&["convert", "run", "one"]);
    place.ok(&["convert", "one", "two"]);
    assert_eq!(checkpoint(&place.path("two")), checkpoint(&place.path("run")));
    let eval = |run: &str| -> serde_json::Value { serde_json::from_str(&place.ok(&["eval", run, "--json"])).unwrap() };
    let (one, two) = (eval("one"), eval("run"));
    assert_eq!(one["top1_error"], two["top1_error"]);
    assert!((one["loss"].as_f64().unwrap() - two["loss"].as_f64().unwrap()).abs() < 1e-5, "{one} {two}");
    // Trained as one, it cannot be taken apart.
    place.ok(&["--resume", "one", "--steps", "5"]);
    place.fails(&["convert", "one", "three"], 4, &["conv2.weight", "connects the two halves"]);
    assert!(!place.path("three").exists());
}
