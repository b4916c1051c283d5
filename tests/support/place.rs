//! Running the program in a folder of its own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Small enough to train in a second, with every layer of the paper's table in it.
#[rustfmt::skip]
pub const TINY: [&str; 10] = [
    "--set", "net.image_size=67", "--set", "input.resize=67", "--set", "net.conv_channels=[8,12,16,16,12]",
    "--set", "net.dense_units=[24,20]", "--batch-size", "16",
];

/// A folder that is gone when the test ends, with a small IDX data set in `data`.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        let place = Place(TempDir::new().unwrap());
        std::fs::create_dir(place.path("data")).unwrap();
        for (prefix, count) in [("train", 80u32), ("t10k", 20)] {
            let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
            // A bright bar whose position gives the class, on a grey ground.
            let image = |i: u32| {
                (0..784u32).map(move |p| if p / 28 / 3 == i % 10 { 230 } else { (40 + (p * 7 + i * 13) % 30) as u8 })
            };
            place.write_idx(prefix, &[count, 28, 28], &(0..count).flat_map(image).collect::<Vec<u8>>(), &labels);
        }
        place
    }

    /// One whose evaluations last long enough for something to happen in them.
    pub fn with_much_to_evaluate() -> Place {
        let (place, count) = (Place::new(), 8_000u32);
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        place.write_idx("t10k", &[count, 28, 28], &vec![90; 784 * count as usize], &labels);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write_idx(&self, prefix: &str, sizes: &[u32; 3], pixels: &[u8], labels: &[u8]) {
        let be = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let images = [be(&[0x803]), be(sizes), pixels.to_vec()].concat();
        std::fs::write(self.path("data").join(format!("{prefix}-images-idx3-ubyte")), images).unwrap();
        let labels = [be(&[0x801, labels.len() as u32]), labels.to_vec()].concat();
        std::fs::write(self.path("data").join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexnet-split"));
        // One process, whatever launcher runs the tests, and no real GPU: those have their own check.
        command.args(args).current_dir(self.0.path()).env("WORLD_SIZE", "1").env("CUDA_VISIBLE_DEVICES", "-1");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Trains the tiny network on the data of this place.
    pub fn train(&self, args: &[&str]) -> Output {
        self.train_command(args).output().unwrap()
    }

    pub fn train_command(&self, args: &[&str]) -> Command {
        self.command(&[&TINY[..], &["--data", "data"], args].concat())
    }

    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(self.run(args))
    }

    /// Fails with this exit code and one line that contains all of `parts`.
    pub fn fails(&self, args: &[&str], code: i32, parts: &[&str]) {
        failed(self.run(args), code, parts);
    }
}

pub fn succeeded(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    assert!(!error.contains("misuse"), "the software device complains: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn failed(output: Output, code: i32, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    assert!(!error.contains("panicked") && !error.contains("misuse"), "{error}");
    assert_eq!(error.lines().filter(|line| line.starts_with("error:")).count(), 1, "one message: {error}");
}

pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file of a run's newest checkpoint by name.
pub fn checkpoint(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut folders: Vec<_> = std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    // What is unfinished or set aside as damaged has an ending.
    folders.retain(|folder| folder.join("checkpoint.json").exists() && folder.extension().is_none());
    folders.sort();
    let mut files: Vec<_> = std::fs::read_dir(folders.pop().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(path).unwrap()))
        .collect()
}

/// Runs a command to its end, which must come within `patience`.
pub fn output_within(command: &mut Command, patience: Duration) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + patience;
    // Read while it runs: a full pipe would hold it up.
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = std::thread::scope(|scope| {
        scope.spawn(|| stdout.read_to_end(&mut out).unwrap());
        scope.spawn(|| stderr.read_to_end(&mut err).unwrap());
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if Instant::now() > until => break,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    });
    let status = status.unwrap_or_else(|| panic!("{command:?} hangs: {}", String::from_utf8_lossy(&err)));
    Output { status, stdout: out, stderr: err }
}

/// A checkpoint of the run `run`.
pub fn checkpoint_folder(place: &Place, step: u32) -> PathBuf {
    place.path(&format!("run/checkpoints/step-{step:08}"))
}

/// Lines of a kind in the run's metrics, which may be being written.
pub fn count(place: &Place, kind: &str) -> usize {
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains(&format!("\"kind\":\"{kind}\""))).count()
}
