//! The path of images into the network compared with torchvision's, both on one core, in alternating passes:
//! `cargo bench --bench loader -- FOLDER [PYTHON]`, where FOLDER is a set in folders of JPEG files, and PYTHON has
//! torchvision.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use alexnet_split::backend::Backend;
use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::config::Recipe;
use alexnet_split::data::input::Preprocessor;
use alexnet_split::data::prepare::{Observer, Options, compress, prepare};
use alexnet_split::data::shards::Store;
use alexnet_split::data::sources::{Picture, SourceOptions};
use alexnet_split::data::{DataSet, Images, sources};

const RUNS: usize = 7;

struct Quiet;

impl Observer for Quiet {
    fn prepared(&self, _: usize, _: usize) {}
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let Some(folder) = args.first().map(Path::new) else {
        println!("give a folder of folders of JPEG files: cargo bench --bench loader -- FOLDER [PYTHON]");
        return;
    };
    let temporary = tempfile::TempDir::new().expect("a folder for the prepared set");
    let prepared = temporary.path().join("prepared");
    let found = sources::open(folder, &SourceOptions::holding_out(0.01)).expect("a set in folders");
    let options = Options { size: 256, store: Store::Jpeg, quality: 90, max_bad_images: 0 };
    prepare(folder, &found, &prepared, &options, &Quiet).expect("a prepared set");
    let data = DataSet::load(&prepared).expect("the prepared set");
    let recipe = Recipe::find("paper").expect("a recipe of the program");
    let input = Preprocessor::new(&recipe.input, [3, 224, 224], &data).expect("the paper's input");
    let core = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let count = data.train.len();
    let indices: Vec<u32> = (0..count as u32).collect();

    let lists = ["prepared", "originals"].map(|way| temporary.path().join(way.to_owned() + ".list"));
    let tsv = std::fs::read_to_string(prepared.join("train-000000.tsv")).expect("an index");
    let rows = tsv.lines().map(|row| row.split('\t').collect::<Vec<_>>());
    let [mut in_shards, mut originals] = [String::new(), String::new()];
    let mut files = Vec::new();
    for row in rows {
        in_shards += &format!("{}\t{}\t{}\n", prepared.join("train-000000.tar").display(), row[2], row[3]);
        let file = std::fs::read(row[5]).expect("an original");
        originals += &format!("{}\t0\t{}\n", row[5], file.len());
        files.push(Picture::File(file));
    }
    std::fs::write(&lists[0], in_shards).expect("a list");
    std::fs::write(&lists[1], originals).expect("a list");
    let mut peers = args.get(1).map(|python| lists.each_ref().map(|list| Peer::start(python, list)));

    let backend = CpuBackend::default();
    let mean = input.mean().to_vec();
    let mut y = vec![0.; count * 3 * 224 * 224];
    let mut ours: [Vec<f64>; 3] = Default::default();
    let mut theirs: [Vec<f64>; 2] = Default::default();
    core.install(|| {
        for run in 0..=RUNS as u64 {
            let start = Instant::now();
            let batch = input.batch(&data.train, &indices, Some((1, run))).expect("a batch");
            let bytes = start.elapsed();
            let Images::Bytes(pixels, windows) = &batch.images else { unreachable!("bytes of a set in shards") };
            backend.augment(input.shape(), pixels, windows, &mean, y.len(), &mut y).expect("the network's input");
            let floats = start.elapsed();
            let start = Instant::now();
            for file in &files {
                compress(file, &options, true).expect("a JPEG and its pixels");
            }
            let original = start.elapsed();
            if run == 0 {
                continue; // to warm up
            }
            for (times, time) in ours.iter_mut().zip([bytes, floats, original]) {
                times.push(time.as_secs_f64() * 1e3);
            }
            if let Some(peers) = &mut peers {
                theirs.iter_mut().zip(peers).for_each(|(times, peer)| times.push(peer.pass()));
            }
        }
    });
    let rate = |ms: &mut Vec<f64>| {
        ms.sort_by(f64::total_cmp);
        ms.get(ms.len() / 2).map(|ms| count as f64 / ms * 1e3)
    };
    let [bytes, floats, originals] = ours.each_mut().map(rate);
    let [their_floats, their_originals] = theirs.each_mut().map(rate);
    println!("{count} images, one core, medians of {RUNS} passes, images/s");
    println!("{:<44} {:>8} {:>12} {:>6}", "", "ours", "torchvision", "ratio");
    for (what, ours, theirs) in [
        ("training: bytes for a GPU", bytes, their_floats),
        ("training: floats on the CPU", floats, their_floats),
        ("preparing: decode, scale, compress", originals, their_originals),
    ] {
        let of = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.0}"));
        let ratio = ours.zip(theirs).map_or("-".into(), |(ours, theirs)| format!("{:.2}", ours / theirs));
        println!("{what:<44} {:>8} {:>12} {ratio:>6}", of(ours), of(theirs));
    }
}

/// The running scripts/bench_loader.py.
struct Peer(Child, BufReader<std::process::ChildStdout>);

impl Peer {
    fn start(python: &str, list: &Path) -> Peer {
        let way = list.file_stem().expect("a list's name");
        let mut child = Command::new(python)
            .args(["scripts/bench_loader.py".as_ref(), way, list.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a Python with torchvision");
        let mut from = BufReader::new(child.stdout.take().expect("a pipe"));
        from.read_line(&mut String::new()).expect("its first line");
        Peer(child, from)
    }

    fn pass(&mut self) -> f64 {
        let to = self.0.stdin.as_mut().expect("a pipe");
        to.write_all(b"\n").and_then(|()| to.flush()).expect("the script at work");
        let mut line = String::new();
        self.1.read_line(&mut line).expect("an answer");
        line.trim().parse().expect("milliseconds")
    }
}
