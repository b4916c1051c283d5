//! The peer, scripts/bench_pytorch.py: its steps alternate with this program's, so that both meet the same load on the
//! machine.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::backend::Precision;
use crate::error::{Error, Result};
use alexnet_split_cpu::simd::Level;
use serde_json::Value;

/// The variables that limit PyTorch's own kernels, oneDNN's and MKL's to AVX2, where this program is limited to it.
const HELD_TO_AVX2: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("MKL_ENABLE_INSTRUCTIONS", "AVX2")];

/// The running script: it makes as many steps as each line that it is sent says.
pub struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Its description: version and variant.
    pub about: String,
}

impl Peer {
    /// Starts the script for the same kind of device and precision as ours; it answers after it has chosen the fastest
    /// of its ways to run the network.
    pub fn start(
        python: &Path,
        on_cpu: bool,
        precision: Precision,
        n: usize,
        threads: usize,
        classes: usize,
        inference: bool,
    ) -> Result<Peer> {
        let device = if on_cpu { "cpu" } else { "cuda" };
        let precision = match precision {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        };
        let mut command = Command::new(python);
        command.arg(peer_script()?).args(["--serve", "--device", device, "--precision", precision]);
        for (flag, value) in [("--batch-size", n), ("--threads", threads), ("--classes", classes)] {
            command.arg(flag).arg(value.to_string());
        }
        command.args(inference.then_some("--inference"));
        if Level::chosen() == Level::Avx2 {
            command.envs(HELD_TO_AVX2);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Peer(format!("--pytorch: cannot run {}: {error}", python.display())))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Peer("--pytorch: no pipes to the script".into()));
        };
        let mut peer = Peer { child, to: Some(to), from: BufReader::new(from), about: String::new() };
        let hello = peer.answer()?;
        let said = |key: &str| hello[key].as_str().unwrap_or("?");
        let tried = hello["tried"].as_object().map_or(0, |tried| tried.len());
        let malloc = if hello["jemalloc"] == true { "jemalloc" } else { "the system's malloc" };
        peer.about = format!(
            "PyTorch {}, {} ({} on {}, {}), the fastest of {tried} variants, {malloc}",
            said("torch"),
            said("variant"),
            said("precision"),
            said("device"),
            said("instructions"),
        );
        Ok(peer)
    }

    /// Milliseconds of one of so many more steps.
    pub fn steps(&mut self, count: u64) -> Result<f64> {
        let sent = self.to.as_mut().map(|to| writeln!(to, "{count}").and_then(|()| to.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(Error::Peer("--pytorch: the script has ended".into()));
        }
        self.answer()?["ms"].as_f64().ok_or_else(|| Error::Peer("--pytorch: the script's answer has no \"ms\"".into()))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        let answer = read.ok().filter(|&bytes| bytes > 0).and_then(|_| serde_json::from_str(&line).ok());
        answer.ok_or_else(|| {
            let problem =
                format!("scripts/bench_pytorch.py answered {line:?}, which is not JSON; see its message above");
            Error::Peer(format!("--pytorch: {problem}"))
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.to = None; // end of input ends the script
        let _ = self.child.wait();
    }
}

/// The path of the script: in the working directory, beside the program, or in the sources that it was built from.
fn peer_script() -> Result<PathBuf> {
    const SCRIPT: &str = "scripts/bench_pytorch.py";
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let beside = beside.iter().flat_map(|folder| [folder.join(SCRIPT), folder.join("..").join(SCRIPT)]);
    let mut places = vec![PathBuf::from(SCRIPT)];
    places.extend(beside);
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT));
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Error::Peer(format!("--pytorch: {SCRIPT} is missing; looked for {}", looked.join(", "))))
}
