//! The machine that a run is on, for its journal.

use serde::{Deserialize, Serialize};

/// The machine as Linux describes it; empty or 0 where it does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// The machine's name.
    pub name: String,
    /// The processor's.
    pub cpu: String,
    /// The instructions of it that are used.
    pub instructions: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in all.
    pub memory_bytes: u64,
    /// `linux x86_64`
    pub os: String,
}

impl Host {
    /// This one.
    pub fn this() -> Host {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let kilobytes = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes = kilobytes.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        Host {
            name: read("/proc/sys/kernel/hostname").trim().to_owned(),
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            instructions: alexnet_split_cpu::simd::describe(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 1024 * kilobytes.unwrap_or_default(),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}
