//! The paper's ablations as recipes, and the command that runs them.

use crate::support::place::{Place, TINY, metrics, succeeded};
use alexnet_split::config::{ABLATIONS, Recipe};
use alexnet_split::net::plan::Plan;
use alexnet_split::net::spec::{Layer, Net, Reads};
use alexnet_split::show::describe::describe;

fn net(recipe: &Recipe) -> Net {
    Net::from_options(&recipe.net).unwrap()
}

/// Numbers that were counted apart from this program: by hand from the tables, the one of one GPU by the audit, that of
/// whole layers as it is known of networks without groups.
#[test]
fn ablations_change_what_they_name() {
    let counts = [
        ("paper", 60_965_224u64),
        ("one-gpu", 59_798_312),
        // 384 filters of 1152 more each, and 4096 units of 4608 and 2048 more, are gone from what reads both.
        ("no-communication", 60_965_224 - 384 * 1152 - 4096 * 4608 - 4096 * 2048),
        ("communication-everywhere", 62_378_344),
        ("one-tower", 62_378_344),
        ("no-lrn", 60_965_224),
        ("pool-2-2", 60_965_224),
        ("tanh", 60_965_224),
        ("no-dropout", 60_965_224),
        ("no-colour-noise", 60_965_224),
        ("no-crops", 60_965_224),
        // conv4 reads both streams' 256 channels in the place of its own 192.
        ("no-conv3", 60_965_224 - 384 * (2304 + 1) + 384 * 9 * (256 - 192)),
        ("no-conv4", 60_965_224 - 384 * (1728 + 1)),
        // fc6 reads 384 channels of 6x6.
        ("no-conv5", 60_965_224 - 256 * (1728 + 1) + 4096 * 36 * 128),
        ("no-fc7", 60_965_224 - 4096 * (4096 + 1)),
        ("figure1-tanh", 32 * 76 + 32 * 801 + 64 * 801 + (9 * 64 + 1) * 1000),
    ];
    let mut seen = vec!["paper"];
    for (name, expected) in counts {
        let recipe = Recipe::find(name).unwrap();
        let facts = describe(&net(&recipe), 1, 1).unwrap();
        assert_eq!(facts.parameters as u64, expected, "{name}");
        seen.push(name);
    }
    assert!(ABLATIONS.iter().all(|name| seen.contains(name)), "{ABLATIONS:?}");
    let of = |name: &str| net(&Recipe::find(name).unwrap());
    let count = |net: &Net, of: fn(&Layer) -> bool| net.layers.iter().filter(|layer| of(layer)).count();
    assert_eq!(count(&of("no-lrn"), |layer| matches!(layer, Layer::Lrn(_))), 0);
    assert_eq!(count(&of("no-dropout"), |layer| matches!(layer, Layer::Dropout(_))), 0);
    assert_eq!(count(&of("no-conv5"), |layer| matches!(layer, Layer::MaxPool(_))), 3);
    // Streams that do not meet before it meet in the last layer.
    let apart = of("no-communication");
    let both = |layer: &Layer| match layer {
        Layer::Conv(row) => row.reads == Reads::Both,
        Layer::Dense(row) => row.reads == Reads::Both,
        _ => false,
    };
    assert_eq!((apart.streams, count(&apart, both)), (2, 1));
    assert_eq!(Recipe::find("no-colour-noise").unwrap().input.colour_noise, 0.);
}

/// Whatever it is made of: an ablation of another recipe has that one's sizes and rates.
#[test]
fn any_network_of_two_streams_has_ablations() {
    let quick = Recipe::find("quick").unwrap().with("net.conv_channels=[32,64,96,96,64]").unwrap();
    for name in ABLATIONS.into_iter().filter(|name| *name != "figure1-tanh") {
        let recipe = quick.ablated(name).unwrap();
        Plan::all(&net(&recipe)).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.optimizer.lr), (&*format!("quick-{name}"), quick.optimizer.lr));
    }
    let half = net(&quick.ablated("one-gpu").unwrap());
    let filters: Vec<usize> = half
        .layers
        .iter()
        .filter_map(|layer| if let Layer::Conv(row) = layer { Some(row.out) } else { None })
        .collect();
    assert_eq!((half.streams, filters), (1, vec![16, 32, 48, 48, 64]));
}

#[test]
fn changes_of_a_table_are_flags_and_wrong_ones_are_named() {
    let place = Place::new();
    let describe = |set: &str| place.run(&["describe", "--set", set]);
    assert!(!succeeded(describe("net.dropout=off")).contains("drop6"));
    assert!(succeeded(describe("net.dropout=on")).contains("drop6"));
    assert!(!succeeded(describe("net.lrn=off")).contains("norm1"));
    for (set, parts) in [
        ("net.dropout=7", ["net.dropout", "neither true nor false"]),
        ("net.dropout=of", ["net.dropout", "neither true nor false"]),
        ("net.without=[\"conv9\"]", ["net.without", "conv2, conv3, conv4, conv5, fc6, fc7"]),
        ("net.without=[\"conv1\"]", ["conv1", "cannot be taken away"]),
        ("net.without=[\"fc8\"]", ["fc8", "cannot be taken away"]),
        ("net.reads=none", ["net.reads", "none"]),
    ] {
        place.fails(&["describe", "--set", set], 2, &parts);
    }
    place.fails(&["describe", "--recipe", "no-lnr"], 2, &["no-lnr", "did you mean no-lrn?"]);
}

#[test]
fn claims_are_listed_with_what_they_would_take() {
    let place = Place::new();
    // One stream has nothing to communicate with.
    let split = [
        "reproduce",
        "communication",
        "--data",
        "data",
        "--recipe",
        "quick",
        "--set",
        "net.conv_channels=[8,12,16,16,13]",
    ];
    place.fails(&split, 2, &["quick", "conv5", "13"]);
    let own = "base = \"quick\"\nname = \"own\"\n[net]\nimage_size = 67\nconv_channels = [8, 12, 16, 16, 12]\n\
               dense_units = [24, 20]\n[input]\nresize = 67\n[train]\nbatch_size = 16\n";
    std::fs::write(place.path("own.toml"), own).unwrap();
    let listed = place.ok(&["reproduce", "--data", "data", "--seeds", "2", "--recipe", "./own.toml"]);
    for part in
        ["80 training images, 2 seeds", "two-gpus (3.2)", "one-gpu: +1.7", "figure1-tanh: 6.0 times", "own-no-conv4"]
    {
        assert!(listed.contains(part), "no {part} in {listed}");
    }
    assert!(!listed.contains("unknown"), "{listed}");
    place.fails(&["reproduce", "dropuot", "--data", "data"], 2, &["dropuot", "did you mean dropout?"]);
    place.fails(&["reproduce", "dropout"], 2, &["--data DIR"]);
    place.fails(&["reproduce", "dropout", "--data", "none"], 3, &["none"]);
    assert!(!place.path("runs").exists());
}

#[test]
fn claims_are_run_once_and_told_with_their_spread() {
    let place = Place::new();
    let reproduce = |claims: &[&str]| {
        let shared = ["--recipe", "quick", "--data", "data", "--seeds", "2", "--out", "out"];
        place.ok(&[&["reproduce"], claims, &shared, &TINY, &["--", "--gpus", "0", "--steps", "6"]].concat())
    };
    let told = reproduce(&["two-gpus", "specialization"]);
    for part in ["run 1 of 8", "run 8 of 8", "two-gpus (3.2)", "held-out error, %", "published     +1.7", "(2 seeds)"] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    let runs: Vec<_> = ["quick", "quick-one-gpu", "quick-one-tower", "quick-communication-everywhere"]
        .iter()
        .flat_map(|name| [0, 1].map(|seed| place.path(&format!("out/{name}-seed{seed}"))))
        .collect();
    let before: Vec<_> = runs.iter().map(|run| metrics(run)).collect();
    // Seeds differ, and so do variants.
    assert!((1..before.len()).all(|index| before[..index].iter().all(|other| *other != before[index])));
    let page = std::fs::read_to_string(place.path("out/reproduce.html")).unwrap();
    assert!(page.contains("What was found") && page.contains("quick-one-gpu-seed1"), "{page}");
    // What is there is not trained again, and serves another claim.
    let told = reproduce(&["communication"]);
    assert!(told.contains("run 6 of 6") && told.contains("quick-no-communication"), "{told}");
    assert_eq!(before, runs.iter().map(|run| metrics(run)).collect::<Vec<_>>());
}
