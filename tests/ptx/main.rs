//! The kernels as NVIDIA's compiler makes them, executed without a GPU: NVRTC compiles each to PTX, an interpreter runs
//! it as a device of `CudaBackend`, and the same checks as on every device compare the results with the definitions.
//!
//! Start reading at `instructions.rs` and `arithmetic.rs`, which say what each instruction means; `warp.rs` is a warp of 32 threads,
//! `machine.rs` a block of them and the whole launch, `memory.rs` what may go wrong with an access.

mod arithmetic;
#[path = "../operations/checks.rs"]
mod checks;
mod counts;
mod device;
mod execute;
mod faults;
mod instructions;
mod machine;
mod meanings;
mod memory;
mod mma;
mod mutants;
mod parse;
#[path = "../operations/products.rs"]
mod products;
#[path = "../support/mod.rs"]
mod support;
mod transfers;
mod warp;

use alexnet_split::backend::Precision;
use products::{BF16, FP32, Rounded, TF32};

#[test]
fn every_kernel_in_fp32() {
    every_kernel(Precision::Fp32, FP32);
}

#[test]
fn every_kernel_in_tf32() {
    every_kernel(Precision::Tf32, TF32);
}

#[test]
fn every_kernel_in_bf16() {
    every_kernel(Precision::Bf16, BF16);
}

/// All operations against their definitions; afterwards no entry of the PTX may be left that was not launched.
fn every_kernel(precision: Precision, rounded: Rounded) {
    let Some((backend, log)) = device::backend(precision) else { return };
    products::products(&backend, rounded);
    checks::augmentation(&backend);
    checks::local_response_normalization(&backend);
    checks::max_pooling(&backend);
    checks::non_linearities(&backend);
    checks::addition(&backend);
    checks::dropout_draws_one_mask_for_both_passes(&backend);
    checks::softmax_cross_entropy_wherever_the_classes_live(&backend);
    checks::updates(&backend);

    let log = log.lock().unwrap();
    assert!(log.faults.is_empty(), "{}", log.faults.join("\n"));
    let texts = device::texts(precision).unwrap();
    let entries: Vec<String> = texts.iter().flat_map(|text| names(&String::from_utf8_lossy(text))).collect();
    let missed: Vec<&String> = entries.iter().filter(|name| !log.counts.contains_key(*name)).collect();
    assert!(missed.is_empty() && entries.len() >= 24, "not launched by any check: {missed:?} of {entries:?}");
    // For information: what the checks leave out is mostly a copy of the code for sizes that they do not have.
    for (kernel, counts) in &log.counts {
        let (ran, all) = (counts.lines.iter().filter(|line| line.tally.executed > 0).count(), counts.lines.len());
        let total = counts.total("");
        let (shared, ideal) = (total.wavefronts, total.ideal_wavefronts);
        eprintln!("{kernel}: {ran} of {all} instructions ran; shared memory {shared} turns, {ideal} at best");
    }
}

/// Of all entries, read from the text itself.
fn names(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.split_once(".entry ")?.1.trim_end_matches('(').to_owned())).collect()
}
