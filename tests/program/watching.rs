//! The files of a run for those who watch it: a complete directory, a timeline whose parts nest, schedules that can be
//! followed in the metrics.

use std::time::Instant;

use crate::support::place::{Place, checkpoint, metrics, succeeded};
use crate::support::process::{send, spawn, wait_for};
use crate::support::trace::tracks;
use serde_json::Value;

fn lines(place: &Place, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(place.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_directory_tells_all_there_is_to_know() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--epochs", "2", "--steps", "7"]));
    place.ok(&["--resume", "run", "--histograms"]);
    let journal = lines(&place, "run/journal.jsonl");
    let kinds: Vec<&str> = journal.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    let expected = ["start", "checkpoint", "checkpoint", "end", "start", "checkpoint", "end"];
    assert_eq!(kinds, expected, "{journal:?}");
    let start = &journal[4];
    assert_eq!((&start["step"], &start["total_steps"], &start["seed"]), (&7.into(), &10.into(), &2012.into()));
    assert!(start["command"].as_array().unwrap().contains(&"--histograms".into()), "{start}");
    assert!(start["device"].as_str().unwrap().contains("both streams emulated"), "{start}");
    assert!(start["host"]["memory_bytes"].as_u64().unwrap() > 1 << 20, "{start}");
    assert_eq!((&journal[6]["how"], &journal[6]["step"]), (&"finished".into(), &10.into()));
    let info: Value = serde_json::from_slice(&std::fs::read(place.path("run/run.json")).unwrap()).unwrap();
    assert_eq!(info["classes"].as_array().unwrap().len(), 10);
    let log = std::fs::read_to_string(place.path("run/log.txt")).unwrap();
    for part in ["device   CPU", "step 7: held-out accuracy", "continues from step 7", "stream 1: of "] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    let timeline: Value = serde_json::from_slice(&std::fs::read(place.path("run/timeline.json")).unwrap()).unwrap();
    assert_eq!(timeline["step"], 10);
    assert!(timeline["streams"][1]["events"].as_array().unwrap().iter().any(|event| event["activity"] == "waiting"));
    assert!(metrics(&place.path("run")).iter().any(|row| row["kind"] == "times" && row["streams"][1].is_object()));
    assert!(place.path("run/filters/step-00000010.png").is_file());
    let mut events: Vec<_> =
        std::fs::read_dir(place.path("run/tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
    events.sort();
    let holds = |file: usize, tag: &str| {
        let bytes = std::fs::read(&events[file]).unwrap();
        bytes.windows(tag.len()).any(|window| window == tag.as_bytes())
    };
    assert!(events.len() == 2 && holds(0, "train/loss") && holds(1, "heldout/loss"), "{events:?}");
    assert!(!holds(0, "stream1/conv1.weight.own") && holds(1, "stream1/conv1.weight.own"));
}

#[test]
fn a_run_says_what_it_will_do_how_long_that_takes_and_what_came_of_it() {
    let place = Place::new();
    let began = Instant::now();
    let text = succeeded(place.train(&["--out", "run", "--epochs", "40"]));
    let seconds = began.elapsed().as_secs() as usize;
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
    let parts = [
        "device   CPU",
        "network  two streams, ",
        "recipe   quick",
        "data     data: 80 training and 20 held-out images",
        "steps    1 to 200, 5 an epoch",
        "run      run",
        "time     about ",
        "step 200: held-out accuracy ",
        "saved run/checkpoints/step-00000200",
        "done     200 steps in ",
        "chance is 10.0%",
        "Next:",
    ];
    assert!(parts.iter().map(|part| at(part)).is_sorted(), "{text}");
    // Where no bar shows the rest, a few lines in a while; the log has all results.
    let results = |text: &str| text.lines().filter(|line| line.contains("held-out accuracy")).count();
    let lines = text.lines().filter(|line| line.starts_with("step ") || line.starts_with("epoch "));
    assert!(lines.count() <= 4 + 2 * seconds / 5 && results(&text) < 40, "{seconds} s: {text}");
    let log = std::fs::read_to_string(place.path("run/log.txt")).unwrap();
    assert_eq!(results(&log), 40 + 1);
    // As courses print it: the means over the epoch's batches, beside the held-out images.
    let rows = metrics(&place.path("run"));
    let steps: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "step").collect();
    let mean =
        |of: &[&Value], key: &str| of.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>() / of.len() as f64;
    let epochs: Vec<&str> = log.lines().filter(|line| line.contains("training loss")).collect();
    assert_eq!(epochs.len(), 40);
    for (number, (line, steps)) in epochs.iter().zip(steps.chunks(5)).enumerate() {
        let (loss, accuracy) = (mean(steps, "loss"), 100. * (1. - mean(steps, "top1_error")));
        let part = format!("; epoch {}: training loss {loss:.3}, training accuracy {accuracy:.1}%, ", number + 1);
        assert!(line.starts_with("step ") && line.contains(&part), "no {part} in {line}");
    }

    let text = succeeded(place.train(&["--out", "other", "--epochs", "2", "--json"]));
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["kind"], &rows[0]["total_steps"]), (&"start".into(), &10.into()));
    let estimates: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "estimate").collect();
    assert!(estimates.len() == 1 && estimates[0]["step"] == 5, "{estimates:?}");
    assert!(estimates[0]["s_left"].as_f64().unwrap() > 5. * estimates[0]["ms_a_step"].as_f64().unwrap() / 1e3);
}

#[test]
fn the_parts_of_a_trace_nest() {
    let place = Place::new();
    let args = ["--out", "run", "--steps", "5", "--set", "train.checkpoint_steps=2", "--trace", "trace.json"];
    succeeded(place.train(&args));
    let tracks = tracks(&place.path("trace.json"));
    let names: Vec<&str> = tracks.values().map(|(name, _)| &**name).collect();
    let streams = ["stream 0", "stream 0: exchange", "stream 1", "stream 1: exchange"];
    for name in ["main", "loader", "checkpoint"].iter().chain(&streams) {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
    assert_eq!(names[names.len() - 4..], streams);
    for (name, spans) in tracks.values() {
        let count = |what: &str| spans.iter().filter(|(_, _, name)| name == what).count();
        match &**name {
            "stream 0" => assert_eq!((count("step 3"), count("forward"), count("conv3")), (1, 5, 5 * 2 + 5)),
            "stream 1: exchange" => assert_eq!((count("conv3 forward"), count("fc7 backward")), (5, 5)),
            "main" => assert_eq!((count("step 5"), count("batch"), count("eval"), count("checkpoint")), (1, 5, 1, 3)),
            "checkpoint" => assert_eq!(count("write checkpoint"), 3),
            _ => {}
        }
    }
}

#[test]
fn streams_share_a_clock_and_hidden_time_is_what_the_timeline_shows() {
    let place = Place::new();
    let wide = ["--set", "net.conv_channels=[16,32,48,48,32]", "--set", "net.dense_units=[256,256]"];
    let args = ["--out", "run", "--steps", "5", "--trace", "trace.json"];
    succeeded(place.train(&[&wide[..], &args].concat()));
    // Both streams' forward passes are waited for, and the loss checked, before either begins the backward pass.
    let tracks = tracks(&place.path("trace.json"));
    let spans = |track: &str| tracks.values().find(|(name, _)| name == track).unwrap().1.clone();
    let of = |track: &str, what: &str| spans(track).into_iter().filter(|(.., name)| name == what).collect::<Vec<_>>();
    let streams = ["stream 0", "stream 1"];
    for step in 0..5 {
        let forward_end = streams.map(|stream| of(stream, "forward")[step].1).into_iter().max().unwrap();
        let backward = streams.map(|stream| of(stream, "backward")[step].0).into_iter().min().unwrap();
        assert!(forward_end <= backward, "step {}: {forward_end} us, {backward} us", step + 1);
        let name = format!("step {}", step + 1);
        let whole = &of("main", &name)[0];
        for stream in streams {
            let part = &of(stream, &name)[0];
            assert!(whole.0 <= part.0 && part.1 <= whole.1, "{whole:?} {part:?}");
        }
    }
    // The part of an exchange before the stream began to wait was hidden.
    let timeline: Value = serde_json::from_slice(&std::fs::read(place.path("run/timeline.json")).unwrap()).unwrap();
    let rows = metrics(&place.path("run"));
    let row = rows.iter().rfind(|row| row["kind"] == "times").unwrap();
    assert_eq!((&row["steps"], &row["step"], &timeline["step"]), (&1.into(), &5.into(), &5.into()));
    for stream in 0..2 {
        let events = timeline["streams"][stream]["events"].as_array().unwrap();
        let part = |event: &Value| ["start_us", "us"].map(|key| event[key].as_f64().unwrap());
        let swaps = events.windows(2).filter(|pair| pair[0]["activity"] == "exchange");
        let hidden: f64 = swaps
            .map(|pair| {
                assert_eq!(pair[1]["activity"], "waiting");
                let ([from, us], [waits, _]) = (part(&pair[0]), part(&pair[1]));
                (waits - from).clamp(0., us)
            })
            .sum();
        let told = 1e3 * row["streams"][stream]["hidden_ms"].as_f64().unwrap();
        assert!((hidden - told).abs() < 1. + 0.01 * hidden, "stream {stream}: {hidden} us, told {told} us");
    }
}

#[test]
fn a_run_is_looked_at_soon_after_each_start() {
    let place = Place::new();
    let looked_at = |place: &Place| -> Vec<u64> {
        let rows = metrics(&place.path("run"));
        rows.iter().filter(|row| row["kind"] == "times").map(|row| row["step"].as_u64().unwrap()).collect()
    };
    // Of 10,000 steps one in 200 is recorded, too.
    let args = ["--out", "run", "--epochs", "2000", "--steps", "10000"];
    let end_after = |command: std::process::Command, steps: usize| {
        let child = spawn(command);
        let done = || std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
        wait_for("steps", || done().lines().filter(|line| line.contains("\"kind\":\"step\"")).count() >= steps);
        send("TERM", &child);
        child.wait_with_output().unwrap();
        metrics(&place.path("run")).iter().filter(|row| row["kind"] == "step").count() as u64
    };
    let first = end_after(place.train_command(&args), 12);
    assert_eq!(looked_at(&place)[..2], [2, 10]);
    end_after(place.command(&["--resume", "run", "--steps", "10000"]), first as usize + 3);
    assert!(looked_at(&place).contains(&(first + 2)), "{first}: {:?}", looked_at(&place));
}

#[test]
fn schedules_can_be_followed_in_the_metrics() {
    let rates = |place: &Place| -> Vec<f64> {
        let rows = metrics(&place.path("run"));
        rows.iter().filter(|row| row["kind"] == "step").map(|row| row["lr"].as_f64().unwrap()).step_by(5).collect()
    };
    let kind = ["--set", "schedule.kind=epochs", "--set", "schedule.drop_epochs=[1, 3]", "--lr", "0.01"];
    let place = Place::new();
    succeeded(place.train(&[&kind[..], &["--out", "run", "--epochs", "4"]].concat()));
    let expected = [0.01, 0.001, 0.001, 0.0001];
    assert!(rates(&place).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{:?}", rates(&place));
    let parts = Place::new();
    succeeded(parts.train(&[&kind[..], &["--out", "run", "--epochs", "4", "--steps", "12"]].concat()));
    parts.ok(&["--resume", "run"]);
    assert_eq!(checkpoint(&parts.path("run")), checkpoint(&place.path("run")));

    // A rate at which nothing is learned: the second epoch is no better than the first.
    let place = Place::new();
    let early = ["--lr", "1e-9", "--set", "schedule.stop_patience=1", "--out", "run", "--epochs", "9"];
    let text = succeeded(place.train(&early));
    assert!(text.contains("has not improved for 1 epoch: the run ends"), "{text}");
    assert_eq!(rates(&place).len(), 2);
    place.ok(&["--resume", "run"]);
    assert_eq!(rates(&place).len(), 2, "it is over");
    let place = Place::new();
    let wrong = "schedule.layer_rates=[{ layer = \"conv9\", after = 1, rate = 0.0 }]";
    place.fails(&["--set", wrong], 2, &["schedule.layer_rates", "conv9", "a rate from 0 of a layer of the network"]);
    place.fails(&["--set", "schedule.bias_rate=0"], 2, &["schedule.bias_rate", "positive"]);
    place.fails(&["--set", "schedule.kind=epochs"], 2, &["schedule.drop_epochs", "[30, 60]"]);
}

#[test]
fn spans_say_what_they_are_about() {
    let place = Place::new();
    let output = place.train(&["--gpus", "0", "--steps", "1", "--out", "run", "-vv"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let within = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    for pass in ["forward", "backward", "update"] {
        let layer = format!("layer{{layer=\"conv3\" pass=\"{pass}\"}}");
        assert!(within(&["step{step=1}", "stream{stream=1}", &layer]), "no {layer} in {log}");
    }
    assert!(within(&["pass=\"forward\"", "exchange{bytes="]), "{log}");
    assert!(!log.contains("step=0"), "steps are counted as people see them: {log}");
}
