//! What a run leaves for those who watch it: a complete directory, a timeline whose parts nest, schedules that can be
//! followed in the metrics.

mod support;

use serde_json::Value;
use support::place::{Place, checkpoint, metrics, succeeded};
use support::trace::tracks;

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
    for part in ["device   CPU", "step 7: held-out accuracy", "on from step 7", "stream 1: of "] {
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
    assert!(text.contains("has not improved for 1 epochs: the run ends"), "{text}");
    assert_eq!(rates(&place).len(), 2);
    place.ok(&["--resume", "run"]);
    assert_eq!(rates(&place).len(), 2, "it is over");
    // The table of 2012, whose epochs are far off here.
    let place = Place::new();
    succeeded(place.train(&["--set", "schedule.kind=source", "--out", "run"]));
    place.fails(&["--set", "schedule.kind=epochs"], 2, &["schedule.drop_epochs", "[30, 60]"]);
}
