//! The kernels as NVIDIA's compiler makes them, executed without a GPU: NVRTC compiles each to PTX, an interpreter runs
//! it as a device of `CudaBackend`, and the same checks as on every device compare the results with the definitions.
//!
//! The interpreter is `crates/ptx`.

#[path = "../operations/checks.rs"]
mod checks;
mod costs;
mod device;
mod faults;
mod meanings;
mod mutants;
#[path = "../operations/products.rs"]
mod products;
#[path = "../operations/softmax.rs"]
mod softmax;
#[path = "../support/mod.rs"]
mod support;

use alexnet_split::backend::Precision;
use checks::{EXACTLY, IN_BF16, Stored};
use products::{BF16, FP32, Passes, TF32};

#[test]
fn every_kernel_in_fp32() {
    every_kernel(Precision::Fp32, FP32, EXACTLY);
}

#[test]
fn every_kernel_in_tf32() {
    every_kernel(Precision::Tf32, TF32, EXACTLY);
}

#[test]
fn every_kernel_in_bf16() {
    every_kernel(Precision::Bf16, BF16, IN_BF16);
}

/// All operations against their definitions; afterwards no entry of the PTX may be left that was not launched.
fn every_kernel(precision: Precision, passes: Passes, stored: Stored) {
    let Some((backend, log)) = device::backend(precision) else { return };
    products::products(&backend, passes, &[3]);
    checks::augmentation(&backend, stored);
    checks::local_response_normalization(&backend, stored);
    checks::normalization_within_maps(&backend, stored);
    checks::max_pooling(&backend, stored);
    checks::average_pooling(&backend, stored);
    checks::non_linearities(&backend, stored);
    checks::addition(&backend, stored);
    checks::dropout_draws_one_mask_for_both_passes(&backend, stored);
    softmax::softmax_cross_entropy_wherever_the_classes_live(&backend, stored);
    checks::fused_layers_compute_the_same(&backend, stored);
    checks::updates(&backend, stored);

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
