//! `kernels`: compiles every kernel with NVRTC, which needs no GPU, and prints what the compiler reports about each, and
//! how long a training step should take.

use std::path::Path;

use crate::backend::Precision;
use crate::backend::cuda::compiler::{self, KernelFile, Target};
use crate::backend::cuda::kernels::Kernels;
use crate::backend::cuda::sources;
use crate::disk;
use crate::error::{Error, GpuTrouble, Result};
use rayon::prelude::*;
use serde_json::json;

use super::roofline::{self, Costs};
use crate::cli::KernelsArgs;

/// Ampere, Hopper, Blackwell for data centres and for desktops.
const TARGETS: [&str; 4] = ["sm_80", "sm_90", "sm_100", "sm_120"];

/// A kernel as it was compiled.
#[derive(Clone)]
struct Row {
    target: Target,
    /// `any` where it does not matter: it does to matrix products only.
    precision: String,
    /// The name of the file with its machine code.
    file: String,
    facts: Facts,
}

pub fn kernels(args: &KernelsArgs) -> Result<()> {
    let names: Vec<&str> =
        if args.arch.is_empty() { TARGETS.to_vec() } else { args.arch.iter().map(String::as_str).collect() };
    let (major, minor) = compiler::version()?;
    if let Some(folder) = &args.out {
        disk::create_folder(folder)?;
    }
    outln!("NVRTC {major}.{minor}\n");
    outln!(
        "{:<9} {:<5} {:<26} {:>9} {:>12} {:>12}",
        "target",
        "",
        "kernel",
        "registers",
        "shared bytes",
        "spill bytes"
    );
    let mut work = Vec::new();
    for name in names {
        let target = Target::parse(name).ok_or_else(|| {
            Error::gpu(GpuTrouble::NoCompiler, format!("--arch {name}: expected a name such as sm_90"))
        })?;
        work.extend(files().into_iter().map(|file| (target, file)));
    }
    let compiled = work.par_iter().map(|&(target, file)| compile(file, target, args.out.as_deref()));
    let rows = compiled.collect::<Result<Vec<_>>>()?.concat();
    for Row { target, precision, facts: Facts { kernel, registers, shared_bytes, spill_bytes }, .. } in &rows {
        let (target, name) = (target.to_string(), if precision == "any" { "" } else { precision });
        outln!("{target:<9} {name:<5} {kernel:<26} {registers:>9} {shared_bytes:>12} {spill_bytes:>12}");
    }
    if let Some(folder) = &args.out {
        let list: Vec<_> = rows.iter().map(Row::to_json).collect();
        disk::write_whole(&folder.join("kernels.json"), json!(list).to_string().as_bytes())?;
    }
    let costs = Costs::own();
    outln!("\n{}\n{}", costs.table(), roofline::table(&costs)?.trim_end());
    let spilling = rows.iter().filter(|row| row.facts.spill_bytes > 0);
    let spilling: Vec<String> =
        spilling.map(|row| format!("{} ({} {})", row.facts.kernel, row.target, row.precision)).collect();
    if spilling.is_empty() {
        return Ok(());
    }
    let text = format!("registers spill to local memory, which is slow, in {}", spilling.join(", "));
    Err(Error::gpu(GpuTrouble::NoCompiler, text))
}

/// Every file in every precision that it differs in, and how that is called.
fn files() -> Vec<(KernelFile, Precision, &'static str)> {
    let mut files = Vec::new();
    for (precision, name) in [(Precision::Fp32, "fp32"), (Precision::Tf32, "tf32"), (Precision::Bf16, "bf16")] {
        for &source in Kernels::sources(precision) {
            // Of the files of fp32 and tf32 it matters to matrix products only.
            match (precision, ["conv.cu", "dense.cu"].contains(&source.name)) {
                (Precision::Fp32, false) => files.push((source, precision, "any")),
                (Precision::Tf32, false) => {}
                _ => files.push((source, precision, name)),
            }
        }
    }
    files
}

/// Compiles one of [`files`], and writes its machine code below `out`.
fn compile(
    (source, precision, name): (KernelFile, Precision, &str),
    target: Target,
    out: Option<&Path>,
) -> Result<Vec<Row>> {
    let compiled = sources::program(source, precision).compile(target, true)?;
    let file = format!("{}.{name}.{target}.cubin", source.name.trim_end_matches(".cu").replace('/', "-"));
    if let Some(folder) = out {
        disk::write_whole(&folder.join(&file), &compiled.code)?;
    }
    let row = |facts| Row { target, precision: name.into(), file: file.clone(), facts };
    Ok(read_log(&compiled.log).into_iter().map(row).collect())
}

impl Row {
    /// For scripts/check_sass.py.
    fn to_json(&self) -> serde_json::Value {
        let Facts { kernel, registers, spill_bytes, .. } = &self.facts;
        let (target, precision, file) = (self.target.to_string(), &self.precision, &self.file);
        json!({"target": target, "precision": precision, "kernel": kernel, "file": file,
               "registers": registers, "spill_bytes": spill_bytes})
    }
}

/// The facts that ptxas prints about one kernel.
#[derive(Clone, Debug, Default, PartialEq)]
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
