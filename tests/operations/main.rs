//! Every operation on every device against its definition. The CUDA kernels run on the software device, compiled by the
//! machine's C++ compiler; `tests/ptx` runs what NVIDIA's compiler makes of them.

mod checks;
mod products;
mod softmax;
#[path = "../support/mod.rs"]
mod support;

use alexnet_split::backend::Backend;
use alexnet_split::backend::Precision;
use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::net::plan::Op;
use alexnet_split_cpu::simd::Level;
use checks::*;
use products::{EXACT, Rounded, one_convolution, one_dense};
use softmax::softmax_cross_entropy_wherever_the_classes_live;
use support::cases;
use support::tolerance::{OPERATION, WINOGRAD_BF16};

/// Numbers of images that products are tested with.
const BATCHES: [usize; 3] = [1, 3, 17];

/// Every test of the list, on every device.
macro_rules! on_every_device {
    ($($name:ident),*) => {
        mod cpu {
            $(#[test]
            fn $name() {
                super::$name(&super::CpuBackend::default(), super::EXACTLY);
            })*
        }
        mod reference_operations {
            $(#[test]
            fn $name() {
                super::$name(&super::CpuBackend::default().as_reference(), super::EXACTLY);
            })*
        }
        mod cuda {
            $(#[test]
            fn $name() {
                let fp32 = alexnet_split::backend::Precision::Fp32;
                if let Some(backend) = super::support::softgpu::backend(fp32) {
                    super::$name(&backend, super::EXACTLY);
                }
            })*
        }
        mod cuda_bf16 {
            $(#[test]
            fn $name() {
                let bf16 = alexnet_split::backend::Precision::Bf16;
                if let Some(backend) = super::support::softgpu::backend(bf16) {
                    super::$name(&backend, super::IN_BF16);
                }
            })*
        }
    };
}

on_every_device!(
    addition,
    augmentation,
    convolution,
    dense,
    local_response_normalization,
    normalization_within_maps,
    max_pooling,
    average_pooling,
    non_linearities,
    fused_layers_compute_the_same,
    dropout_draws_one_mask_for_both_passes,
    softmax_cross_entropy_wherever_the_classes_live,
    updates
);

fn passes(stored: Stored) -> products::Passes {
    if stored.1 == OPERATION { products::FP32 } else { products::BF16 }
}

fn convolution<B: Backend>(backend: &B, stored: Stored) {
    products::all_convolutions(backend, passes(stored), &BATCHES);
}

fn dense<B: Backend>(backend: &B, stored: Stored) {
    products::all_dense(backend, passes(stored), &BATCHES);
}

/// The CPU's operations again, in processes that are limited to narrower instructions.
#[test]
fn narrower_instructions_compute_the_same() {
    // Where there are tiles, bf16 without them, too.
    let all: [(&str, &[&str]); 3] =
        [("avx2", &["cpu::", "papers"]), ("plain", &["cpu::", "papers"]), ("avx512", &["bf16_on_the_cpu"])];
    let count = if Level::chosen() == Level::Amx { 3 } else { 2 };
    for (level, tests) in &all[..count] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(*tests).env(alexnet_split_cpu::simd::LEVEL, level).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("test result: ok.") && !text.contains(" 0 passed"),
            "{level}: {text}"
        );
    }
}

/// Tensor cores: exactly the products of rounded factors, summed in fp32.
#[test]
fn tensor_cores_in_tf32() {
    if let Some(backend) = support::softgpu::backend(Precision::Tf32) {
        products::products(&backend, products::TF32, &BATCHES);
    }
}

/// The CPU's products of bf16, for which it must have instructions.
#[test]
fn bf16_on_the_cpu() {
    let Ok(backends) = CpuBackend::for_streams(1, 2, Precision::Bf16) else {
        eprintln!("skipped: this CPU has no AVX512_BF16");
        return;
    };
    let (backend, rounded) = (&backends[0], Rounded(support::round_to_bf16, OPERATION));
    products::all_dense(backend, [rounded, rounded, rounded, EXACT], &BATCHES);
    let few = Rounded(|v| v, WINOGRAD_BF16);
    for case in cases::small() {
        let Op::Conv(s) = case.op else { continue };
        let passes = match case.is_small {
            true if s.c == 5 => [EXACT; 4], // unrolled: in fp32
            true => continue,
            false if s.r == 11 => [EXACT; 4], // in fp32, too
            false => [few, few, few, EXACT],
        };
        for n in BATCHES {
            one_convolution(backend, &s, n, passes);
        }
    }
}

/// The paper's own shapes, one image.
#[test]
fn the_papers_layers() {
    let backend = CpuBackend::default();
    for case in cases::of_the_paper() {
        match case.op {
            Op::Conv(s) => one_convolution(&backend, &s, 1, [EXACT; 4]),
            Op::Dense(s) => one_dense(&backend, &s, 1, [EXACT; 4]),
            _ => {}
        }
    }
}
