//! Maps to the N x N matrices of their tiles, and back.

use pulp::Simd;

use super::points::{Axis, Interpolate, Tile, transform_2d};
use super::{Group, Maps};
use crate::operands::Operands;
use crate::panels::{Epilogue, PANEL, from_lines, scratch_slice, to_lines};
use crate::simd::store;

/// Maps that tiles are cut from: N x channels x h x w, with `pad` zeros around.
pub struct TileSource<'a> {
    pub data: &'a [f32],
    pub channels: usize,
    pub h: usize,
    pub w: usize,
    pub pad: usize,
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
        lines: &mut Vec<f32>,
        padded: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let plane = self.h * self.w;
        let planes = &self.data[(image * self.channels + panel * PANEL) * plane..][..PANEL * plane];
        let from = first_row.saturating_sub(self.pad);
        let end = (first_row + height).saturating_sub(self.pad).min(self.h);
        let count = end.saturating_sub(from) * self.w;
        let lines = scratch_slice(lines, count * PANEL);
        if count > 0 {
            to_lines(simd, &planes[from * self.w..], plane, PANEL, count, lines);
        }
        let padded = scratch_slice(padded, height * width * PANEL);
        for (row, to) in padded.chunks_exact_mut(width * PANEL).enumerate() {
            match (first_row + row).checked_sub(self.pad).filter(|row| (from..end).contains(row)) {
                None => to.fill(0.),
                Some(row) => {
                    let columns = self.w.min(width - self.pad) * PANEL;
                    let (before, rest) = to.split_at_mut(self.pad * PANEL);
                    let (inside, after) = rest.split_at_mut(columns);
                    before.fill(0.);
                    inside.copy_from_slice(&lines[(row - from) * self.w * PANEL..][..columns]);
                    after.fill(0.);
                }
            }
        }
        padded
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
    lines: &mut Vec<f32>,
    padded: &mut Vec<f32>,
    matrix: usize,
    to: &mut [f32],
) {
    let size = [(group.rows - 1) * step + SIDE, (group.across - 1) * step + SIDE];
    let mut tile = 0;
    for image in 0..group.images {
        let maps = source.padded(simd, image, panel, group.first_row * step, size, lines, padded);
        assert_eq!(maps.len(), size[0] * size[1] * PANEL);
        for row in 0..group.rows {
            for column in 0..group.across {
                for lane in (0..PANEL).step_by(S::F32_LANES) {
                    let corner = (row * step * size[1] + column * step) * PANEL + lane;
                    let (rows, columns) = ((size[1] * PANEL) as isize, PANEL as isize);
                    // SAFETY: the last tile ends where the maps end.
                    let values = unsafe {
                        transform_2d::<S, X, SIDE, N>(simd, Tile { start: maps.as_ptr().add(corner), rows, columns })
                    };
                    for (pair, value) in values.as_flattened().iter().enumerate() {
                        let to = &mut to[pair * matrix..];
                        if DEPTH_IS_CHANNELS {
                            F::put_depths(simd, *value, &mut to[tile * F::words(PANEL) + lane..]);
                        } else {
                            F::put(simd, *value, tile, PANEL, &mut to[lane..]);
                        }
                    }
                }
                tile += 1;
            }
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
                    // SAFETY: every matrix has the tile's line, as asserted.
                    let values =
                        unsafe { transform_2d::<S, Interpolate<false>, N, M>(simd, Tile { start, rows, columns }) };
                    let (inside_rows, inside_columns) = ((bottom - top - row * M).min(M), (maps.q - column * M).min(M));
                    for (i, values) in values.iter().enumerate().take(inside_rows) {
                        for (j, value) in values.iter().enumerate().take(inside_columns) {
                            let line = (row * M + i) * maps.q + column * M + j;
                            store(simd, &mut lines[line * PANEL + lane..], *value);
                        }
                    }
                }
                tile += 1;
            }
        }
        let y = &mut y[(image * maps.k + panel * PANEL) * plane..][..PANEL * plane];
        from_lines(simd, lines, PANEL, count, &mut y[top * maps.q..], plane, epilogue.of_panel(panel));
    }
}
