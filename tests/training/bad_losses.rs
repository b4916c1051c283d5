//! Bad losses: the steps that a run skips, the checkpoint that it goes back to, and its end.

use std::fs;
use std::process::{Command, Output};

use crate::support::place::{Place, TINY, checkpoint, checkpoint_folder, count, failed, metrics, succeeded};
use crate::support::process::{send, spawn, wait_for};
use serde_json::Value;

#[test]
fn a_bad_loss_can_be_left_out() {
    let fault = "nan@8";
    let train = |place: &Place, args: &[&str]| {
        let base = ["--out", "run", "--epochs", "3", "--set", "train.checkpoint_steps=3", "--keep", "9"];
        let mut command = place.train_command(&[&base[..], args].concat());
        command.env("ALEXNET_SPLIT_FAULT", fault).output().unwrap()
    };
    for (policy, left_out, from) in [("skip", 1, 7), ("rollback", 2, 6)] {
        let place = Place::new();
        let text = succeeded(train(&place, &["--on-nan", policy]));
        assert!(text.contains("step 8 left out: the loss is NaN"), "{text}");
        let rows = metrics(&place.path("run"));
        let skipped = rows.iter().find(|row| row["kind"] == "skipped").unwrap();
        assert_eq!(
            (&skipped["step"], &skipped["steps"], &skipped["loss"]),
            (&8.into(), &left_out.into(), &"NaN".into())
        );
        assert!(place.path("run/bad-loss-step-00000008.json").exists());
        // What comes after it: the batch of step 9 on the weights of step 7 or 6.
        let plain = Place::new();
        succeeded(plain.train(&["--out", "run", "--epochs", "3", "--steps", &from.to_string()]));
        let first_after = rows.iter().find(|row| row["kind"] == "step" && row["step"] == 9).unwrap();
        assert!(first_after["loss"].as_f64().unwrap().is_finite());
        // Resumed in between or not: the same bits.
        let parts = Place::new();
        succeeded(train(&parts, &["--on-nan", policy, "--steps", "11"]));
        parts.ok(&["--resume", "run"]);
        assert_eq!(checkpoint(&parts.path("run")), checkpoint(&place.path("run")));
        let state: Value = serde_json::from_slice(&checkpoint(&parts.path("run"))[0].1).unwrap();
        assert_eq!(state["state"]["skipped_steps"], left_out);
    }
    let place = Place::new();
    failed(train(&place, &[]), 6, &["step 8", "loss is NaN", "step-00000006"]);
    // A network that gives nothing else any more is not skipped for ever.
    let place = Place::new();
    // An epoch of more steps than that: two are good, ten are skipped.
    place.write_idx("train", &[320, 28, 28], &[9; 784 * 320], &[1; 320]);
    failed(place.train(&["--out", "run", "--lr", "1e30", "--on-nan", "skip"]), 6, &["step 13"]);
}

#[test]
fn steps_that_are_left_out_twice_count_once_and_every_checkpoint_is_told() {
    let place = Place::new();
    let run =
        ["--out", "run", "--epochs", "3", "--set", "train.checkpoint_steps=3", "--keep", "9", "--on-nan", "rollback"];
    let mut command = place.train_command(&run);
    succeeded(command.env("ALEXNET_SPLIT_FAULT", "nan@8,nan@9").output().unwrap());
    let rows = metrics(&place.path("run"));
    let skipped: Vec<_> = rows.iter().filter(|row| row["kind"] == "skipped").map(|row| row["steps"].as_u64()).collect();
    // Back from 8 to 6, and as no good step came after that, from 9 to 5.
    assert_eq!(skipped, [Some(2), Some(4)], "steps 7 and 8, then 6 to 9");
    let list = place.ok(&["checkpoint", "list", "run", "--json"]);
    let there: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let state = |row: &Value| -> Value {
        let marker = fs::read(place.path(row["path"].as_str().unwrap()).join("checkpoint.json")).unwrap();
        serde_json::from_slice::<Value>(&marker).unwrap()["state"].take()
    };
    let last = state(there.last().unwrap());
    assert_eq!((&last["step"], &last["skipped_steps"]), (&15.into(), &4.into()));
    let journal = fs::read_to_string(place.path("run/journal.jsonl")).unwrap();
    let events = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut told: Vec<_> = events.filter(|row| row["kind"] == "checkpoint").map(|row| row["step"].clone()).collect();
    told.dedup();
    assert_eq!(told, there.iter().map(|row| row["step"].clone()).collect::<Vec<_>>());
}

#[test]
fn weights_whose_evaluation_is_not_finite_are_not_saved() {
    // The one step's loss is fine, what its update makes of the weights is not.
    let wild = ["--out", "run", "--steps", "1", "--lr", "1e30"];
    for policy in ["stop", "skip"] {
        let place = Place::new();
        let parts = ["step 1: the held-out loss after it is", "before it was saved", "no checkpoint", "--lr"];
        failed(place.train(&[&wild[..], &["--on-nan", policy]].concat()), 6, &parts);
        place.fails(&["checkpoint", "list", "run"], 4, &["holds no checkpoint"]);
        let details = fs::read(place.path("run/bad-loss-step-00000001.json")).unwrap();
        let details: Value = serde_json::from_slice(&details).unwrap();
        let tensors = details["streams"][1].as_array().unwrap();
        assert!(tensors.iter().any(|tensor| tensor["not_finite"].as_u64() > Some(0)), "{details}");
    }
    let place = Place::new();
    let text = succeeded(place.train(&[&wild[..], &["--on-nan", "rollback"]].concat()));
    assert!(text.contains("step 1 left out: the held-out loss") && text.contains("weights of step 0"), "{text}");
    let eval: Value = serde_json::from_str(&place.ok(&["eval", "run", "--json"])).unwrap();
    assert!(eval["step"] == 1 && eval["loss"].as_f64().is_some_and(|loss| loss < 3.), "{eval}");
    assert!(metrics(&place.path("run")).iter().any(|row| row["kind"] == "eval" && row["step"] == 1));
}

#[test]
fn a_run_goes_back_past_weights_that_turn_out_to_be_bad() {
    // Every update is wild, so that every checkpoint within an epoch is of weights that give no loss.
    let wild = ["--out", "run", "--lr", "1e20", "--set", "train.checkpoint_steps=1"];
    for keep in ["1", "9"] {
        let place = Place::new();
        succeeded(place.train(&[&wild[..], &["--epochs", "3", "--keep", keep, "--on-nan", "rollback"]].concat()));
        let eval: Value = serde_json::from_str(&place.ok(&["eval", "run", "--json"])).unwrap();
        assert!(eval["loss"].as_f64().is_some_and(|loss| loss < 3.), "{eval}");
    }
    // Where there is none before, the message does not call it good.
    let place = Place::new();
    failed(
        place.train(&wild),
        6,
        &["the newest checkpoint, run/checkpoints/step-00000001, has the weights that gave this loss"],
    );

    // Told to end in the evaluation of such weights, and resumed: as if it had not been.
    let evaluating = |name: &str| {
        let place = Place::with_much_to_evaluate();
        let args = ["--out", name, "--steps", "1", "--lr", "1e30", "--on-nan", "rollback"];
        let command = place.train_command(&args);
        (place, command)
    };
    let (place, command) = evaluating("run");
    let child = spawn(command);
    wait_for("a step", || count(&place, "step") == 1);
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["after step 1"]);
    place.ok(&["--resume", "run", "--steps", "1"]);
    let (whole, mut command) = evaluating("run");
    succeeded(command.output().unwrap());
    let [found, expected] = [&place, &whole].map(|place| checkpoint(&place.path("run")));
    assert_eq!(String::from_utf8_lossy(&found[0].1), String::from_utf8_lossy(&expected[0].1));
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_made_for_a_signal_is_none_to_go_back_to() {
    let args = ["--out", "run", "--epochs", "3", "--keep", "9", "--on-nan", "rollback"];
    let train = |place: &Place| {
        let mut command = place.train_command(&args);
        command.env("ALEXNET_SPLIT_FAULT", "nan@9");
        command
    };
    let whole = Place::new();
    succeeded(train(&whole).output().unwrap());
    // Stopped after step 6, 7 or 8, of which the undisturbed run has no checkpoint.
    let stopped = || {
        let place = Place::new();
        let child = spawn(train(&place));
        wait_for("six steps", || count(&place, "step") >= 6);
        send("TERM", &child);
        let output = child.wait_with_output().unwrap();
        let marker = |step: u32| fs::read_to_string(checkpoint_folder(&place, step).join("checkpoint.json")).ok();
        let made = (6..9).filter_map(marker).any(|text| text.contains("\"on_signal\": true"));
        (made && output.status.code() == Some(143)).then_some(place)
    };
    let place = (0..50).find_map(|_| stopped()).expect("the signal came too late fifty times");
    let mut resume = place.command(&["--resume", "run"]);
    succeeded(resume.env("ALEXNET_SPLIT_FAULT", "nan@9").output().unwrap());
    let skipped = |place: &Place| metrics(&place.path("run")).into_iter().find(|row| row["kind"] == "skipped");
    assert_eq!(skipped(&place), skipped(&whole));
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn a_checkpoint_made_for_a_signal_serves_where_there_is_no_other() {
    let place = Place::new();
    let child = spawn(place.train_command(&["--out", "run", "--epochs", "40", "--set", "train.loss_spike=0"]));
    wait_for("three steps", || count(&place, "step") >= 3);
    send("TERM", &child);
    child.wait_with_output().unwrap();
    let next = count(&place, "step") + 1;
    let mut resume = place.command(&["--resume", "run", "--on-nan", "rollback"]);
    let steps = (next + 1).to_string();
    succeeded(resume.args(["--steps", &steps]).env("ALEXNET_SPLIT_FAULT", format!("nan@{next}")).output().unwrap());
    // A converted run has a checkpoint like any other.
    place.ok(&["convert", "run", "one/"]);
    let mut resume = place.command(&["--resume", "one", "--on-nan", "rollback", "--epochs", "41"]);
    let (bad, steps) = (format!("nan@{}", next + 2), (next + 2).to_string());
    succeeded(resume.args(["--steps", &steps]).env("ALEXNET_SPLIT_FAULT", bad).output().unwrap());
    place.fails(&["convert", "run", "."], 4, &["exists already"]);
    fs::create_dir(place.path("two.unfinished")).unwrap();
    place.fails(&["convert", "run", "two"], 4, &["two.unfinished", "another conversion is running"]);
    assert!(place.path("two.unfinished").exists());
}

#[test]
fn going_back_ends_after_ten_times_not_where_there_is_nothing_older() {
    let train = |place: &Place, args: &[&str], fault: &str| {
        let base = ["--out", "run", "--epochs", "4", "--on-nan", "rollback"];
        let mut command = place.train_command(&[&base[..], args].concat());
        command.env("ALEXNET_SPLIT_FAULT", fault).output().unwrap()
    };
    for fault in ["nan@1,nan@2", "nan@11,nan@12,nan@13"] {
        succeeded(train(&Place::new(), &[], fault));
    }
    let all: Vec<String> = (1..20).map(|step| format!("nan@{step}")).collect();
    let place = Place::new();
    place.write_idx("train", &[320, 28, 28], &[9; 784 * 320], &(0..320u32).map(|i| (i % 10) as u8).collect::<Vec<_>>());
    failed(train(&place, &[], &all.join(",")), 6, &["step 11", "step-00000000"]);

    // What is kept to go back to is the same after a crash.
    let args = ["--keep", "1", "--set", "train.checkpoint_steps=1", "--epochs", "3"];
    let bad = "nan@11,nan@12";
    let (whole, crashed) = (Place::new(), Place::new());
    let run = |place: &Place, args: &[&str], fault: &str| {
        let mut command = place.train_command(&[&["--out", "run", "--on-nan", "rollback"], args].concat());
        command.env("ALEXNET_SPLIT_FAULT", fault).output().unwrap()
    };
    succeeded(run(&whole, &args, bad));
    assert_eq!(run(&crashed, &args, &format!("{bad},crash@11")).status.code(), None);
    let mut resume = crashed.command(&["--resume", "run"]);
    succeeded(resume.env("ALEXNET_SPLIT_FAULT", bad).output().unwrap());
    assert_eq!(checkpoint(&crashed.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn an_evaluation_that_is_made_again_is_not_forgotten() {
    let with_much_to_evaluate = || {
        let place = Place::with_much_to_evaluate();
        let command = place.train_command(&["--out", "run", "--steps", "1", "--lr", "1e30", "--on-nan", "rollback"]);
        (place, command)
    };
    let (place, command) = with_much_to_evaluate();
    let child = spawn(command);
    wait_for("it goes back", || count(&place, "skipped") == 1);
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["after step 1"]);
    assert_eq!(count(&place, "eval"), 0);
    place.ok(&["--resume", "run", "--steps", "1"]);
    assert_eq!(count(&place, "eval"), 1);
    let (whole, mut command) = with_much_to_evaluate();
    succeeded(command.output().unwrap());
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn bad_losses_in_a_row_are_counted_over_a_resume() {
    let faults: Vec<String> = (2..=15).map(|step| format!("nan@{step}")).collect();
    let faulty = |mut command: Command| command.env("ALEXNET_SPLIT_FAULT", faults.join(",")).output().unwrap();
    let place = Place::new();
    let args = ["--out", "run", "--epochs", "4", "--on-nan", "skip"];
    // An epoch of 20 steps.
    place.write_idx("train", &[320, 28, 28], &[9; 784 * 320], &(0..320u32).map(|i| (i % 10) as u8).collect::<Vec<_>>());
    succeeded(faulty(place.train_command(&[&args[..], &["--steps", "8"]].concat())));
    failed(faulty(place.command(&["--resume", "run"])), 6, &["step 12"]);
}

#[test]
fn adams_first_jump_ends_no_run() {
    // A rate that takes the small network as far as 0.001 takes one of 47 million weights.
    let small = ["--recipe", "fashion", "--lr", "0.1", "--steps", "4", "--threads", "1"];
    let place = Place::new();
    for batch_size in ["8", "16", "32", "64"] {
        let mut most = 0f64;
        for seed in 1..=10 {
            let out = format!("run-{batch_size}-{seed}");
            let numbers = ["--seed", &seed.to_string(), "--out", &out];
            succeeded(train_in_batches(&place, batch_size, &[&small[..], &numbers].concat()));
            let losses: Vec<f64> = metrics(&place.path(&out)).iter().filter_map(step_loss).collect();
            assert_eq!(losses.len(), 4);
            most = losses.into_iter().fold(most, f64::max);
        }
        // Three times chance was what ended such runs once.
        assert!(most > 3. * 10f64.ln(), "batches of {batch_size} show no jump: {most}");
    }
    for recipe in ["fashion", "half"] {
        let text = place.ok(&["describe", "--recipe", recipe, "--toml"]);
        assert!(text.contains("weights = \"pytorch\"") && text.contains("biases = \"pytorch\""), "{text}");
    }
}

#[test]
fn a_rate_of_ten_ends_a_run_soon_though_every_loss_is_finite() {
    for recipe in ["fashion", "half", "quick"] {
        for (seed, batch_size) in [("1", "8"), ("2", "16"), ("3", "32")] {
            let place = Place::new();
            let wild = ["--recipe", recipe, "--lr", "10", "--seed", seed, "--epochs", "20", "--out", "run"];
            failed(train_in_batches(&place, batch_size, &wild), 6, &["loss", "--lr"]);
            let losses: Vec<f64> = metrics(&place.path("run")).iter().filter_map(step_loss).collect();
            assert!(losses.len() < 20 && losses.iter().all(|&loss| loss <= 1e6), "{recipe}: {losses:?}");
        }
    }
    // Such steps are skipped like those with a bad loss; the first update's weights are not saved.
    let place = Place::new();
    let wild = ["--recipe", "fashion", "--lr", "10", "--steps", "4", "--on-nan", "skip", "--out", "run"];
    let output = place.train(&wild);
    assert!(String::from_utf8_lossy(&output.stdout).contains("step 2 left out: the loss is "), "{output:?}");
    failed(output, 6, &["step 4: the held-out loss after it is", "no checkpoint"]);
}

#[test]
fn a_loss_is_a_jump_once_a_hundred_are_in_the_mean_stopped_in_between_or_not() {
    let place = Place::new();
    // Nothing is learned, and what is a little above the mean is a jump, so that about every second loss is one.
    let args = ["--recipe", "fashion", "--lr", "1e-9", "--set", "train.loss_spike=1.0001", "--epochs", "24"];
    let train = |mut command: Command| command.env("ALEXNET_SPLIT_FAULT", "nan@8,nan@9").output().unwrap();
    let start = |more: &[&str]| train(place.train_command(&[&args[..], &["--on-nan", "skip"], more].concat()));
    // It may end after ten jumps in a row.
    start(&["--out", "run"]);
    succeeded(start(&["--out", "parts", "--steps", "52"]));
    train(place.command(&["--resume", "parts"]));
    let [whole, parts] = ["run", "parts"].map(|name| {
        let left_out = metrics(&place.path(name)).into_iter().filter(|row| row["kind"] == "skipped");
        left_out.collect::<Vec<Value>>()
    });
    assert_eq!(whole, parts);
    let steps: Vec<u64> = whole.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    // Step 102 has the hundredth loss that counts.
    assert_eq!(steps[..2], [8, 9]);
    assert!((103..113).contains(&steps[2]), "{steps:?}");
}

/// Trains the tiny network with batches of another size.
fn train_in_batches(place: &Place, batch_size: &str, args: &[&str]) -> Output {
    let sizes = TINY.iter().rposition(|&flag| flag == "--batch-size").unwrap();
    place.run(&[&TINY[..sizes], &["--batch-size", batch_size, "--data", "data"], args].concat())
}

fn step_loss(row: &Value) -> Option<f64> {
    if row["kind"] == "step" { row["loss"].as_f64() } else { None }
}
