//! Maps to the N x N matrices of their tiles, and back.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use std::marker::PhantomData;

use pulp::Simd;

use super::points::{Axis, Interpolate, Sink, Tile, transform_2d};
use super::strided::BLOCK;
use super::{Group, Maps};
use crate::operands::Operands;
use crate::panels::{Epilogue, PANEL, from_lines, scratch_slice, side_by_side};
use crate::simd::{prefetch, store};

/// Maps that tiles are cut from: N x channels x h x w, with `pad` zeros around. 16 channels are a panel; with blocks of
/// 4 x 4 pixels one channel is, each block a line.
pub struct TileSource<'a> {
    pub data: &'a [f32],
    pub channels: usize,
    pub h: usize,
    pub w: usize,
    pub pad: usize,
    pub block: usize,
}

impl TileSource<'_> {
    /// Rows `first_row - pad` and on of 16 channels of one image as `height` x `width` lines, with zeros outside the
    /// image.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn padded<'b, S: Simd>(
        &self,
        simd: S,
        image: usize,
        panel: usize,
        first_row: usize,
        [height, width]: [usize; 2],
        padded: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let plane = self.h * self.w;
        if self.block > 1 {
            let plane = &self.data[(image * self.channels + panel) * plane..][..plane];
            let padded = scratch_slice(padded, height * width * PANEL);
            self.blocks(plane, first_row, width, padded);
            return padded;
        }
        let planes = &self.data[(image * self.channels + panel * PANEL) * plane..][..PANEL * plane];
        let from = first_row.saturating_sub(self.pad);
        let end = (first_row + height).saturating_sub(self.pad).min(self.h).max(from);
        let padded = scratch_slice(padded, height * width * PANEL);
        let lines = padded.as_chunks_mut::<PANEL>().0;
        // From the last pixel of a row to the first of the next one.
        let gap = width - self.w;
        let (mut line, count) = ((from + self.pad - first_row) * width + self.pad, (end - from) * self.w);
        lines[..line.min(height * width)].fill([0.; PANEL]);
        let mut column = 0;
        for at in (0..count).step_by(PANEL) {
            let pixels = PANEL.min(count - at);
            let block = side_by_side(simd, &planes[from * self.w + at..], plane, PANEL, pixels);
            for pixel in 0..pixels {
                lines[line] = block[pixel];
                (line, column) = (line + 1, column + 1);
                if column == self.w {
                    let next = (line + gap).min(height * width);
                    lines[line..next].fill([0.; PANEL]);
                    (line, column) = (next, 0);
                }
            }
        }
        lines[line.min(height * width)..].fill([0.; PANEL]);
        padded
    }

    /// Blocks of one channel from row `first_row` of them on, `width` a row, with zeros outside the image.
    #[inline(always)]
    fn blocks(&self, plane: &[f32], first_row: usize, width: usize, lines: &mut [f32]) {
        // Those that lie within the image's columns.
        let within = self.pad.div_ceil(BLOCK)..((self.w + self.pad) / BLOCK).min(width);
        for (row, lines) in lines.as_chunks_mut::<PANEL>().0.chunks_exact_mut(width).enumerate() {
            let mut rows = [&plane[..0]; BLOCK];
            for part in 0..BLOCK {
                let row = ((first_row + row) * BLOCK + part).checked_sub(self.pad).filter(|&row| row < self.h);
                rows[part] = row.map_or(&[], |row| &plane[row * self.w..][..self.w]);
            }
            let all_rows = rows.iter().all(|row| !row.is_empty());
            for (column, line) in lines.iter_mut().enumerate() {
                let ahead = ((first_row + row + 2) * BLOCK + column % BLOCK) * self.w + column * BLOCK;
                prefetch(plane.as_ptr().wrapping_add(ahead));
                let parts = line.as_chunks_mut::<BLOCK>().0;
                for part in 0..BLOCK {
                    if all_rows && within.contains(&column) {
                        parts[part].copy_from_slice(&rows[part][column * BLOCK - self.pad..][..BLOCK]);
                        continue;
                    }
                    for i in 0..BLOCK {
                        let at = (column * BLOCK + i).checked_sub(self.pad);
                        parts[part][i] = at.and_then(|at| rows[part].get(at)).copied().unwrap_or(0.);
                    }
                }
            }
        }
    }
}

/// Cuts tiles of SIDE x SIDE lines, `step` apart, from the maps of 16 channels, and writes what `X` makes of each to
/// its place in the N x N matrices, `matrix` words each: V = B^T x B from inputs, D = A dy A^T from output gradients.
/// The products' depth is the channels, or else the tiles.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn transform_tiles<
    S: Simd,
    F: Operands,
    X: Axis<S, SIDE, N>,
    const N: usize,
    const SIDE: usize,
    const DEPTH_IS_CHANNELS: bool,
>(
    simd: S,
    source: &TileSource,
    group: Group,
    step: usize,
    panel: usize,
    padded: &mut Vec<f32>,
    matrix: usize,
    to: &mut [f32],
) {
    let size = [(group.rows - 1) * step + SIDE, (group.across - 1) * step + SIDE];
    assert!(group.matrix_of::<F>(DEPTH_IS_CHANNELS) <= matrix && to.len() >= N * N * matrix);
    let mut tile = 0;
    for image in 0..group.images {
        let maps = source.padded(simd, image, panel, group.first_row * step, size, padded);
        assert_eq!(maps.len(), size[0] * size[1] * PANEL);
        for row in 0..group.rows {
            for column in 0..group.across {
                for lane in (0..PANEL).step_by(S::F32_LANES) {
                    let corner = (row * step * size[1] + column * step) * PANEL + lane;
                    let (rows, columns) = ((size[1] * PANEL) as isize, PANEL as isize);
                    // SAFETY: the last tile ends where the maps end, and every matrix has room for all tiles.
                    unsafe {
                        let to = match DEPTH_IS_CHANNELS {
                            true => to.as_mut_ptr().add(tile * F::words(PANEL) + lane / F::DEPTHS),
                            false => to.as_mut_ptr().add(tile / F::DEPTHS * PANEL + lane),
                        };
                        let mut sink = Matrices::<F, N, DEPTH_IS_CHANNELS> { to, matrix, tile, operands: PhantomData };
                        let tile = Tile { start: maps.as_ptr().add(corner), rows, columns };
                        transform_2d::<S, X, SIDE, N>(simd, tile, &mut sink);
                    }
                }
                tile += 1;
            }
        }
    }
}

/// The N x N matrices, at one tile's place in the first of them.
struct Matrices<F, const N: usize, const DEPTH_IS_CHANNELS: bool> {
    to: *mut f32,
    matrix: usize,
    tile: usize,
    operands: PhantomData<F>,
}

impl<S: Simd, F: Operands, const N: usize, const DEPTH_IS_CHANNELS: bool> Sink<S>
    for Matrices<F, N, DEPTH_IS_CHANNELS>
{
    #[inline(always)]
    fn put(&mut self, simd: S, i: usize, j: usize, value: S::f32s) {
        let words = if DEPTH_IS_CHANNELS { S::F32_LANES / F::DEPTHS } else { S::F32_LANES };
        // SAFETY: `transform_tiles` asserts that the matrices have room for the tile.
        let to = unsafe { std::slice::from_raw_parts_mut(self.to, words) };
        // Step by step: 49 addresses would be kept on the stack.
        self.to = match (i + 1, j + 1) {
            (i, _) if i < N => self.to.wrapping_add(N * self.matrix),
            _ => self.to.wrapping_sub((N - 1) * N * self.matrix).wrapping_add(self.matrix),
        };
        if DEPTH_IS_CHANNELS {
            F::put_depths(simd, value, to);
        } else {
            F::put(simd, value, self.tile % F::DEPTHS, 0, to);
        }
    }
}

/// y = A^T m A for the tiles of a group and 16 filters.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn transform_outputs<S: Simd, const N: usize, const M: usize>(
    simd: S,
    maps: &Maps,
    group: Group,
    panel: usize,
    m: &[f32],
    matrix: usize,
    lines: &mut Vec<f32>,
    epilogue: Epilogue,
    y: &mut [f32],
) {
    let plane = maps.p * maps.q;
    let (top, bottom) = (group.first_row * M, ((group.first_row + group.rows) * M).min(maps.p));
    let count = (bottom - top) * maps.q;
    let lines = scratch_slice(lines, count * PANEL);
    assert!(m.len() >= N * N * matrix);
    let mut tile = 0;
    for image in 0..group.images {
        for row in 0..group.rows {
            for column in 0..group.across {
                for lane in (0..PANEL).step_by(S::F32_LANES) {
                    let start = m[tile * PANEL + lane..].as_ptr();
                    let (rows, columns) = ((N * matrix) as isize, matrix as isize);
                    let lines = &mut lines[(row * M * maps.q + column * M) * PANEL + lane..];
                    let inside = [(bottom - top - row * M).min(M), (maps.q - column * M).min(M)];
                    let mut sink = Outputs { lines, width: maps.q, inside };
                    // SAFETY: every matrix has the tile's line, as asserted.
                    unsafe {
                        transform_2d::<S, Interpolate<false>, N, M>(simd, Tile { start, rows, columns }, &mut sink)
                    };
                }
                tile += 1;
            }
        }
        let y = &mut y[(image * maps.k + panel * PANEL) * plane..][..PANEL * plane];
        from_lines(simd, lines, PANEL, count, &mut y[top * maps.q..], plane, epilogue.of_panel(panel));
    }
}

/// A tile's outputs among the lines of a group, from its first on.
struct Outputs<'a> {
    lines: &'a mut [f32],
    /// Lines of a row.
    width: usize,
    /// Rows and columns of the tile that lie within the map.
    inside: [usize; 2],
}

impl<S: Simd> Sink<S> for Outputs<'_> {
    #[inline(always)]
    fn put(&mut self, simd: S, i: usize, j: usize, value: S::f32s) {
        if i < self.inside[0] && j < self.inside[1] {
            store(simd, &mut self.lines[(i * self.width + j) * PANEL..], value);
        }
    }
}
