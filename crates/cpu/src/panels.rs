//! Matrices in panels of 16 columns, as the fast kernels want them: 16 columns of a row are one cache line, a panel's
//! rows follow each other, so a product reads nothing but whole lines, one after another.

#![allow(clippy::needless_range_loop)] // see the loops' own comment

use std::marker::PhantomData;

use pulp::Simd;

use super::operands::{Fp32, Operands};
use super::simd::read;
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Amx};
use super::transpose::{Square, transpose};

/// Columns of a panel: one cache line of f32.
pub const PANEL: usize = 16;

/// Rows of a product are made in blocks of this many, which divides channels and units.
pub const ROWS: usize = 8;

/// The layout of a left operand's depth (its K dimension) in memory: `chunks` runs of `depth` words, the runs
/// `chunk_stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Numbers from one run of depths to the next.
    pub chunk_stride: usize,
    /// Runs of depths.
    pub chunks: usize,
    /// Words per run: one for each depth, or as [`Operands`] says.
    pub depth: usize,
}

/// The strides of a left operand's words: row i at word d of the run is at `i * ROW + d * DEPTH` from the
/// run's start. Known when this is compiled, so that addresses need no arithmetic.
pub trait Strides {
    /// Numbers from a row to the next.
    const ROW: usize;
    /// Numbers from a depth to the next.
    const DEPTH: usize;
}

/// Rows of `LENGTH` values, depths side by side.
pub struct AlongRows<F, const LENGTH: usize>(PhantomData<F>);

impl<F: Operands, const LENGTH: usize> Strides for AlongRows<F, LENGTH> {
    const ROW: usize = LENGTH / F::DEPTHS;
    const DEPTH: usize = 1;
}

/// Rows side by side, depths `LENGTH` words apart.
pub struct AcrossRows<const LENGTH: usize>;

impl<const LENGTH: usize> Strides for AcrossRows<LENGTH> {
    const ROW: usize = 1;
    const DEPTH: usize = LENGTH;
}

/// c = a b, or c += a b, for `rows` rows (a multiple of BLOCK) and one or two panels of columns. b: a line for each
/// word of the depth, of each panel in `b`; c: a line for each row, of each panel in `c`.
///
/// Loop nest: a block of rows by one or two lines of columns stays in registers while the depth runs. With vectors of
/// 16 words and 32 registers it is 8 or 9 rows by two lines: 16 or 18 sums, and for each depth two vectors of b and
/// 8 or 9 broadcast words of a. Narrower vectors take a whole line and 4 to 6 rows: with 8 words and 16 registers
/// (AVX2) up to 12 sums, two vectors of b and one word of a; with 4 words and 32 registers (NEON) up to 24 sums. The
/// panels of b stay in the first or second cache while the blocks of rows pass by.
///
/// # Safety
/// All addresses that sizes and strides reach must be valid, those of c for this thread alone.
#[inline(always)]
pub unsafe fn multiply<S: Simd, F: Operands, L: Strides, const BLOCK: usize>(
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
        #[cfg(target_arch = "x86_64")]
        if F::in_tiles() && S::F32_LANES == PANEL {
            return tiles::multiply::<S, Amx, L>(simd, &mut Amx, rows, left, a, b, c, accumulate);
        }
        match S::F32_LANES {
            PANEL => {
                for row in (0..rows).step_by(BLOCK) {
                    if let &[b0, b1] = b {
                        block::<S, F, L, BLOCK, 2>(simd, row, left, a, [b0, b1], [c[0], c[1]], accumulate);
                    } else {
                        block::<S, F, L, BLOCK, 1>(simd, row, left, a, [b[0]], [c[0]], accumulate);
                    }
                }
            }
            8 => {
                for (&b, &c) in b.iter().zip(c) {
                    few_rows::<S, F, L, 2>(simd, rows, left, a, b, c, accumulate);
                }
            }
            4 => {
                for (&b, &c) in b.iter().zip(c) {
                    few_rows::<S, F, L, 4>(simd, rows, left, a, b, c, accumulate);
                }
            }
            // A float at a time: the compiler makes vectors of half a line.
            _ => {
                for (&b, &c) in b.iter().zip(c) {
                    few_rows::<S, F, L, 8>(simd, rows, left, a, b, c, accumulate);
                    few_rows::<S, F, L, 8>(simd, rows, left, a, b.add(8), c.add(8), accumulate);
                }
            }
        }
    }
}

/// All rows, 4 to 6 at a time, by VECTORS vectors that lie side by side.
#[inline(always)]
unsafe fn few_rows<S: Simd, F: Operands, L: Strides, const VECTORS: usize>(
    simd: S,
    rows: usize,
    left: Left,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    accumulate: bool,
) {
    let (mut side_by_side_b, mut side_by_side_c) = ([b; VECTORS], [c; VECTORS]);
    for vector in 0..VECTORS {
        side_by_side_b[vector] = b.wrapping_add(vector * S::F32_LANES);
        side_by_side_c[vector] = c.wrapping_add(vector * S::F32_LANES);
    }
    let (b, c) = (side_by_side_b, side_by_side_c);
    let mut row = 0;
    while row < rows {
        // Of a multiple of 8 or 9 the last block has 6, 8, 9 or 10.
        let rest = rows - row;
        // SAFETY: by the caller's contract.
        unsafe {
            match rest {
                4 | 8 => block::<S, F, L, 4, VECTORS>(simd, row, left, a, b, c, accumulate),
                5 | 9 | 10 => block::<S, F, L, 5, VECTORS>(simd, row, left, a, b, c, accumulate),
                _ => block::<S, F, L, 6, VECTORS>(simd, row, left, a, b, c, accumulate),
            }
        }
        row += match rest {
            4 | 8 => 4,
            5 | 9 | 10 => 5,
            _ => 6,
        };
    }
}

/// ROWS rows from `row` on by VECTORS vectors.
#[inline(always)]
unsafe fn block<S: Simd, F: Operands, L: Strides, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    row: usize,
    left: Left,
    a: *const f32,
    b: [*const f32; VECTORS],
    c: [*mut f32; VECTORS],
    accumulate: bool,
) {
    // Plain loops: iterators' closures are not always compiled for the wide instructions.
    let mut sums = [[simd.splat_f32s(0.); VECTORS]; ROWS];
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
                for i in 0..ROWS {
                    let factor = simd.splat_f32s(*a.add(i * L::ROW + depth * L::DEPTH));
                    for vector in 0..VECTORS {
                        sums[i][vector] = F::multiply_add(simd, factor, columns[vector], sums[i][vector]);
                    }
                }
                line += PANEL;
            }
        }
        for i in 0..ROWS {
            for vector in 0..VECTORS {
                let to = c[vector].add((row + i) * PANEL).cast::<S::f32s>();
                let sum = sums[i][vector];
                let sum = if accumulate { simd.add_f32s(to.read_unaligned(), sum) } else { sum };
                to.write_unaligned(sum);
            }
        }
    }
}

/// `elems` floats of `memory`, which grows where it is too short. They begin with a cache line, so that each line of a
/// panel is one and not parts of two; so `memory` itself is not to be read.
pub fn scratch_slice(memory: &mut Vec<f32>, elems: usize) -> &mut [f32] {
    if memory.len() < elems + PANEL {
        memory.resize(elems + PANEL, 0.);
    }
    let start = memory.as_ptr().align_offset(PANEL * size_of::<f32>());
    &mut memory[start..][..elems]
}

/// `planes` planes (16 at most) of `count` values each, `stride` apart, to `count` lines of 16; missing values are 0.
#[inline(always)]
pub fn to_lines<S: Simd>(simd: S, values: &[f32], stride: usize, planes: usize, count: usize, lines: &mut [f32]) {
    to_operand_lines::<S, Fp32>(simd, values, stride, planes, count, lines);
}

/// As [`to_lines`], to an operand with a depth for each line.
#[inline(always)]
pub fn to_operand_lines<S: Simd, F: Operands>(
    simd: S,
    values: &[f32],
    stride: usize,
    planes: usize,
    count: usize,
    lines: &mut [f32],
) {
    let lines = &mut lines[..F::words(count) * PANEL];
    for at in (0..count).step_by(PANEL) {
        let rows = PANEL.min(count - at);
        let block = side_by_side(simd, &values[at..], stride, planes, rows);
        for row in 0..rows {
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                F::put(simd, read(simd, &block[row][lane..]), at + row, PANEL, &mut lines[lane..]);
            }
        }
    }
}

/// The first `count` values (16 at most) of `planes` planes, `stride` apart, as that many lines; missing values are 0.
#[inline(always)]
pub fn side_by_side<S: Simd>(simd: S, values: &[f32], stride: usize, planes: usize, count: usize) -> Square {
    let mut block = [[0f32; PANEL]; PANEL];
    if (planes, count) == (PANEL, PANEL) {
        transpose(simd, values, stride, &mut block);
        return block;
    }
    let mut rows = [[0f32; PANEL]; PANEL];
    for plane in 0..planes {
        rows[plane][..count].copy_from_slice(&values[plane * stride..][..count]);
    }
    transpose(simd, rows.as_flattened(), PANEL, &mut block);
    block
}

/// The epilogue of a matrix product: how its sums are written to y.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// y = sum + the channel's bias.
    Bias(&'a [f32]),
    /// y = y + sum.
    Add,
    /// y = sum.
    Set,
}

impl Epilogue<'_> {
    /// The part for one panel's channels.
    pub fn of_panel(self, panel: usize) -> Self {
        match self {
            Epilogue::Bias(bias) => Epilogue::Bias(&bias[panel * PANEL..][..PANEL]),
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
    epilogue: Epilogue,
) {
    let lines = &lines[..count * PANEL];
    for at in (0..count).step_by(PANEL) {
        let (lines, count) = (&lines[at * PANEL..], PANEL.min(count - at));
        let block = side_by_side(simd, lines, PANEL, count, PANEL);
        for (lane, row) in block.iter().enumerate().take(planes) {
            let to = &mut values[lane * stride + at..][..count];
            let bias = if let Epilogue::Bias(bias) = epilogue { bias[lane] } else { 0. };
            // A whole row is one vector.
            match to.first_chunk_mut::<PANEL>() {
                Some(whole) => finish(row, bias, epilogue, whole),
                None => finish(&row[..count], bias, epilogue, to),
            }
        }
    }
}

#[inline(always)]
fn finish(row: &[f32], bias: f32, epilogue: Epilogue, to: &mut [f32]) {
    for (to, v) in to.iter_mut().zip(row) {
        *to = match epilogue {
            Epilogue::Set => *v,
            Epilogue::Add => *to + v,
            Epilogue::Bias(_) => v + bias,
        };
    }
}
