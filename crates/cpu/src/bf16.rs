//! Products of bf16 by AVX512_BF16, and by AMX where that is there.

use std::arch::x86_64::*;

use pulp::{Simd, WithSimd};

use super::operands::Operands;
use super::panels::PANEL;
use super::simd::{self, Level, bitcast};

/// Two values in each word, rounded to 7 bits of mantissa (ties to even), for processors with AVX512_BF16. Values below
/// 1e-38 count as 0.
pub struct Bf16;

impl Operands for Bf16 {
    const DEPTHS: usize = 2;

    #[inline(always)]
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
        simd::dispatch_bf16(op)
    }

    #[inline(always)]
    fn in_tiles() -> bool {
        Level::chosen() == Level::Amx
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(_: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        // SAFETY: `dispatch` runs where these instructions exist, with vectors of their width.
        unsafe { bitcast(_mm512_dpbf16_ps(bitcast(sum), bitcast(a), bitcast(b))) }
    }

    #[inline(always)]
    fn put<S: Simd>(_: S, value: S::f32s, depth: usize, width: usize, to: &mut [f32]) {
        let to = &mut to[depth / 2 * width..][..PANEL];
        // SAFETY: as in `multiply_add`; the row is a vector long.
        unsafe {
            let rounded = _mm512_cvtepu16_epi32(bitcast(_mm512_cvtneps_pbh(bitcast(value))));
            let words = if depth.is_multiple_of(2) {
                rounded
            } else {
                _mm512_or_si512(_mm512_slli_epi32::<16>(rounded), _mm512_loadu_si512(to.as_ptr().cast()))
            };
            _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
        }
    }

    #[inline(always)]
    fn put_depths<S: Simd>(_: S, value: S::f32s, to: &mut [f32]) {
        let to = &mut to[..PANEL / 2];
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bitcast(_mm512_cvtneps_pbh(bitcast(value)))) };
    }
}
