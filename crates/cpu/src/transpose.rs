//! Squares of 16 x 16 floats, turned: what brings 16 maps side by side, and back.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::Simd;

use super::panels::PANEL;

/// A square of numbers, row after row.
pub type Square = [[f32; PANEL]; PANEL];

/// Rows, which begin `stride` floats apart, become the columns of `block`.
#[inline(always)]
pub fn transpose<S: Simd>(_: S, rows: &[f32], stride: usize, block: &mut Square) {
    assert!(rows.len() >= (PANEL - 1) * stride + PANEL);
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == PANEL {
        // SAFETY: vectors of this width are those of AVX-512, and the rows are there, as asserted.
        return unsafe { transpose_avx512(rows.as_ptr(), stride, block) };
    }
    for row in 0..PANEL {
        block[row].copy_from_slice(&rows[row * stride..][..PANEL]);
    }
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 8 {
        // SAFETY: vectors of this width are those of AVX2.
        return unsafe { transpose_avx2(block) };
    }
    #[cfg(target_arch = "aarch64")]
    if S::F32_LANES == 4 {
        // SAFETY: vectors of this width are those of NEON.
        return unsafe { transpose_neon(block) };
    }
    // Rounds of exchanging halves, quarters, eighths and single floats of pairs of rows.
    let mut half = PANEL / 2;
    while half > 0 {
        for i in (0..PANEL).filter(|i| i & half == 0) {
            for j in (0..PANEL).filter(|j| j & half == 0) {
                let (upper, lower) = (block[i][j | half], block[i | half][j]);
                block[i][j | half] = lower;
                block[i | half][j] = upper;
            }
        }
        half /= 2;
    }
}

/// Squares of 4 x 4, each by 8 shuffles: pairs of rows by single floats, pairs of those by two. The squares off the
/// diagonal change places.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn transpose_neon(block: &mut Square) {
    use std::arch::aarch64::*;
    const SIDE: usize = PANEL / 4;
    let square = |block: &Square, row: usize, column: usize| {
        let mut rows = [vdupq_n_f32(0.); SIDE];
        for i in 0..SIDE {
            // SAFETY: a row is four vectors long.
            rows[i] = unsafe { vld1q_f32(block[row + i][column..].as_ptr()) };
        }
        let [a, b] = [0, 2].map(|i| vreinterpretq_f64_f32(vtrn1q_f32(rows[i], rows[i + 1])));
        let [c, d] = [0, 2].map(|i| vreinterpretq_f64_f32(vtrn2q_f32(rows[i], rows[i + 1])));
        [vtrn1q_f64(a, b), vtrn1q_f64(c, d), vtrn2q_f64(a, b), vtrn2q_f64(c, d)]
            .map(|column| vreinterpretq_f32_f64(column))
    };
    let put = |row: usize, column: usize, rows: [float32x4_t; SIDE], block: &mut Square| {
        for (i, values) in rows.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_f32(block[row + i][column..].as_mut_ptr(), values) };
        }
    };
    for row in (0..PANEL).step_by(SIDE) {
        for column in (0..=row).step_by(SIDE) {
            let (lower, upper) = (square(block, row, column), square(block, column, row));
            put(column, row, lower, block);
            put(row, column, upper, block);
        }
    }
}

/// Four squares of 8 x 8, each by 24 shuffles: pairs of rows by single floats, pairs of those by two, and halves of
/// vectors. The squares off the diagonal change places.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_avx2(block: &mut Square) {
    use std::arch::x86_64::*;
    const SIDE: usize = PANEL / 2;
    let square = |block: &Square, row: usize, column: usize| {
        let mut quads = [_mm256_setzero_pd(); SIDE];
        for group in 0..2 {
            let mut rows = [_mm256_setzero_ps(); 4];
            for i in 0..4 {
                // SAFETY: a row is two vectors long.
                rows[i] = unsafe { _mm256_loadu_ps(block[row + 4 * group + i][column..].as_ptr()) };
            }
            let [a, b] = [0, 2].map(|i| _mm256_castps_pd(_mm256_unpacklo_ps(rows[i], rows[i + 1])));
            let [c, d] = [0, 2].map(|i| _mm256_castps_pd(_mm256_unpackhi_ps(rows[i], rows[i + 1])));
            quads[4 * group] = _mm256_unpacklo_pd(a, b);
            quads[4 * group + 1] = _mm256_unpackhi_pd(a, b);
            quads[4 * group + 2] = _mm256_unpacklo_pd(c, d);
            quads[4 * group + 3] = _mm256_unpackhi_pd(c, d);
        }
        let mut columns = [_mm256_setzero_ps(); SIDE];
        for i in 0..4 {
            // Half h of quads[4 group + i] is column 4 h + i of the group's four rows.
            let [upper, lower] = [quads[i], quads[4 + i]].map(|quad| _mm256_castpd_ps(quad));
            columns[i] = _mm256_permute2f128_ps::<0x20>(upper, lower);
            columns[4 + i] = _mm256_permute2f128_ps::<0x31>(upper, lower);
        }
        columns
    };
    let put = |row: usize, column: usize, rows: [__m256; SIDE], block: &mut Square| {
        for (i, values) in rows.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(block[row + i][column..].as_mut_ptr(), values) };
        }
    };
    for at in [0, SIDE] {
        let turned = square(block, at, at);
        put(at, at, turned, block);
    }
    let (right, left) = (square(block, 0, SIDE), square(block, SIDE, 0));
    put(SIDE, 0, right, block);
    put(0, SIDE, left, block);
}

/// 64 shuffles: pairs of rows by single floats, pairs of those by two, and quarters of vectors.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(rows: *const f32, stride: usize, block: &mut Square) {
    use std::arch::x86_64::*;
    let mut quads = [_mm512_setzero_pd(); PANEL];
    for group in 0..4 {
        let mut four = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            // SAFETY: the caller vouches for the rows.
            four[i] = unsafe { _mm512_loadu_ps(rows.add((4 * group + i) * stride)) };
        }
        let [a, b] = [0, 2].map(|i| _mm512_castps_pd(_mm512_unpacklo_ps(four[i], four[i + 1])));
        let [c, d] = [0, 2].map(|i| _mm512_castps_pd(_mm512_unpackhi_ps(four[i], four[i + 1])));
        quads[4 * group] = _mm512_unpacklo_pd(a, b);
        quads[4 * group + 1] = _mm512_unpackhi_pd(a, b);
        quads[4 * group + 2] = _mm512_unpacklo_pd(c, d);
        quads[4 * group + 3] = _mm512_unpackhi_pd(c, d);
    }
    for i in 0..4 {
        // Quarter q of quads[4 group + i] is column 4 q + i of the group's four rows.
        let even = |a, b| _mm512_shuffle_f32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_f32x4::<0xdd>(a, b);
        let [a, b, c, d] = [0, 4, 8, 12].map(|group| _mm512_castpd_ps(quads[group + i]));
        let columns = [
            even(even(a, b), even(c, d)),
            even(odd(a, b), odd(c, d)),
            odd(even(a, b), even(c, d)),
            odd(odd(a, b), odd(c, d)),
        ];
        for (quarter, column) in columns.into_iter().enumerate() {
            // SAFETY: a row is a vector long.
            unsafe { _mm512_storeu_ps(block[4 * quarter + i].as_mut_ptr(), column) };
        }
    }
}
