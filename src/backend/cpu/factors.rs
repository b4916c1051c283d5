//! The factors of matrix products: how they lie in memory, and what multiplies them.
//!
//! | | a number (4 bytes) of memory holds | it is multiplied by |
//! |---|---|---|
//! | [`Fp32`] | one value | a multiply-add |
//! | [`Bf16`] | the values of two neighbouring depths, each rounded to bf16 | `vdpbf16ps`: two products, added in fp32 |
//!
//! So a product in bf16 is the same product at half the depth, and all that multiplies is written once. Sums are fp32.

use pulp::{Simd, WithSimd};

use super::panels::PANEL;
use super::simd::{self, read, same, store};

/// A way to hold and to multiply factors. Its methods are for what [`Factors::dispatch`] runs.
pub trait Factors: 'static {
    /// Depths that a number of memory holds.
    const DEPTHS: usize;

    /// Runs `op` with instructions that can multiply these.
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output;

    /// sum + a b, lane by lane, over the depths that the numbers hold.
    fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s;

    /// Writes values of depth `depth` to their place among rows of `width` numbers, one row for as many depths as a
    /// number holds; `to` begins at the values' column. Of depths that share a row the first must come first.
    fn put<S: Simd>(simd: S, value: S::f32s, depth: usize, width: usize, to: &mut [f32]);

    /// Writes one vector of values at as many depths, one after another.
    fn put_depths<S: Simd>(simd: S, value: S::f32s, to: &mut [f32]);

    /// All values of a row as depths one after another. `memory` is used where they are not the values themselves.
    fn one_after_another<'a>(values: &'a [f32], memory: &'a mut Vec<f32>) -> &'a [f32];

    /// Numbers for depths `apart` from each other along a row of values, one for each value; what lies beyond the row
    /// is 0. `memory` as above.
    fn overlapping<'a>(values: &'a [f32], apart: usize, memory: &'a mut Vec<f32>) -> &'a [f32];

    /// Numbers for so many depths.
    fn numbers(depths: usize) -> usize {
        depths.div_ceil(Self::DEPTHS)
    }

    /// [`Factors::put`] for a row of any length.
    #[inline(always)]
    fn put_row<S: Simd>(simd: S, values: &[f32], depth: usize, width: usize, to: &mut [f32]) {
        for at in (0..values.len()).step_by(S::F32_LANES) {
            let values = &values[at..];
            if values.len() >= S::F32_LANES {
                Self::put(simd, read(simd, values), depth, width, &mut to[at..]);
            } else {
                let (mut line, mut numbers) = ([0f32; PANEL], [0f32; PANEL]);
                line[..values.len()].copy_from_slice(values);
                let to = &mut to[depth / Self::DEPTHS * width + at..][..values.len()];
                numbers[..values.len()].copy_from_slice(to);
                Self::put(simd, read(simd, &line), depth % Self::DEPTHS, 0, &mut numbers);
                to.copy_from_slice(&numbers[..values.len()]);
            }
        }
    }

    /// [`Factors::put_depths`] for any number of depths; a number that is not filled holds a 0.
    #[inline(always)]
    fn put_row_of_depths<S: Simd>(simd: S, values: &[f32], to: &mut [f32]) {
        for at in (0..values.len()).step_by(S::F32_LANES) {
            let (values, to) = (&values[at..], &mut to[at / Self::DEPTHS..]);
            if values.len() >= S::F32_LANES {
                Self::put_depths(simd, read(simd, values), to);
            } else {
                let (mut line, mut numbers) = ([0f32; PANEL], [0f32; PANEL]);
                line[..values.len()].copy_from_slice(values);
                Self::put_depths(simd, read(simd, &line), &mut numbers);
                let count = Self::numbers(values.len());
                to[..count].copy_from_slice(&numbers[..count]);
            }
        }
    }
}

/// Values as they are.
pub struct Fp32;

impl Factors for Fp32 {
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

    fn one_after_another<'a>(values: &'a [f32], _: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }

    fn overlapping<'a>(values: &'a [f32], _: usize, _: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }
}

/// Two values a number, rounded to 7 bits of mantissa (ties to even), for processors with AVX512_BF16. Values below
/// 1e-38 count as 0.
pub struct Bf16;

#[cfg(target_arch = "x86_64")]
impl Factors for Bf16 {
    const DEPTHS: usize = 2;

    #[inline(always)]
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
        simd::dispatch_bf16(op)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(_: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        // SAFETY: `dispatch` runs where these instructions exist, with vectors of their width.
        unsafe { same(std::arch::x86_64::_mm512_dpbf16_ps(same(sum), same(a), same(b))) }
    }

    #[inline(always)]
    fn put<S: Simd>(_: S, value: S::f32s, depth: usize, width: usize, to: &mut [f32]) {
        use std::arch::x86_64::*;
        let to = &mut to[depth / 2 * width..][..PANEL];
        // SAFETY: as in `multiply_add`; the row is a vector long.
        unsafe {
            let rounded = _mm512_cvtepu16_epi32(same(_mm512_cvtneps_pbh(same(value))));
            let numbers = if depth.is_multiple_of(2) {
                rounded
            } else {
                _mm512_or_si512(_mm512_slli_epi32::<16>(rounded), _mm512_loadu_si512(to.as_ptr().cast()))
            };
            _mm512_storeu_si512(to.as_mut_ptr().cast(), numbers);
        }
    }

    #[inline(always)]
    fn put_depths<S: Simd>(_: S, value: S::f32s, to: &mut [f32]) {
        use std::arch::x86_64::*;
        let to = &mut to[..PANEL / 2];
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), same(_mm512_cvtneps_pbh(same(value)))) };
    }

    fn one_after_another<'a>(values: &'a [f32], memory: &'a mut Vec<f32>) -> &'a [f32] {
        let numbers = super::panels::first(memory, Self::numbers(values.len()));
        Self::dispatch(Row { values, apart: None, numbers });
        numbers
    }

    fn overlapping<'a>(values: &'a [f32], apart: usize, memory: &'a mut Vec<f32>) -> &'a [f32] {
        let numbers = super::panels::first(memory, values.len());
        Self::dispatch(Row { values, apart: Some(apart), numbers });
        numbers
    }
}

/// A row of values to numbers for neighbouring depths, or for depths `apart` from each other.
#[cfg(target_arch = "x86_64")]
struct Row<'a> {
    values: &'a [f32],
    apart: Option<usize>,
    numbers: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Row { values, apart, numbers } = self;
        if let Some(apart) = apart {
            Bf16::put_row(simd, values, 0, 0, numbers);
            Bf16::put_row(simd, &values[apart.min(values.len())..], 1, 0, numbers);
        } else {
            Bf16::put_row_of_depths(simd, values, numbers);
        }
    }
}
