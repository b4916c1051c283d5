//! Readers of files that others have made, fed with damaged ones: whatever comes, they end with an image, a set, or an
//! error, never with a panic, without end or with all of the memory. The mutations follow from their numbers, so a failure
//! can be repeated; `ALEXNET_SPLIT_FUZZ=N` makes N times as many.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::support::forms::*;
use crate::support::fuzzed;
use crate::support::jpegs::{Jpeg, adobe};
use crate::support::place::Place;
use alexnet_split::data::DataSet;
use alexnet_split::data::decode::decode;
use alexnet_split::data::sources::{self, SourceOptions};
use alexnet_split::rng::{Philox, Purpose};
use image::{DynamicImage, ImageFormat};
use tempfile::TempDir;
use tiff::encoder::colortype::RGB8;
use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder};

fn rounds(usual: u32) -> u32 {
    usual * std::env::var("ALEXNET_SPLIT_FUZZ").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// A damaged copy: bits flipped, numbers made extreme, a piece lost or doubled, the end cut off.
fn damaged(bytes: &[u8], number: u32) -> Vec<u8> {
    let rng = Philox::new(1, Purpose::Check, 9);
    let draw = |what: u32, bound: usize| rng.below([number, what, 0, 0], bound.max(1) as u32) as usize;
    let mut bytes = bytes.to_vec();
    for change in 0..1 + draw(0, 4) as u32 {
        let draw = |what: u32, bound: usize| draw(10 * (change + 1) + what, bound);
        if bytes.len() < 16 {
            return bytes;
        }
        // Half of the changes hit the beginning, where the sizes are.
        let reach = if draw(0, 2) == 0 { bytes.len().min(200) } else { bytes.len() };
        let at = draw(1, reach - 8);
        match draw(2, 5) {
            0 => bytes[at] ^= 1 << draw(3, 8),
            1 => {
                let extreme = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][draw(3, 5)];
                bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
            }
            2 => bytes.truncate(at.max(1)),
            3 => drop(bytes.drain(at..(at + 1 + draw(3, 64)).min(reach))),
            _ => {
                let piece = bytes[at..(at + 1 + draw(3, 64)).min(reach)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// TIFF files of a picture, compressed in each way.
fn tiffs(picture: &image::RgbImage) -> Vec<Vec<u8>> {
    let file = |compression, predictor| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression).with_predictor(predictor);
        { encoder }.write_image::<RGB8>(picture.width(), picture.height(), picture).unwrap();
        bytes.into_inner()
    };
    let lzw = file(Compression::Lzw, Predictor::Horizontal);
    let others = [Compression::Uncompressed, Compression::Packbits, Compression::Deflate(DeflateLevel::Fast)];
    let others = others.map(|compression| file(compression, Predictor::None));
    [vec![lzw], others.to_vec()].concat()
}

#[test]
fn damaged_images_are_errors_or_images() {
    let picture = DynamicImage::from(picture(5));
    let mut files = vec![jpeg(&picture.to_rgb8())];
    let mut progressive = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut progressive, 80);
    encoder.set_progressive(true);
    let (width, height) = (picture.width() as u16, picture.height() as u16);
    encoder.encode(&picture.to_rgb8(), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    files.push(progressive);
    // Four colours, scans of one colour and restarts have their own code.
    let sampling = [[2, 2], [1, 1], [1, 2]];
    let apart = Jpeg { scans: vec![vec![0], vec![1], vec![2]], restart: 3, ..Jpeg::new([61, 45], sampling) };
    let colours = vec![(1, [2, 2]), (2, [1, 1]), (3, [1, 1]), (4, [2, 2])];
    let four = Jpeg { colours, scans: vec![vec![0, 1, 2, 3]], front: adobe(2), ..apart.clone() };
    files.extend([apart.bytes(), four.bytes(), Jpeg { progressive: true, ..four }.bytes()]);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif] {
        files.push(encoded(&picture, format));
    }
    files.push([format!("P6\n{width} {height}\n255\n").as_bytes(), picture.to_rgb8().as_raw()].concat());
    files.extend(tiffs(&picture.to_rgb8()));
    let (mut read, mut refused) = (0, 0);
    for (kind, file) in files.iter().enumerate() {
        assert!(decode(file).is_ok(), "file {kind}");
        for number in 0..rounds(1500) {
            match decode(&damaged(file, number)).and_then(|image| image.square(16)) {
                Ok(square) => {
                    assert_eq!(square.len(), 768);
                    read += 1;
                }
                Err(problem) => {
                    assert!(!problem.contains("a defect of the decoder"), "file {kind}, number {number}: {problem}");
                    refused += 1;
                }
            }
        }
    }
    eprintln!("{read} images, {refused} errors");
    assert!(read > 500 && refused > 500);
}

/// The inputs that the fuzzers found, by name: `fuzz/corpus/TARGET.tar.gz`.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{target}.tar.gz"));
    let file = flate2::read::GzDecoder::new(fs::File::open(path).unwrap());
    let mut archive = tar::Archive::new(file);
    let read = |mut entry: tar::Entry<'_, _>| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
}

fn replay(name: &str, target: fn(&[u8])) {
    let inputs = kept(name);
    assert!(inputs.len() > 100, "{} inputs of {name}", inputs.len());
    for (input, bytes) in inputs {
        // Shown where the next line is a failure.
        eprintln!("{input}");
        target(&bytes);
    }
}

#[test]
fn a_reader_that_panics_is_one_message() {
    let (_, bytes) = kept("set").into_iter().find(|(name, _)| name == "parquet-reader-panics").unwrap();
    let place = Place::new();
    fs::create_dir(place.path("set")).unwrap();
    fs::write(place.path("set/train-0.parquet"), &bytes[1..]).unwrap();
    place.fails(&["prepare", "set", "out"], 3, &["train-0.parquet", "damaged parquet"]);
}

#[test]
fn images_that_fuzzers_kept() {
    replay("image", fuzzed::image);
}

#[test]
fn sets_that_fuzzers_kept() {
    replay("set", fuzzed::set);
}

#[test]
fn checkpoints_that_fuzzers_kept() {
    replay("checkpoint", fuzzed::checkpoint);
}

/// Damages each file of a set in turn and reads the rest.
fn damage_set(make: fn(&Path), usual: u32) {
    let folder = TempDir::new().unwrap();
    make(folder.path());
    let read = |number: u32| {
        let Ok(found) = sources::open(folder.path(), &SourceOptions::holding_out(0.2)) else { return };
        for part in [&found.train, &found.val] {
            assert!(part.len() < 1_000_000, "number {number}");
            part.read(0..part.len(), &|_, picture| drop(picture));
        }
    };
    let mut files = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        let whole = fs::read(&path).unwrap();
        for number in 0..rounds(usual) {
            fs::write(&path, damaged(&whole, number)).unwrap();
            read(number);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn damaged_tars_are_errors_or_sets() {
    damage_set(as_webdataset, 150);
}

#[test]
fn damaged_official_files_are_errors_or_sets() {
    damage_set(as_official_files, 200);
}

#[test]
fn damaged_parquet_is_an_error_or_a_set() {
    damage_set(as_parquet, 300);
}

#[test]
fn damaged_idx_is_an_error_or_a_set() {
    damage_set(|folder| as_idx(folder, 5), 300);
}

#[test]
fn damaged_prepared_sets_are_errors_or_sets() {
    let place = Place::new();
    as_folders(&place.path("photos"));
    place.ok(&["prepare", "photos", "out", "--size", "16"]);
    for name in ["dataset.json", "train-000000.tsv", "mean.safetensors"] {
        let path = place.path("out").join(name);
        let whole = fs::read(&path).unwrap();
        for number in 0..rounds(500) {
            fs::write(&path, damaged(&whole, number)).unwrap();
            let Ok(data) = DataSet::load(&place.path("out")) else { continue };
            (0..data.train.len()).for_each(|index| drop(data.train.image(index)));
        }
        fs::write(&path, whole).unwrap();
    }
}
