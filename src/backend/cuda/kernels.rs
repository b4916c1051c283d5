//! The kernels' functions and the structs that they take by value; kernels/shapes.cuh defines the same.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaModule, DeviceRepr};
use cudarc::nvrtc::Ptx;

use super::compiler::{self, KernelFile, SOURCES};
use super::device::Gpu;
use crate::backend::{self, Precision};
use crate::error::Result;

macro_rules! kernels {
    ($($file:literal: $($name:ident),*;)*) => {
        /// Every kernel, loaded on one GPU.
        #[allow(missing_docs)] // the operations of `Backend`, and reduce_partials, which adds up split products
        pub struct Kernels {
            $($(pub $name: CudaFunction,)*)*
        }

        impl Kernels {
            fn from(gpu: &Gpu, modules: &[(KernelFile, Arc<CudaModule>)]) -> Result<Kernels> {
                Ok(Kernels { $($($name: function(gpu, modules, $file, stringify!($name))?,)*)* })
            }
        }
    };
}

kernels! {
    "augment.cu": augment;
    "conv.cu": conv_forward, conv_backward_input, conv_backward_weight, conv_backward_bias;
    "dense.cu": dense_forward, dense_backward_input, dense_backward_weight, dense_backward_bias;
    "lrn.cu": lrn_forward, lrn_backward;
    "pool.cu": max_pool_forward, max_pool_backward;
    "pointwise.cu": relu_forward, relu_backward, tanh_forward, tanh_backward, add, dropout, reduce_partials;
    "softmax.cu": softmax_stats, softmax_cross_entropy;
    "update.cu": update_sgd, update_adam;
}

impl Kernels {
    /// Compiles (or takes from the cache) and loads all kernels.
    pub fn load(gpu: &Gpu, precision: Precision) -> Result<Kernels> {
        let _span = tracing::info_span!("load kernels", gpu = gpu.info().ordinal).entered();
        let target = gpu.info().target;
        // NVRTC takes up to a second per file.
        let codes: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
            let compile = |source| scope.spawn(move || compiler::load_or_compile(source, target, precision));
            let running: Vec<_> = SOURCES.into_iter().map(compile).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Kernels::from_codes(gpu, codes.into_iter().collect::<Result<_>>()?)
    }

    /// Loads all kernels from what was compiled of the [`SOURCES`], in their order: cubins, or PTX.
    pub fn from_codes(gpu: &Gpu, codes: Vec<Vec<u8>>) -> Result<Kernels> {
        let load = |(source, code): (KernelFile, Vec<u8>)| {
            let module = gpu.context().load_module(Ptx::from_binary(code));
            Ok((source, gpu.check(&format!("loading {}", source.name), module)?))
        };
        let modules = SOURCES.into_iter().zip(codes).map(load).collect::<Result<Vec<_>>>()?;
        Kernels::from(gpu, &modules)
    }
}

fn function(gpu: &Gpu, modules: &[(KernelFile, Arc<CudaModule>)], file: &str, name: &str) -> Result<CudaFunction> {
    let found = modules.iter().find(|(source, _)| source.name == file);
    let Some((_, module)) = found else { unreachable!("{file} is not among the sources") };
    gpu.check(&format!("finding kernel {name}"), module.load_function(name))
}

/// Division of numbers below 2^31 by `d` as a multiplication and a shift: (umulhi(x, multiplier) + x) >> shift
/// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Divisor {
    d: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// For division by `d`, at least 1.
    pub fn new(d: usize) -> Divisor {
        let d = d as u32;
        let shift = 32 - (d - 1).leading_zeros();
        let multiplier = (((1u64 << 32) * ((1u64 << shift) - u64::from(d))) / u64::from(d) + 1) as u32;
        Divisor { d, multiplier, shift }
    }
}

/// See [`backend::AugmentShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AugmentShape {
    /// n, c, side, resize, channels, size.
    pub sizes: [u32; 6],
    /// The factor of differences from the mean.
    pub scale: f32,
}

/// See [`backend::ConvShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    sizes: [u32; 11],
    by: [Divisor; 7],
}

impl ConvShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::ConvShape, n: usize) -> ConvShape {
        let sizes = [n, s.c, s.h, s.w, s.k, s.r, s.s, s.p, s.q, s.stride, s.pad].map(|size| size as u32);
        let by = [s.r * s.s, s.s, s.p * s.q, s.q, s.h * s.w, s.w, s.stride].map(Divisor::new);
        ConvShape { sizes, by }
    }
}

/// See [`backend::DenseShape`]: n, inputs, outputs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DenseShape(pub [u32; 3]);

/// See [`backend::LrnShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LrnShape {
    /// n, c, pixels, window.
    pub sizes: [u32; 4],
    /// k, alpha, beta.
    pub constants: [f32; 3],
}

/// See [`backend::PoolShape`]: n, c, h, w, window, stride, p, q.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolShape(pub [u32; 8]);

/// See [`backend::DropoutShape`] and [`backend::DropoutDraw`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DropoutShape {
    /// Images.
    pub n: u32,
    /// Units per image.
    pub elems: u32,
    /// Number of the first of them in the layer.
    pub first_unit: u32,
    /// The factor of units that are kept.
    pub factor: f32,
    /// 0 at test time.
    pub masked: u32,
    /// 1 where all are kept: 2^32 does not fit the threshold.
    pub always: u32,
    /// Words below it keep a unit.
    pub threshold: u32,
    /// Philox's key.
    pub key: [u32; 2],
    /// Training step, low word first.
    pub step: [u32; 2],
}

/// See [`backend::SoftmaxShape`]: n, classes, first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxShape(pub [u32; 3]);

/// The split of a matrix product's K dimension: `count` parts of `depth`, summed later in their order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// Parts.
    pub count: u32,
    /// Indices per part, a multiple of the tile's depth.
    pub depth: u32,
}

// SAFETY: plain numbers in C layout, as kernels/shapes.cuh declares them.
unsafe impl DeviceRepr for AugmentShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for ConvShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for DenseShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for LrnShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for PoolShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for DropoutShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for SoftmaxShape {}
// SAFETY: as above.
unsafe impl DeviceRepr for Split {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_by_multiplication_is_exact() {
        let quotient = |by: Divisor, x: u32| (((u64::from(x) * u64::from(by.multiplier)) >> 32) as u32 + x) >> by.shift;
        for d in (1..200).chain([363, 3025, 4608, 50_176, 65_537, (1 << 30) + 1, (1 << 31) - 1]) {
            let by = Divisor::new(d);
            for base in [0, d, 7 * d, (1 << 31) / d * d] {
                for x in base.saturating_sub(2)..base + 3 {
                    let Some(x) = u32::try_from(x).ok().filter(|&x| x < 1 << 31) else { continue };
                    assert_eq!(quotient(by, x), x / by.d, "{x} / {d}");
                }
            }
        }
    }
}
