//! The kernels' functions, and the structs that those of fp32 and tf32 take by value; kernels/shapes.cuh defines the same.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaModule, DeviceRepr};
use cudarc::nvrtc::Ptx;

use super::compiler::KernelFile;
use super::device::Gpu;
use super::sources;
use crate::backend::{self, Precision};
use crate::error::Result;

macro_rules! kernels {
    ($(#[$doc:meta])* $set:ident: $($file:literal: $($name:ident),*;)*) => {
        $(#[$doc])*
        #[allow(missing_docs)] // the operations of `Backend`, and what adds up split products
        pub struct $set {
            $($(pub $name: CudaFunction,)*)*
        }

        impl $set {
            /// The files.
            pub const SOURCES: &[KernelFile] = &[$(sources::source!($file)),*];

            fn from(gpu: &Gpu, modules: &Modules) -> Result<$set> {
                Ok($set { $($($name: function(gpu, modules, $file, stringify!($name))?,)*)* })
            }
        }
    };
}

kernels! {
    /// The kernels of fp32 and tf32, loaded on one GPU.
    Exact:
    "augment.cu": augment;
    "conv.cu": conv_forward, conv_backward_input, conv_backward_weight, conv_backward_bias;
    "dense.cu": dense_forward, dense_backward_input, dense_backward_weight, dense_backward_bias;
    "lrn.cu": lrn_forward, lrn_backward, spatial_lrn_forward, spatial_lrn_backward;
    "pool.cu": max_pool_forward, max_pool_backward, avg_pool_forward, avg_pool_backward;
    "pointwise.cu": relu_forward, relu_backward, tanh_forward, tanh_backward, sigmoid_forward, sigmoid_backward, add, dropout, reduce_partials;
    "softmax.cu": softmax_stats, softmax_cross_entropy;
    "update.cu": update_sgd, update_adam;
}

kernels! {
    /// The kernels of bf16, loaded on one GPU.
    Bf16:
    "bf16/augment.cu": augment;
    "bf16/conv.cu": conv_forward_128, conv_forward_96, conv_forward_64, conv_backward_weight_128, conv_backward_weight_64;
    "bf16/dense.cu": dense_backward_input;
    "bf16/sums.cu": reduce_parts, reduce_weights, bias_gradient;
    "bf16/lrn.cu": lrn_forward, lrn_backward, spatial_lrn_forward, spatial_lrn_backward;
    "bf16/pool.cu": max_pool_forward, max_pool_backward, avg_pool_forward, avg_pool_backward;
    "bf16/relu_lrn_pool.cu": relu_lrn_max_pool_forward, relu_lrn_max_pool_backward;
    "bf16/pointwise.cu": relu_forward, relu_backward, tanh_forward, tanh_backward, sigmoid_forward, sigmoid_backward, add, dropout;
    "softmax.cu": softmax_stats, softmax_cross_entropy;
    "bf16/update.cu": update_sgd, update_adam, make_shadow, rotate_filters;
}

/// The kernels of one precision, loaded on one GPU.
#[allow(missing_docs)]
pub enum Kernels {
    Exact(Box<Exact>),
    Bf16(Box<Bf16>),
}

impl Kernels {
    /// Compiles (or takes from the cache) and loads them.
    pub fn load(gpu: &Gpu, precision: Precision) -> Result<Kernels> {
        let _span = tracing::info_span!("load kernels", gpu = gpu.info().ordinal).entered();
        let target = gpu.info().target;
        let cache = sources::cache_folder();
        let cache = cache.as_deref();
        // NVRTC takes up to a second per file.
        let codes: Vec<_> = std::thread::scope(|scope| {
            let compile =
                |&source| scope.spawn(move || sources::program(source, precision).load_or_compile(target, cache));
            let running: Vec<_> = Kernels::sources(precision).iter().map(compile).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Kernels::from_codes(gpu, precision, codes.into_iter().collect::<Result<_, _>>()?)
    }

    /// Loads them from what was compiled of [`Kernels::sources`], in their order: cubins, or PTX.
    pub fn from_codes(gpu: &Gpu, precision: Precision, codes: Vec<Vec<u8>>) -> Result<Kernels> {
        let load = |(&source, code): (&KernelFile, Vec<u8>)| {
            let module = gpu.context().load_module(Ptx::from_binary(code));
            Ok((source, gpu.check(&format!("loading {}", source.name), module)?))
        };
        let modules = Kernels::sources(precision).iter().zip(codes).map(load).collect::<Result<Modules>>()?;
        Ok(match precision {
            Precision::Fp32 | Precision::Tf32 => Kernels::Exact(Box::new(Exact::from(gpu, &modules)?)),
            Precision::Bf16 => Kernels::Bf16(Box::new(Bf16::from(gpu, &modules)?)),
        })
    }

    /// The files of a precision.
    pub fn sources(precision: Precision) -> &'static [KernelFile] {
        match precision {
            Precision::Fp32 | Precision::Tf32 => Exact::SOURCES,
            Precision::Bf16 => Bf16::SOURCES,
        }
    }
}

/// Each file with what was loaded of it.
type Modules = Vec<(KernelFile, Arc<CudaModule>)>;

fn function(gpu: &Gpu, modules: &Modules, file: &str, name: &str) -> Result<CudaFunction> {
    let found = modules.iter().find(|(source, _)| source.name == file);
    let Some((_, module)) = found else { unreachable!("{file} is not among the sources") };
    Ok(gpu.check(&format!("finding kernel {name}"), module.load_function(name))?)
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
    /// 1 where the centre of the mean is subtracted.
    pub centred_mean: u32,
}

impl AugmentShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::AugmentShape, n: usize) -> AugmentShape {
        let sizes = [n, s.c, s.side, s.resize, s.channels, s.size].map(|size| size as u32);
        AugmentShape { sizes, scale: s.scale, centred_mean: s.centred_mean.into() }
    }
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

impl DenseShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::DenseShape, n: usize) -> DenseShape {
        DenseShape([n, s.inputs, s.outputs].map(|size| size as u32))
    }
}

/// See [`backend::LrnShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LrnShape {
    /// n, c, pixels, window.
    pub sizes: [u32; 4],
    /// k, alpha, beta.
    pub constants: [f32; 3],
}

impl LrnShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::LrnShape, n: usize) -> LrnShape {
        let sizes = [n, s.c, s.pixels, s.n].map(|size| size as u32);
        LrnShape { sizes, constants: [s.k, s.alpha, s.beta] }
    }
}

/// See [`backend::SpatialLrnShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SpatialLrnShape {
    norm: LrnShape,
    /// h, w.
    sizes: [u32; 2],
}

impl SpatialLrnShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::SpatialLrnShape, n: usize) -> SpatialLrnShape {
        SpatialLrnShape { norm: LrnShape::new(&s.norm, n), sizes: [s.h, s.w].map(|size| size as u32) }
    }
}

/// See [`backend::PoolShape`]: n, c, h, w, window, stride, p, q, all_ties.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolShape(pub [u32; 9]);

impl PoolShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::PoolShape, n: usize) -> PoolShape {
        PoolShape([n, s.c, s.h, s.w, s.window, s.stride, s.p, s.q, s.all_ties.into()].map(|size: usize| size as u32))
    }
}

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

impl DropoutShape {
    /// A draw for `n` images of `s`.
    pub fn new(s: &backend::DropoutShape, n: usize, draw: &backend::DropoutDraw) -> DropoutShape {
        let threshold = s.threshold();
        let (key, step) = draw.mask.map_or(([0; 2], 0), |(rng, step)| (rng.key(), step));
        DropoutShape {
            n: n as u32,
            elems: s.elems as u32,
            first_unit: s.first_unit as u32,
            factor: draw.factor(s.keep),
            masked: draw.mask.is_some().into(),
            always: (threshold > u64::from(u32::MAX)).into(),
            threshold: threshold as u32,
            key,
            step: [step as u32, (step >> 32) as u32],
        }
    }
}

/// See [`backend::SoftmaxShape`]: n, classes, first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxShape(pub [u32; 3]);

impl SoftmaxShape {
    /// `n` images of `s`.
    pub fn new(s: &backend::SoftmaxShape, n: usize) -> SoftmaxShape {
        SoftmaxShape([n, s.classes, s.first].map(|size| size as u32))
    }
}

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
unsafe impl DeviceRepr for SpatialLrnShape {}
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
