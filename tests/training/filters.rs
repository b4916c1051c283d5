//! Figure 3: how colourful kernels are, where every weight is in the picture, and what `filters` makes of a run.

use std::path::Path;

use crate::support::forms::as_folders;
use crate::support::place::{Place, TINY, checkpoint, succeeded};
use crate::support::{normals, pair, tiny_options};
use alexnet_split::data::bitmap::Bitmap;
use alexnet_split::engine::first_layer::{FirstLayerFilters, colourfulness, write_png};
use alexnet_split::engine::stream::Tensor;
use alexnet_split::run::rows::{Filters, Row};
use serde_json::json;
use tempfile::TempDir;

/// The pixels of a PNG file, read by another library than the one that wrote it.
fn opened(path: &Path) -> Bitmap {
    let picture = image::open(path).unwrap();
    let (size, channels) = ([picture.width(), picture.height()], picture.color().channel_count().into());
    Bitmap { size, channels, values: picture.into_bytes() }
}

#[test]
fn colourfulness_is_the_energy_outside_the_grey_axis() {
    // Two taps, three channels.
    assert_eq!(colourfulness(&[0.1, -3., 0.1, -3., 0.1, -3.], 3, 2), 0., "grey");
    assert_eq!(colourfulness(&[1., 2., -1., 0., 0., -2.], 3, 2), 1., "channels cancel");
    assert_eq!(colourfulness(&[0.; 6], 3, 2), 0.);
    // Red alone: the mean is a third, 3 (1/3)^2 of 1 is along the axis.
    assert!((colourfulness(&[1., 0., 0., 0., 0., 0.], 3, 2) - 2. / 3.).abs() < 1e-15);
    // (2, 1, 0): mean 1, so 3 of 5 are along it; a second tap of grey adds 3 to both.
    assert!((colourfulness(&[2., 1., 0.], 3, 1) - 2. / 5.).abs() < 1e-15);
    assert!((colourfulness(&[2., 1., 1., 1., 0., 1.], 3, 2) - 2. / 8.).abs() < 1e-15);
    // As large or small as f32 goes.
    assert!((colourfulness(&[3e38, 0., 0.], 3, 1) - 2. / 3.).abs() < 1e-15);
    assert!((colourfulness(&[1e-40, 0., 0.], 3, 1) - 2. / 3.).abs() < 1e-15);
}

#[test]
fn random_kernels_have_two_thirds_and_no_gap() {
    let streams = (0..2).map(|seed| normals(48 * 363, 0.01, seed)).collect();
    let colours = FirstLayerFilters::new("conv1", [3, 11, 11], streams).unwrap().colours().unwrap();
    for mean in colours.means() {
        // One kernel's standard deviation is 0.035 (a beta distribution of 121 and 60.5).
        assert!((mean - 2. / 3.).abs() < 0.02, "{mean}");
    }
    assert!(colours.gap().unwrap().abs() < 0.03);
    assert_eq!(colours.above_half(), [48, 48]);
}

#[test]
fn the_streams_are_described_and_compared() {
    let (grey, red, blue_red) = ([1., 1., 1.], [1., 0., 0.], [1., 0., -1.]);
    let streams = vec![[grey, grey, grey, red].concat(), [red, blue_red].concat()];
    let kernels = FirstLayerFilters::new("conv1", [3, 1, 1], streams).unwrap();
    let colours = kernels.colours().unwrap();
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    near(colours.means()[0], 1. / 6.);
    near(colours.means()[1], 5. / 6.);
    near(colours.gap().unwrap(), 4. / 6.);
    // Sorted 0 0 0 2/3: the upper quartile is a quarter of the way from the third to the fourth.
    for (found, expected) in colours.quartiles().concat().into_iter().zip([0., 0., 1. / 6., 0.75, 5. / 6., 11. / 12.]) {
        near(found, expected);
    }
    assert_eq!(colours.above_half(), [1, 2]);
    assert_eq!(colours.tenths(), [[3, 0, 0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0, 0, 1]]);

    let line =
        |kernels: &FirstLayerFilters| kernels.colours().map(|colours| json!(Row::Filters(Filters::of(50, &colours))));
    let row = line(&kernels).unwrap();
    assert_eq!((&row["kind"], &row["step"]), (&"filters".into(), &50.into()));
    assert_eq!(row["colourfulness"].as_array().unwrap().iter().map(|s| s.as_array().unwrap().len()).sum::<usize>(), 6);
    near(row["means"][1].as_f64().unwrap() - row["means"][0].as_f64().unwrap(), row["gap"].as_f64().unwrap());

    let one = FirstLayerFilters::new("conv1", [3, 1, 1], vec![red.to_vec()]).unwrap();
    assert_eq!(one.colours().unwrap().gap(), None);
    assert!(line(&one).unwrap().get("gap").is_none());
    assert_eq!(line(&FirstLayerFilters::new("conv1", [1, 1, 3], vec![red.to_vec()]).unwrap()), None, "no colours");
}

#[test]
fn every_weight_is_where_the_2012_code_drew_it() {
    // Two streams of 18 kernels of 2 rows and 3 columns: two rows of kernels each, the second with two.
    let [channels, rows, cols] = [3, 2, 3];
    let value = |stream: usize, kernel: usize, c: usize, r: usize, s: usize| {
        (stream * 324 + ((kernel * channels + c) * rows + r) * cols + s) as f32
    };
    let all = |stream: usize| {
        let taps = (0..18 * channels * rows * cols).map(|i| (stream * 324 + i) as f32);
        taps.collect::<Vec<_>>()
    };
    let kernels = FirstLayerFilters::new("conv1", [channels, rows, cols], vec![all(0), all(1)]).unwrap();
    let (max, scale) = (647., 3);
    let picture = kernels.picture(scale).unwrap();
    // 16 kernels of 3 columns and 17 borders; 4 rows of 2 and 5 borders, 2 lines more between the streams.
    let [width, height] = [(16 * 3 + 17) * scale, (4 * 2 + 5 + 2) * scale];
    assert_eq!((picture.size, picture.channels), ([width, height], 3));
    let picture = image::RgbImage::from_raw(width, height, picture.values).unwrap();
    let mut expected = image::RgbImage::new(16 * 3 + 17, 4 * 2 + 5 + 2);
    for (stream, tops) in [[1, 4], [9, 12]].into_iter().enumerate() {
        for kernel in 0..18 {
            for (r, s) in (0..rows).flat_map(|r| (0..cols).map(move |s| (r, s))) {
                let shade = |c| (255. * value(stream, kernel, c, r, s) / max).round() as u8;
                let (x, y) = (1 + kernel % 16 * 4 + s, tops[kernel / 16] + r);
                expected.put_pixel(x as u32, y as u32, image::Rgb([shade(0), shade(1), shade(2)]));
            }
        }
    }
    for (x, y, pixel) in picture.enumerate_pixels() {
        assert_eq!(pixel, expected.get_pixel(x / scale, y / scale), "{x}, {y}");
    }
    assert_eq!(picture.get_pixel(3, 3)[0], 0, "the least weight");
    assert_eq!(picture.pixels().map(|pixel| pixel[2]).max(), Some(255), "the greatest");
}

#[test]
fn one_stream_one_channel_and_what_cannot_be_drawn() {
    let grey =
        FirstLayerFilters::new("conv1", [1, 2, 2], vec![vec![-1., 0., 0.5, 1., f32::NAN, f32::INFINITY, 1., 1.]])
            .unwrap();
    let picture = grey.picture(1).unwrap();
    assert_eq!((picture.size, picture.channels), ([7, 4], 1));
    let rows: Vec<&[u8]> = picture.values.chunks(7).collect();
    assert_eq!(rows, [[0; 7], [0, 0, 128, 0, 0, 0, 0], [0, 191, 255, 0, 255, 255, 0], [0; 7]]);
    let same = FirstLayerFilters::new("conv1", [1, 1, 1], vec![vec![4.; 3]]).unwrap().picture(1).unwrap();
    assert_eq!(same.values[7..14], [0, 128, 0, 128, 0, 128, 0]);

    let text =
        FirstLayerFilters::new("conv1", [4, 1, 1], vec![vec![0.; 8]]).unwrap().picture(1).unwrap_err().to_string();
    assert!(text.contains("conv1") && text.contains("4 channels"), "{text}");
    let text = FirstLayerFilters::new("conv1", [3, 5, 5], vec![vec![0.; 75], vec![0.; 76]]).unwrap_err().to_string();
    assert!(text.contains("stream 1") && text.contains("76"), "{text}");
    let large = FirstLayerFilters::new("conv1", [3, 1, 1], vec![vec![0.; 3]]).unwrap();
    assert!(large.picture(10_000).unwrap_err().to_string().contains("too large"));
    assert!(FirstLayerFilters::new("conv1", [3, 0, 5], vec![vec![]]).is_err());
}

#[test]
fn the_png_has_the_pictures_pixels() {
    let folder = TempDir::new().unwrap();
    for channels in [1, 3] {
        let streams = (0..2).map(|seed| normals(20 * channels * 25, 1., seed)).collect();
        let picture = FirstLayerFilters::new("conv1", [channels, 5, 5], streams).unwrap().picture(2).unwrap();
        let path = folder.path().join("filters.png");
        write_png(&picture, &path).unwrap();
        assert_eq!(opened(&path), picture);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_networks_kernels_are_its_first_layers() {
    let (_, mut pair) = pair(&tiny_options(), 2, 2);
    let kernels = FirstLayerFilters::of_pair(&mut pair).unwrap().unwrap();
    assert_eq!((kernels.layer(), kernels.shape(), kernels.counts()), ("conv1", [3, 11, 11], vec![4, 4]));
    let index = pair.plans()[0].params.iter().position(|param| param.name == "conv1.weight.own").unwrap();
    let values = (0..2).map(|stream| pair.read_param(stream, index, Tensor::Value).unwrap()).collect();
    assert_eq!(kernels, FirstLayerFilters::new("conv1", [3, 11, 11], values).unwrap());
}

#[test]
fn the_command_draws_and_measures_a_run() {
    let place = Place::new();
    as_folders(&place.path("photos"));
    place.ok(&["prepare", "photos", "photos-67", "--size", "67", "--store", "raw"]);
    let tiny = [&TINY[..8], &["--batch-size", "4", "--gpus", "0", "--steps", "2"]].concat();
    let train = |args: &[&str]| succeeded(place.run(&[&tiny[..], args].concat()));
    train(&["--data", "photos-67", "--out", "run"]);

    let text = place.ok(&["filters", "run", "filters.png"]);
    for part in ["conv1", "4 and 4 kernels of 3x11x11", "stream 0", "median", "of 4", "0.9 to 1.0", "gap"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    // The checkpoint's own bytes, read another way.
    let files = checkpoint(&place.path("run"));
    let weights = |file: &[u8]| {
        let file = safetensors::SafeTensors::deserialize(file).unwrap();
        let (words, _) = file.tensor("conv1.weight.own").unwrap().data().as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect::<Vec<_>>()
    };
    let streams = files.iter().filter(|(name, _)| name.starts_with("stream")).map(|(_, file)| weights(file)).collect();
    let kernels = FirstLayerFilters::new("conv1", [3, 11, 11], streams).unwrap();
    assert_eq!(opened(&place.path("filters.png")), kernels.picture(4).unwrap());

    let json = place.ok(&["filters", "run", "small.png", "--scale", "1", "--json"]);
    let row: serde_json::Value = serde_json::from_str(&json).unwrap();
    let metrics = json!(Row::Filters(Filters::of(2, &kernels.colours().unwrap())));
    for key in ["kind", "step", "colourfulness", "means", "gap"] {
        assert_eq!(row[key], metrics[key], "{key}");
    }
    assert_eq!((row["width"].as_u64(), row["height"].as_u64()), (Some(4 * 12 + 1), Some(2 * 12 + 1 + 2)));
    assert_eq!(opened(&place.path("small.png")), kernels.picture(1).unwrap());

    // One channel; one stream.
    train(&["--data", "data", "--out", "grey"]);
    assert!(place.ok(&["filters", "grey", "grey.png"]).contains("no colours"));
    assert_eq!(opened(&place.path("grey.png")).channels, 1);
    train(&["--data", "photos-67", "--set", "net.streams=1", "--out", "one"]);
    let text = place.ok(&["filters", "one", "one.png"]);
    assert!(text.contains("8 kernels of 3x11x11") && !text.contains("gap"), "{text}");

    // A pipe gets the picture and stays a pipe.
    let pipe = place.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    place.ok(&["filters", "run", "pipe", "--scale", "1"]);
    assert_eq!(reader.join().unwrap(), std::fs::read(place.path("small.png")).unwrap());
    assert!(!std::fs::metadata(&pipe).unwrap().is_file());

    // What cannot be read or written is named.
    place.fails(&["filters", "photos", "x.png"], 4, &["no checkpoint"]);
    place.fails(&["filters", "run", "nowhere/x.png"], 1, &["nowhere"]);
    place.fails(&["filters", "run", "x.png", "--scale", "0"], 2, &["--scale"]);
    let file = place.path("run/checkpoints/step-00000002/stream1.safetensors");
    std::fs::write(&file, b"1234").unwrap();
    place.fails(&["filters", "run", "x.png"], 4, &["stream1.safetensors", "damaged"]);
    assert!(!place.path("x.png").exists(), "nothing was drawn");
}
