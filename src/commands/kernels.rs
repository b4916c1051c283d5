//! `kernels`: compiles every kernel with NVRTC, which needs no GPU, and prints what the compiler reports about each.

use alexnet_split::backend::Precision;
use alexnet_split::backend::cuda::compiler::{self, Target};
use alexnet_split::backend::cuda::kernels::Kernels;
use alexnet_split::error::{Error, GpuTrouble, Result};

use crate::cli::KernelsArgs;

/// Ampere, Hopper, Blackwell for data centres and for desktops.
const TARGETS: [&str; 4] = ["sm_80", "sm_90", "sm_100", "sm_120"];

pub fn kernels(args: &KernelsArgs) -> Result<()> {
    let names: Vec<&str> =
        if args.arch.is_empty() { TARGETS.to_vec() } else { args.arch.iter().map(String::as_str).collect() };
    let (major, minor) = compiler::version()?;
    let sources = Kernels::sources(Precision::Fp32);
    outln!("NVRTC {major}.{minor}; kernels of {} files\n", sources.len());
    outln!(
        "{:<9} {:<5} {:<22} {:>9} {:>12} {:>12}",
        "target",
        "",
        "kernel",
        "registers",
        "shared bytes",
        "spill bytes"
    );
    let mut spilling = Vec::new();
    for name in names {
        let target = Target::parse(name).ok_or_else(|| {
            Error::gpu(GpuTrouble::NoCompiler, format!("--arch {name}: expected a name such as sm_90"))
        })?;
        for &source in sources {
            // The precision matters to matrix products only.
            let all = [Precision::Fp32, Precision::Tf32, Precision::Bf16];
            let products = ["conv.cu", "dense.cu"].contains(&source.name);
            for &precision in if products { &all[..] } else { &all[..1] } {
                let log = compiler::compile(source, target, precision, true)?.log;
                for facts in read_log(&log) {
                    let kind = if products { format!("{precision:?}").to_lowercase() } else { String::new() };
                    outln!(
                        "{:<9} {kind:<5} {:<22} {:>9} {:>12} {:>12}",
                        target.to_string(),
                        facts.kernel,
                        facts.registers,
                        facts.shared_bytes,
                        facts.spill_bytes
                    );
                    if facts.spill_bytes > 0 {
                        spilling.push(format!("{} ({target} {kind})", facts.kernel));
                    }
                }
            }
        }
    }
    if spilling.is_empty() {
        return Ok(());
    }
    let text = format!("registers spill to local memory, which is slow, in {}", spilling.join(", "));
    Err(Error::gpu(GpuTrouble::NoCompiler, text))
}

/// The facts that ptxas prints about one kernel.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    kernel: String,
    registers: usize,
    shared_bytes: usize,
    spill_bytes: usize,
}

/// Reads the output of `--ptxas-options=-v`.
fn read_log(log: &str) -> Vec<Facts> {
    let mut all: Vec<Facts> = Vec::new();
    for line in log.lines() {
        // The number before a word: "0 bytes spill stores", "Used 72 registers".
        let number = |word: &str| {
            let before = line.split(word).next().filter(|_| line.contains(word))?;
            before.rsplit([' ', ',']).find(|part| !part.is_empty())?.parse::<usize>().ok()
        };
        if let Some(kernel) = line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next()) {
            all.push(Facts { kernel: kernel.into(), ..Facts::default() });
        }
        if let Some(facts) = all.last_mut() {
            facts.registers = number(" registers").unwrap_or(facts.registers);
            facts.shared_bytes = number(" bytes smem").unwrap_or(facts.shared_bytes);
            facts.spill_bytes += number(" bytes spill stores").unwrap_or(0) + number(" bytes spill loads").unwrap_or(0);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_log_is_read() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'add' for 'sm_90'
ptxas info    : Function properties for add
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 48 bytes cmem[0]
ptxas info    : Compiling entry function 'conv_forward' for 'sm_90'
ptxas info    : Function properties for conv_forward
    24 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 24576 bytes smem, 48 bytes cmem[0]";
        let facts = |kernel: &str, registers, shared_bytes, spill_bytes| Facts {
            kernel: kernel.into(),
            registers,
            shared_bytes,
            spill_bytes,
        };
        assert_eq!(read_log(log), [facts("add", 12, 0, 0), facts("conv_forward", 168, 24576, 40)]);
    }
}
