//! Networks and recipes as files: a user's network needs no Rust, and errors name the faulty key.

use crate::support::place::{Place, failed, metrics, succeeded};
use crate::support::tolerance::MERGED;
use alexnet_split::config::Recipe;
use alexnet_split::net::spec::Net;
use alexnet_split::show::describe::describe;

/// LeNet-5's table, but for its pooling and its sigmoids; recipe `lenet` has these.
const LENET: &str = r#"
name = "own-lenet"
base = "fashion"

[net]
image_size = 28
layers = [
    { conv = "conv1", out = 6, kernel = 5, pad = 2 }, "tanh", { max_pool = 2, stride = 2 },
    { conv = "conv2", out = 16, kernel = 5, std = 0.1 }, "tanh", { max_pool = 2, stride = 2 },
    { dense = "fc3", out = 120 }, "tanh",
    { dense = "fc4", out = 84 }, "tanh",
    { dense = "fc5", out = "classes" }, "softmax",
]

[input]
resize = 28

[train]
batch_size = 25
"#;

fn write(place: &Place, text: &str) {
    std::fs::write(place.path("own.toml"), text).unwrap();
}

#[test]
fn a_network_of_ones_own_trains_from_a_file() {
    let place = Place::new();
    write(&place, LENET);
    let shown =
        place.ok(&["describe", "--recipe", "own.toml", "--set", "net.classes=10", "--set", "net.image_channels=1"]);
    // 6 (25 + 1) + 16 (150 + 1) + 120 (400 + 1) + 84 (120 + 1) + 10 (84 + 1): the 61,706 that are taught.
    for part in ["recipe own-lenet", "1x28x28", "tanh1", "16x10x10", "fc5", "61,706"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    place.ok(&["--gpus", "0", "--recipe", "own.toml", "--data", "data", "--out", "run", "--steps", "4"]);
    let rows = metrics(&place.path("run"));
    assert!(rows.iter().filter(|row| row["kind"] == "step").all(|row| row["loss"].as_f64().unwrap() < 3.));
    // What the run keeps is whole: the file that it came from may change.
    std::fs::remove_file(place.path("own.toml")).unwrap();
    place.ok(&["--resume", "run", "--steps", "5"]);
    let kept = std::fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    assert!(
        kept.contains(
            "{ conv = \"conv2\", out = 16, kernel = 5, std = 0.1 }, \"tanh\", { max_pool = 2, stride = 2 },\n"
        ),
        "{kept}"
    );
}

#[test]
fn streams_and_exchanges_are_fields_of_a_row() {
    let place = Place::new();
    let split = LENET
        .replace("[net]", "[net]\nstreams = 2")
        .replace("out = 120", "out = 120, reads = \"both\"")
        .replace("\"classes\"", "\"classes\", on = \"stream0\"");
    write(&place, &split);
    let shown = place.ok(&["describe", "--recipe", "own.toml"]);
    assert!(shown.contains("stream 1") && shown.contains("both"), "{shown}");
    place.ok(&["--gpus", "0", "--recipe", "own.toml", "--data", "data", "--out", "run", "--steps", "2"]);
    write(&place, &split.replace("out = 16", "out = 15"));
    place.fails(&["describe", "--recipe", "own.toml"], 2, &["own.toml", "conv2", "15", "evenly"]);
}

#[test]
fn what_is_wrong_is_told_by_file_and_layer() {
    let place = Place::new();
    let conv2 = "{ conv = \"conv2\", out = 16, kernel = 5, std = 0.1 }";
    let wrong: [(&str, &str, &[&str]); 23] = [
        (conv2, "{ conv = \"conv2\", out = 16, kernel = 5, strid = 2 }", &["conv2", "strid", "stride, pad"]),
        (conv2, "{ conv = \"conv2\", out = 16 }", &["conv2", "no kernel"]),
        (conv2, "{ conv = \"conv2\", out = 0, kernel = 5 }", &["conv2", "out = 0", "at least 1"]),
        (conv2, "{ conv = \"conv2\", out = 16, kernel = -5 }", &["conv2", "-5"]),
        (conv2, "{ conv = \"conv2\", out = 16, kernel = 50 }", &["conv2", "50x50", "14x14"]),
        (conv2, "{ conv = \"conv1\", out = 16, kernel = 5 }", &["conv1", "two of this name"]),
        (conv2, "{ conv = \"conv2\", out = 16, kernel = 5, reads = \"all\" }", &["conv2", "all", "both"]),
        (conv2, "{ conv = \"a b\", out = 16, kernel = 5 }", &["a b", "not a valid layer name"]),
        (conv2, "{ convolution = \"conv2\", out = 16 }", &["convolution", "conv, dense"]),
        (conv2, "\"swish\"", &["swish", "relu, tanh, sigmoid"]),
        (conv2, "7", &["7 is not a layer"]),
        (conv2, "{ avg_pool = 2 }", &["avg_pool = 2", "no stride"]),
        (conv2, "{ avg_pool = 2, stride = 2, ties = \"all\" }", &["avg_pool = 2", "no key \"ties\""]),
        (conv2, "{ max_pool = 2, stride = 2, ties = \"last\" }", &["max_pool = 2", "last", "\"first\" or \"all\""]),
        (conv2, "{ dropout = 1.0 }", &["dropout = 1.0", "below 1"]),
        ("\"classes\"", "10", &["fc5", "classes"]),
        ("out = 84", "out = 84, on = \"stream0\"", &["fc4", "last dense layer"]),
        ("image_size = 28", "image_size = 28\nstreams = 0", &["net.streams", "0"]),
        (conv2, "{ conv = \"conv2\", out = 1000000, kernel = 1, pad = 1000000 }", &["conv2", "2147483647"]),
        // Where all inputs are 0, it would divide by 0.
        (conv2, "{ lrn = 5, k = 0, alpha = 1e-4, beta = 0.75 }", &["lrn = 5", "k = 0; expected more than 0"]),
        (conv2, "{ lrn = 5, k = 2, alpha = -1e-4, beta = 0.75 }", &["lrn = 5", "alpha = -0.0001; expected 0 or more"]),
        ("out = 84", "out = \"classes\"", &["fc4", "number"]),
        ("\"classes\" }, \"softmax\"", "\"classes\" }", &["softmax"]),
    ];
    for (row, instead, parts) in wrong {
        write(&place, &LENET.replace(row, instead));
        place.fails(&["describe", "--recipe", "own.toml"], 2, &[&["own.toml"], parts].concat());
    }
    // The first row must have weights, and reads nothing but the image.
    for (row, instead) in
        [("{ conv = \"conv1\"", "\"relu\", { conv = \"conv1\""), ("pad = 2 }", "pad = 2, reads = \"both\" }")]
    {
        write(&place, &LENET.replace(row, instead));
        place.fails(&["describe", "--recipe", "own.toml"], 2, &["own.toml", "first"]);
    }
}

/// The reference's operations train a tiny network to the losses of the fast ones.
#[test]
fn the_reference_trains_as_the_fast_operations_do() {
    let place = Place::new();
    let losses = |out: &str, backend: &str| {
        let args = ["--gpus", "0", "--backend", backend, "--steps", "4", "--out", out];
        let said = succeeded(place.train(&args));
        assert_eq!(said.contains("operations of the reference"), backend == "reference", "{said}");
        let rows = metrics(&place.path(out)).into_iter().filter(|row| row["kind"] == "step");
        rows.map(|row| row["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (fast, reference) = (losses("fast", "fast"), losses("reference", "reference"));
    assert_eq!((fast.len(), reference.len()), (4, 4));
    for (fast, reference) in fast.iter().zip(&reference) {
        assert!((fast - reference).abs() <= MERGED * reference, "{fast} beside {reference}");
    }
    let bf16 = ["--gpus", "0", "--backend", "reference", "--precision", "bf16"];
    failed(place.train(&bf16), 5, &["reference", "fp32"]);
}

#[test]
fn what_no_machine_can_run_is_refused() {
    let place = Place::new();
    let described = |set: &str, parts: &[&str]| place.fails(&["describe", "--recipe", "paper", "--set", set], 2, parts);
    described("net.classes=9223372036854775807", &["net.classes", "1000000"]);
    described("net.conv_channels=[9000000000000000000,256,384,384,256]", &["net.conv_channels"]);
    described("net.dense_units=[4000000000000000000,4]", &["net.dense_units"]);
    described("net.streams=0", &["net.streams"]);
    described("optimizer.momentum=2", &["optimizer.momentum"]);
    described("input.scale=0", &["input.scale", "other than 0"]);
    for name in ["../../x", "", ".x", "a\u{1b}b"] {
        described(&format!("name={name}"), &["name", "letters"]);
    }
    let adam = |set: &str, part: &str| place.fails(&["describe", "--recipe", "fashion", "--set", set], 2, &[part]);
    adam("optimizer.beta1=1", "betas");
    adam("optimizer.epsilon=-1", "epsilon");
}

#[test]
fn gradients_of_a_network_of_ones_own_are_checked() {
    let place = Place::new();
    write(&place, LENET);
    let text = place.ok(&["check-grads", "--recipe", "own.toml", "--gpus", "0"]);
    assert!(text.contains("fc5.weight") && text.contains("checks within"), "{text}");
}

/// The image is whole in both streams, whatever reads it.
#[test]
fn a_dense_first_layer_is_merged_as_it_is() {
    let place = Place::new();
    let dense = "name = \"dense\"\nbase = \"fashion\"\n[net]\nstreams = 2\nimage_size = 28\nlayers = [{ dense = \"a\", out = 6 }, \
                 \"relu\", { dense = \"b\", out = \"classes\", reads = \"both\" }, \"softmax\"]\n[input]\nresize = 28\n\
                 [train]\nbatch_size = 25\n";
    write(&place, dense);
    place.ok(&["--gpus", "0", "--recipe", "own.toml", "--data", "data", "--out", "two", "--steps", "2"]);
    let loss = |run: &str| {
        let text = place.ok(&["eval", run, "--gpus", "0", "--json"]);
        serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap()["loss"].as_f64().unwrap()
    };
    place.ok(&["convert", "two", "one"]);
    assert!((loss("two") - loss("one")).abs() < MERGED * loss("two"));
}

#[test]
fn a_run_whose_checkpoints_are_gone_is_not_begun_again() {
    let place = Place::new();
    let train = ["--gpus", "0", "--steps", "3", "--out", "run", "--continue"];
    succeeded(place.train(&train));
    std::fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    let before = metrics(&place.path("run"));
    failed(place.train(&train), 4, &["run", "checkpoints are missing"]);
    assert_eq!(metrics(&place.path("run")), before);
}

#[test]
fn recipes_build_on_each_other_but_not_on_themselves() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder")).unwrap();
    std::fs::write(place.path("folder/base.toml"), LENET).unwrap();
    std::fs::write(place.path("folder/own.toml"), "name = \"own\"\nbase = \"./base.toml\"\n[optimizer]\nlr = 0.5")
        .unwrap();
    let shown = place.ok(&["describe", "--recipe", "folder/own.toml", "--toml"]);
    assert!(shown.contains("name = \"own\"") && shown.contains("lr = 0.5") && shown.contains("fc5"), "{shown}");
    write(&place, "base = \"./own.toml\"");
    place.fails(&["describe", "--recipe", "own.toml"], 2, &["base", "own.toml", "refers back to itself"]);
    place.fails(&["describe", "--recipe", "papr"], 2, &["papr", "did you mean paper?"]);
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = place.ok(&["completions", shell]);
        assert!(text.contains("alexnet-split") && text.contains("precision"), "{shell}: {text}");
    }
    let page = place.ok(&["man"]);
    assert!(page.contains(".TH alexnet-split 1") && page.contains("check\\-grads"), "{page}");
    place.fails(&["repot", "run"], 2, &["repot", "report"]);
}

#[test]
fn the_recipes_are_what_they_say() {
    let parameters = |name: &str, classes: usize, channels: usize| {
        let recipe = Recipe::find(name).unwrap();
        let mut options = recipe.net;
        (options.classes, options.image_channels) = (Some(classes), Some(channels));
        describe(&Net::from_options(&options).unwrap(), 1, 1).unwrap().parameters
    };
    // The paper's "60 million"; the same table whole; the single tower of the course, whose notebook prints it.
    assert_eq!(parameters("paper", 1000, 3), 60_965_224);
    assert_eq!(parameters("quick", 1000, 3), 60_965_224);
    assert_eq!(parameters("fashion", 10, 1), 46_764_746);
    assert_eq!(parameters("lenet", 10, 1), 61_706);
    let quick = Recipe::find("quick").unwrap();
    assert_eq!((quick.input.scale, quick.train.precision), (1. / 255., None));
    assert_eq!(Recipe::find("half").unwrap().input.scale, 1. / 127.5);
    assert_eq!(Recipe::find("paper").unwrap().to_toml().lines().filter(|line| line.starts_with("    {")).count(), 8);
}

/// At the course's own rate, from its initialization: first the biases learn how often each class comes. What the sigmoids
/// do then takes hundreds of steps.
#[test]
fn lenet_trains_and_resumes() {
    let place = Place::new();
    let recipe = ["--gpus", "0", "--recipe", "lenet", "--data", "data", "--batch-size", "80"];
    place.ok(&[&recipe[..], &["--steps", "25", "--out", "run"]].concat());
    let rows = metrics(&place.path("run"));
    let losses = rows.iter().filter(|row| row["kind"] == "step").map(|row| row["loss"].as_f64().unwrap());
    let losses: Vec<f64> = losses.collect();
    assert!(losses.len() == 25 && losses[24] < losses[0] - 0.05 && losses[24] < 2.32, "{losses:?}");
    place.ok(&["--resume", "run", "--steps", "26"]);
    let shown = place.ok(&["describe", "lenet", "--data", "data"]);
    for part in ["sigmoid1", "pool2", "16x5x5", "fc5", "61,706"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
}

#[test]
fn networks_are_laid_side_by_side() {
    let place = Place::new();
    let shown = place.ok(&["describe", "half", "paper", "figure1"]);
    let line =
        |start: &str| shown.lines().find(|line| line.trim_start_matches("| ").starts_with(start)).unwrap().to_owned();
    let cells: Vec<String> =
        line("conv1").split('|').map(|cell| cell.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    // Of both streams together; 96 (3 11 11 + 1) parameters at 55 x 55 places.
    assert_eq!(cells[1..3], ["conv1 48x55x55 17,472 52,707,600", "conv1 96x55x55 34,944 105,415,200"]);
    let totals = line("parameters");
    assert!(["16,630,440", "60,965,224", "656,328"].iter().all(|total| totals.contains(total)), "{totals}");
    // Shorter networks end earlier.
    assert!(shown.lines().any(|line| line.starts_with("|    ") && line.contains("fc8")), "{shown}");
    let shapes = place.ok(&["describe", "fashion", "--data", "data", "--shapes"]);
    assert!(shapes.contains("conv1        output shape: (1, 96, 54, 54)\n"), "{shapes}");
    assert!(shapes.ends_with("loss         output shape: (1, 10)\n"), "{shapes}");
    let json = place.ok(&["describe", "half", "paper", "--json"]);
    let names = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["recipe"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["half", "paper"]);
    place.fails(&["describe", "half", "papr"], 2, &["papr", "did you mean paper?"]);
}
