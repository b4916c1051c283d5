//! Matrices in panels of 16 columns, as the fast kernels want them: 16 columns of a row are one cache line, a panel's
//! rows follow each other, so a product reads nothing but whole lines, one after another.

#![allow(clippy::needless_range_loop)] // see the loops' own comment

use std::marker::PhantomData;

use pulp::Simd;

use super::factors::{Factors, Fp32};
use super::simd::read;

/// Columns of a panel: one cache line of f32.
pub const PANEL: usize = 16;

/// Rows of a product are made in blocks of so many, a divisor of the map's width where that is 55, or a number that
/// divides tiles and channels.
pub const ROWS: usize = 8;
/// See [`ROWS`].
pub const ROWS_OF_55: usize = 11;

/// How the depth of a left factor lies in memory: `chunks` runs of `depth` numbers, the runs `chunk_stride` apart.
#[derive(Clone, Copy)]
pub struct Left {
    /// Numbers from one run of depths to the next.
    pub chunk_stride: usize,
    /// Runs of depths.
    pub chunks: usize,
    /// Numbers a run: one a depth, or as [`Factors`] says.
    pub depth: usize,
}

/// Where the numbers of a left factor's run lie: row i at number d of the run is at `i * ROW + d * DEPTH` from the
/// run's start. Known when this is compiled, so that addresses need no arithmetic.
pub trait Strides {
    /// Numbers from a row to the next.
    const ROW: usize;
    /// Numbers from a depth to the next.
    const DEPTH: usize;
}

/// Rows of `LENGTH` values, depths side by side.
pub struct AlongRows<F, const LENGTH: usize>(PhantomData<F>);

impl<F: Factors, const LENGTH: usize> Strides for AlongRows<F, LENGTH> {
    const ROW: usize = LENGTH / F::DEPTHS;
    const DEPTH: usize = 1;
}

/// Rows side by side, depths `LENGTH` numbers apart.
pub struct AcrossRows<const LENGTH: usize>;

impl<const LENGTH: usize> Strides for AcrossRows<LENGTH> {
    const ROW: usize = 1;
    const DEPTH: usize = LENGTH;
}

/// c = a b, or c += a b, for `rows` rows (a multiple of BLOCK) and one or two panels of columns. b: a line for each
/// number of the depth, of each panel in `b`; c: a line for each row, of each panel in `c`.
///
/// Loop nest: a block of 8 or 11 rows by two lines of columns stays in registers while the depth runs: 16 or 22 sums,
/// for each depth two lines of b and 8 or 11 broadcast numbers of a (with 16 registers half a line of columns, 11 sums
/// at most). The panels of b stay in the first or second cache while the blocks of rows pass by.
///
/// # Safety
/// All addresses that sizes and strides reach must be valid, those of c for this thread alone.
#[inline(always)]
pub unsafe fn multiply<S: Simd, F: Factors, L: Strides, const BLOCK: usize>(
    simd: S,
    rows: usize,
    left: Left,
    a: *const f32,
    b: &[*const f32],
    c: &[*mut f32],
    accumulate: bool,
) {
    // SAFETY: by this function's contract; the parts of a line stay within it.
    unsafe {
        match (S::F32_LANES, b) {
            (PANEL, &[b0, b1]) => {
                blocks::<S, F, L, BLOCK, 2>(simd, rows, left, a, [b0, b1], [c[0], c[1]], accumulate);
            }
            // Vectors that are parts of a line: two of them where there are registers for their sums.
            (lanes, _) => {
                for (&b, &c) in b.iter().zip(c) {
                    if lanes < PANEL && S::REGISTER_COUNT >= 32 {
                        for lane in (0..PANEL).step_by(2 * lanes) {
                            let (b, c) = ([0, lanes].map(|i| b.add(lane + i)), [0, lanes].map(|i| c.add(lane + i)));
                            blocks::<S, F, L, BLOCK, 2>(simd, rows, left, a, b, c, accumulate);
                        }
                    } else {
                        for lane in (0..PANEL).step_by(lanes) {
                            let (b, c) = ([b.add(lane)], [c.add(lane)]);
                            blocks::<S, F, L, BLOCK, 1>(simd, rows, left, a, b, c, accumulate);
                        }
                    }
                }
            }
        }
    }
}

/// All rows by one vector or two.
#[inline(always)]
unsafe fn blocks<S: Simd, F: Factors, L: Strides, const BLOCK: usize, const VECTORS: usize>(
    simd: S,
    rows: usize,
    left: Left,
    a: *const f32,
    b: [*const f32; VECTORS],
    c: [*mut f32; VECTORS],
    accumulate: bool,
) {
    // Plain loops: iterators' closures are not always compiled for the wide instructions.
    for row in (0..rows).step_by(BLOCK) {
        let mut sums = [[simd.splat_f32s(0.); VECTORS]; BLOCK];
        // SAFETY: rows, depths and lanes are within the sizes that the caller vouches for; unaligned access is allowed.
        unsafe {
            let mut line = 0;
            for chunk in 0..left.chunks {
                let a = a.add(chunk * left.chunk_stride + row * L::ROW);
                for depth in 0..left.depth {
                    let mut columns = [simd.splat_f32s(0.); VECTORS];
                    for vector in 0..VECTORS {
                        columns[vector] = b[vector].add(line).cast::<S::f32s>().read_unaligned();
                    }
                    for i in 0..BLOCK {
                        let factor = simd.splat_f32s(*a.add(i * L::ROW + depth * L::DEPTH));
                        for vector in 0..VECTORS {
                            sums[i][vector] = F::multiply_add(simd, factor, columns[vector], sums[i][vector]);
                        }
                    }
                    line += PANEL;
                }
            }
            for i in 0..BLOCK {
                for vector in 0..VECTORS {
                    let to = c[vector].add((row + i) * PANEL).cast::<S::f32s>();
                    let sum = sums[i][vector];
                    let sum = if accumulate { simd.add_f32s(to.read_unaligned(), sum) } else { sum };
                    to.write_unaligned(sum);
                }
            }
        }
    }
}

/// The first `elems` of `memory`, made larger where needed.
pub fn first(memory: &mut Vec<f32>, elems: usize) -> &mut [f32] {
    if memory.len() < elems {
        memory.resize(elems, 0.);
    }
    &mut memory[..elems]
}

/// `planes` planes (16 at most) of `count` values each, `stride` apart, to `count` lines of 16; what is missing is 0.
#[inline(always)]
pub fn to_lines<S: Simd>(simd: S, values: &[f32], stride: usize, planes: usize, count: usize, lines: &mut [f32]) {
    to_factor_lines::<S, Fp32>(simd, values, stride, planes, count, lines);
}

/// As [`to_lines`], to a factor with a depth for each line.
#[inline(always)]
pub fn to_factor_lines<S: Simd, F: Factors>(
    simd: S,
    values: &[f32],
    stride: usize,
    planes: usize,
    count: usize,
    lines: &mut [f32],
) {
    let lines = &mut lines[..F::numbers(count) * PANEL];
    for at in (0..count).step_by(PANEL) {
        let rows = PANEL.min(count - at);
        let mut block = [[0f32; PANEL]; PANEL];
        for (plane, row) in block.iter_mut().enumerate().take(planes) {
            let from = &values[plane * stride + at..];
            match from.first_chunk::<PANEL>() {
                Some(whole) if rows == PANEL => *row = *whole,
                _ => row[..rows].copy_from_slice(&from[..rows]),
            }
        }
        transpose(simd, &mut block);
        for row in 0..rows {
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                F::put(simd, read(simd, &block[row][lane..]), at + row, PANEL, &mut lines[lane..]);
            }
        }
    }
}

/// What becomes of sums.
#[derive(Clone, Copy)]
pub enum Finish<'a> {
    /// y = sum + the channel's bias.
    Bias(&'a [f32]),
    /// y = y + sum.
    Add,
    /// y = sum.
    Set,
}

impl Finish<'_> {
    /// The part for one panel's channels.
    pub fn of_panel(self, panel: usize) -> Self {
        match self {
            Finish::Bias(bias) => Finish::Bias(&bias[panel * PANEL..][..PANEL]),
            other => other,
        }
    }
}

/// The transpose of [`to_lines`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn from_lines<S: Simd>(
    simd: S,
    lines: &[f32],
    planes: usize,
    count: usize,
    values: &mut [f32],
    stride: usize,
    finish: Finish,
) {
    let lines = &lines.as_chunks::<PANEL>().0[..count];
    for (index, part) in lines.chunks(PANEL).enumerate() {
        let mut block = [[0f32; PANEL]; PANEL];
        block[..part.len()].copy_from_slice(part);
        transpose(simd, &mut block);
        for (lane, row) in block.iter().enumerate().take(planes) {
            let to = &mut values[lane * stride + index * PANEL..][..part.len()];
            match finish {
                Finish::Set => to.copy_from_slice(&row[..part.len()]),
                Finish::Add => to.iter_mut().zip(row).for_each(|(to, v)| *to += v),
                Finish::Bias(bias) => to.iter_mut().zip(row).for_each(|(to, v)| *to = v + bias[lane]),
            }
        }
    }
}

/// Rows become columns.
#[inline(always)]
fn transpose<S: Simd>(_: S, block: &mut [[f32; PANEL]; PANEL]) {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == PANEL {
        // SAFETY: vectors of this width are those of AVX-512.
        return unsafe { transpose_avx512(block) };
    }
    // Rounds of exchanging halves, quarters, eighths and single numbers of pairs of rows.
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

/// 64 shuffles: pairs of rows by single numbers, pairs of those by two, and quarters of vectors.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(block: &mut [[f32; PANEL]; PANEL]) {
    use std::arch::x86_64::*;
    let mut quads = [_mm512_setzero_pd(); PANEL];
    for group in 0..4 {
        let mut rows = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            // SAFETY: a row is a vector long.
            rows[i] = unsafe { _mm512_loadu_ps(block[4 * group + i].as_ptr()) };
        }
        let [a, b] = [0, 2].map(|i| _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1])));
        let [c, d] = [0, 2].map(|i| _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1])));
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
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(block[4 * quarter + i].as_mut_ptr(), column) };
        }
    }
}
