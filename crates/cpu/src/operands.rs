//! The operands of matrix products: how they lie in memory, and what multiplies them.
//!
//! | | a word (4 bytes) of memory holds | it is multiplied by |
//! |---|---|---|
//! | [`Fp32`] | one value | a multiply-add |
//! | `Bf16` | the values of two neighbouring depths, each rounded to bf16 | `vdpbf16ps`: two products, added in fp32; or AMX |
//!
//! So a product in bf16 is the same product at half the depth, and all that multiplies is written once. Sums are fp32.

use pulp::{Simd, WithSimd};

use super::panels::PANEL;
use super::simd::{self, read, store};

/// A way to hold and to multiply operands. Its methods are for what [`Operands::dispatch`] runs.
pub trait Operands: 'static {
    /// Depths that a word of memory holds.
    const DEPTHS: usize;

    /// Runs `op` with instructions that can multiply these.
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output;

    /// Whether whole tiles are multiplied at a time, where vectors have 16 words; see `tiles`.
    #[inline(always)]
    fn in_tiles() -> bool {
        false
    }

    /// sum + a b, lane by lane, over the depths that the words hold.
    fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s;

    /// Writes values of depth `depth` to their place among rows of `width` words, one row for as many depths as a
    /// word holds; `to` begins at the values' column. Of depths that share a row the first must come first.
    fn put<S: Simd>(simd: S, value: S::f32s, depth: usize, width: usize, to: &mut [f32]);

    /// Writes one vector of values at as many depths, one after another.
    fn put_depths<S: Simd>(simd: S, value: S::f32s, to: &mut [f32]);

    /// The number of words for this number of depths.
    fn words(depths: usize) -> usize {
        depths.div_ceil(Self::DEPTHS)
    }

    /// [`Operands::put`] for a row of any length.
    #[inline(always)]
    fn put_row<S: Simd>(simd: S, values: &[f32], depth: usize, width: usize, to: &mut [f32]) {
        for at in (0..values.len()).step_by(S::F32_LANES) {
            let values = &values[at..];
            if values.len() >= S::F32_LANES {
                Self::put(simd, read(simd, values), depth, width, &mut to[at..]);
            } else {
                let (mut line, mut words) = ([0f32; PANEL], [0f32; PANEL]);
                line[..values.len()].copy_from_slice(values);
                let to = &mut to[depth / Self::DEPTHS * width + at..][..values.len()];
                words[..values.len()].copy_from_slice(to);
                Self::put(simd, read(simd, &line), depth % Self::DEPTHS, 0, &mut words);
                to.copy_from_slice(&words[..values.len()]);
            }
        }
    }

    /// [`Operands::put_depths`] for any number of depths; a word that is not filled holds 0.
    #[inline(always)]
    fn put_row_of_depths<S: Simd>(simd: S, values: &[f32], to: &mut [f32]) {
        for at in (0..values.len()).step_by(S::F32_LANES) {
            let (values, to) = (&values[at..], &mut to[at / Self::DEPTHS..]);
            if values.len() >= S::F32_LANES {
                Self::put_depths(simd, read(simd, values), to);
            } else {
                let (mut line, mut words) = ([0f32; PANEL], [0f32; PANEL]);
                line[..values.len()].copy_from_slice(values);
                Self::put_depths(simd, read(simd, &line), &mut words);
                let count = Self::words(values.len());
                to[..count].copy_from_slice(&words[..count]);
            }
        }
    }
}

/// Calls a function for the kind of operands that a precision means: fp32 where it is none of the CPU's.
macro_rules! in_precision {
    ($precision:ident, $operation:ident($($argument:expr),*)) => {
        match $precision {
            #[cfg(target_arch = "x86_64")]
            crate::shapes::Precision::Bf16 => $operation::<crate::bf16::Bf16>($($argument),*),
            _ => $operation::<crate::operands::Fp32>($($argument),*),
        }
    };
}
pub(crate) use in_precision;

/// Values as they are.
pub struct Fp32;

impl Operands for Fp32 {
    const DEPTHS: usize = 1;

    #[inline(always)]
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
        simd::dispatch(op)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, sum)
    }

    #[inline(always)]
    fn put<S: Simd>(simd: S, value: S::f32s, depth: usize, width: usize, to: &mut [f32]) {
        store(simd, &mut to[depth * width..], value);
    }

    #[inline(always)]
    fn put_depths<S: Simd>(simd: S, value: S::f32s, to: &mut [f32]) {
        store(simd, to, value);
    }
}
