//! Matrices in panels of 16 columns, as the fast kernels want them: 16 columns of a row are one cache line, a panel's rows follow
//! each other, so a product reads nothing but whole lines, one after another.

#![allow(clippy::needless_range_loop)] // see the loops' own comment

use pulp::Simd;

/// Columns of a panel: one cache line of f32.
pub const PANEL: usize = 16;

/// Rows of a factor are handled by so many at a time at most; scratch matrices have a multiple of it.
pub const ROWS: usize = 8;

/// The left factor of a product: row i at depth d is at `chunk(d) * chunk_stride + i * row_stride + d % depth * depth_stride`.
#[derive(Clone, Copy)]
pub struct Left {
    /// Floats from one run of depths to the next.
    pub chunk_stride: usize,
    /// Runs of depths.
    pub chunks: usize,
    /// Depths a run.
    pub depth: usize,
}

/// c = a b, or c += a b, for `rows` rows (a multiple of [`ROWS`]) and one or two panels of columns, with `depth` products a sum.
/// `ACROSS` says how `a` lies: false, its rows are rows of panels (the depth runs along a panel's columns, panel by panel);
/// true, its rows are columns of panels (the depth runs along the panels' rows). b: depth rows of each panel in `b`;
/// c: rows of each panel in `c`.
///
/// Loop nest: a block of 8 rows (4 with fewer registers) by two lines of columns stays in registers while the depth runs:
/// 16 sums, for each depth two lines of b and 8 broadcast numbers of a. The panels of b (`depth` lines each) stay in the first
/// cache while the rows pass by.
///
/// # Safety
/// All addresses that sizes and strides reach must be valid, those of c for this thread alone.
#[inline(always)]
pub unsafe fn multiply<S: Simd, const ACROSS: bool>(
    simd: S,
    rows: usize,
    left: Left,
    a: *const f32,
    b: &[*const f32],
    c: &[*mut f32],
    accumulate: bool,
) {
    // SAFETY: by this function's contract.
    unsafe {
        match (S::F32_LANES, b) {
            (16, &[b0, b1]) => blocks::<S, 8, 2, ACROSS>(simd, rows, left, a, [b0, b1], [c[0], c[1]], accumulate),
            (16, &[b0]) => blocks::<S, 8, 1, ACROSS>(simd, rows, left, a, [b0, b0], [c[0], c[0]], accumulate),
            (lanes, _) => {
                for (&b, &c) in b.iter().zip(c) {
                    match lanes {
                        8 => blocks::<S, 4, 2, ACROSS>(simd, rows, left, a, [b, b], [c, c], accumulate),
                        4 => blocks::<S, 4, 4, ACROSS>(simd, rows, left, a, [b, b], [c, c], accumulate),
                        _ => blocks::<S, 1, 16, ACROSS>(simd, rows, left, a, [b, b], [c, c], accumulate),
                    }
                }
            }
        }
    }
}

/// All rows by `VECTORS` vectors: of one panel, or of two where vectors are as wide as a panel.
#[inline(always)]
unsafe fn blocks<S: Simd, const ROW_BLOCK: usize, const VECTORS: usize, const ACROSS: bool>(
    simd: S,
    rows: usize,
    left: Left,
    a: *const f32,
    b: [*const f32; 2],
    c: [*mut f32; 2],
    accumulate: bool,
) {
    let (row_stride, depth_stride) = if ACROSS { (1, PANEL) } else { (PANEL, 1) };
    // Plain loops: iterators' closures are not always compiled for the wide instructions.
    for row in (0..rows).step_by(ROW_BLOCK) {
        let mut sums = [[simd.splat_f32s(0.); VECTORS]; ROW_BLOCK];
        // SAFETY: rows, depths and lanes are within the sizes that the caller vouches for; unaligned access is allowed.
        unsafe {
            let mut line = 0;
            for chunk in 0..left.chunks {
                let a = a.add(chunk * left.chunk_stride + row * row_stride);
                for depth in 0..left.depth {
                    let mut columns = [simd.splat_f32s(0.); VECTORS];
                    for vector in 0..VECTORS {
                        let (panel, lane) = (vector * S::F32_LANES / PANEL, vector * S::F32_LANES % PANEL);
                        columns[vector] = b[panel].add(line + lane).cast::<S::f32s>().read_unaligned();
                    }
                    for i in 0..ROW_BLOCK {
                        let factor = simd.splat_f32s(*a.add(i * row_stride + depth * depth_stride));
                        for vector in 0..VECTORS {
                            sums[i][vector] = simd.mul_add_e_f32s(factor, columns[vector], sums[i][vector]);
                        }
                    }
                    line += PANEL;
                }
            }
            for i in 0..ROW_BLOCK {
                for vector in 0..VECTORS {
                    let (panel, lane) = (vector * S::F32_LANES / PANEL, vector * S::F32_LANES % PANEL);
                    let to = c[panel].add((row + i) * PANEL + lane).cast::<S::f32s>();
                    let sum = sums[i][vector];
                    let sum = if accumulate { simd.add_f32s(to.read_unaligned(), sum) } else { sum };
                    to.write_unaligned(sum);
                }
            }
        }
    }
}

/// 16 planes of `count` values each, `stride` apart, to `count` lines of 16.
#[inline(always)]
pub fn to_lines(planes: &[f32], stride: usize, count: usize, lines: &mut [f32]) {
    let lines = &mut lines.as_chunks_mut::<PANEL>().0[..count];
    let mut first = 0;
    while first + PANEL <= count {
        let mut block = [[0f32; PANEL]; PANEL];
        for (lane, row) in block.iter_mut().enumerate() {
            row.copy_from_slice(&planes[lane * stride + first..][..PANEL]);
        }
        transpose(&mut block);
        lines[first..first + PANEL].copy_from_slice(&block);
        first += PANEL;
    }
    for (at, line) in lines.iter_mut().enumerate().skip(first) {
        for (lane, value) in line.iter_mut().enumerate() {
            *value = planes[lane * stride + at];
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
pub fn from_lines(lines: &[f32], count: usize, planes: &mut [f32], stride: usize, finish: Finish) {
    let lines = &lines.as_chunks::<PANEL>().0[..count];
    for (index, part) in lines.chunks(PANEL).enumerate() {
        let mut block = [[0f32; PANEL]; PANEL];
        block[..part.len()].copy_from_slice(part);
        transpose(&mut block);
        for (lane, row) in block.iter().enumerate() {
            let to = &mut planes[lane * stride + index * PANEL..][..part.len()];
            match finish {
                Finish::Set => to.copy_from_slice(&row[..part.len()]),
                Finish::Add => to.iter_mut().zip(row).for_each(|(to, v)| *to += v),
                Finish::Bias(bias) => to.iter_mut().zip(row).for_each(|(to, v)| *to = v + bias[lane]),
            }
        }
    }
}

/// Four rounds of exchanging halves, quarters and so on: a form that compilers turn into shuffles.
#[inline(always)]
fn transpose(block: &mut [[f32; PANEL]; PANEL]) {
    let mut half = PANEL / 2;
    while half > 0 {
        for i in 0..PANEL {
            if i & half == 0 {
                for j in 0..PANEL {
                    if j & half == 0 {
                        let (upper, lower) = (block[i][j | half], block[i | half][j]);
                        block[i][j | half] = lower;
                        block[i | half][j] = upper;
                    }
                }
            }
        }
        half /= 2;
    }
}
