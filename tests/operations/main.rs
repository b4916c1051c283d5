//! Every operation on every device against its definition. The CUDA kernels run on the software device, compiled by the
//! machine's C++ compiler; `tests/ptx` runs what NVIDIA's compiler makes of them.

mod checks;
mod products;
#[path = "../support/mod.rs"]
mod support;

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::Activation;
use checks::*;
use products::{BF16, FP32, Rounded, TF32, all_convolutions, all_dense, one_convolution, one_dense, products};
use support::tolerance::{OPERATION, WINOGRAD_BF16};
use support::{cases, normals};

/// Every test of the list, on every device.
macro_rules! on_every_device {
    ($($name:ident),*) => {
        mod cpu {
            $(#[test]
            fn $name() {
                super::$name(&super::CpuBackend::default());
            })*
        }
        mod reference_operations {
            $(#[test]
            fn $name() {
                super::$name(&super::CpuBackend::default().as_reference());
            })*
        }
        mod cuda {
            $(#[test]
            fn $name() {
                let fp32 = alexnet_split::backend::Precision::Fp32;
                if let Some(backend) = super::support::softgpu::backend(fp32) {
                    super::$name(&backend);
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
    max_pooling,
    non_linearities,
    dropout_draws_one_mask_for_both_passes,
    softmax_cross_entropy_wherever_the_classes_live,
    updates
);

fn convolution<B: Backend>(backend: &B) {
    all_convolutions(backend, FP32);
}

fn dense<B: Backend>(backend: &B) {
    all_dense(backend, FP32);
}

/// The CPU's operations again, in processes that are limited to narrower instructions.
#[test]
fn narrower_instructions_compute_the_same() {
    for level in ["avx2", "plain"] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output =
            command.args(["cpu::", "fused", "papers"]).env(alexnet_split_cpu::simd::LEVEL, level).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("test result: ok.") && !text.contains(" 0 passed"),
            "{level}: {text}"
        );
    }
}

/// ReLU, normalization and pooling in one give the bits of one after another.
#[test]
fn fused_layers_compute_the_same() {
    let backend = CpuBackend::default();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for case in cases::small() {
        let Op::ReluLrnMaxPool(lrn, pool) = case.op else { continue };
        let PoolShape { c, h, w, p, q, .. } = pool;
        assert!(CpuBackend::fuses(&lrn, &pool));
        for n in [1, 3] {
            let name = format!("{pool:?} n={n}");
            let (ins, outs) = (n * c * h * w, n * c * p * q);
            // Few different values: windows with several maxima.
            let x: Vec<f32> = normals(ins, 2., 1).iter().map(|v| v.round()).collect();
            let dy = upload(&backend, &normals(outs, 1., 2));
            let (relu, mut normalized) = (Activation::Relu, backend.alloc(ins).unwrap());
            let (mut activated, mut y) = (upload(&backend, &x), output(&backend, outs));
            backend.activation_forward(relu, ins, &mut activated).unwrap();
            backend.lrn_forward(&lrn, n, &activated, &mut normalized).unwrap();
            backend.max_pool_forward(&pool, n, &normalized, &mut y).unwrap();
            let (mut dx, mut by_normalized) = (backend.alloc(ins).unwrap(), backend.alloc(ins).unwrap());
            backend.max_pool_backward(&pool, n, &normalized, &y, &dy, &mut by_normalized).unwrap();
            backend.lrn_backward(&lrn, n, &activated, &by_normalized, &mut dx).unwrap();
            backend.activation_backward(relu, ins, &activated, &mut dx).unwrap();

            let (mut fused_x, mut fused_y) = (output(&backend, ins), output(&backend, outs));
            fused_x[..ins].copy_from_slice(&x);
            backend.relu_lrn_max_pool_forward(&lrn, &pool, n, &fused_x, &mut fused_y).unwrap();
            backend.relu_lrn_max_pool_backward(&lrn, &pool, n, &mut fused_x, &fused_y, &dy).unwrap();
            assert_eq!(bits(&written(&backend, &name, &fused_y, outs)), bits(&y[..outs]), "y, {name}");
            assert_eq!(bits(&written(&backend, &name, &fused_x, ins)), bits(&dx), "dx, {name}");
        }
    }
}

/// Tensor cores: exactly the products of rounded factors, summed in fp32.
mod tensor_cores {
    use super::*;

    #[test]
    fn tf32() {
        if let Some(backend) = support::softgpu::backend(Precision::Tf32) {
            products(&backend, TF32);
        }
    }

    #[test]
    fn bf16() {
        if let Some(backend) = support::softgpu::backend(Precision::Bf16) {
            products(&backend, BF16);
        }
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
    all_dense(backend, rounded);
    let exact = FP32;
    let few = Rounded(|v| v, WINOGRAD_BF16);
    for case in cases::small() {
        let Op::Conv(s) = case.op else { continue };
        // The gradient by the image, which the network does not need, is computed in fp32.
        let passes = match case.is_small {
            true if s.c == 5 => [exact; 3], // unrolled: fp32 too
            true => continue,
            false if s.r == 11 => [rounded, exact, rounded],
            false => [few; 3],
        };
        for n in [1, 3, 17] {
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
            Op::Conv(s) => one_convolution(&backend, &s, 1, [FP32; 3]),
            Op::Dense(s) => one_dense(&backend, &s, 1, FP32),
            _ => {}
        }
    }
}
