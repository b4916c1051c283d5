//! Convolutions with few multiplications (Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast
//! algorithms for convolutional neural networks", CVPR 2016), for stride 1 and windows of 3x3 and 5x5.
//!
//! A tile of m x m outputs reads 6 x 6 inputs, m = 4 for 3x3 and m = 2 for 5x5. Seen as polynomials, inputs and filters are
//! evaluated at six points along each axis; at each of the 36 pairs of points the convolution is one product a channel, so all
//! tiles and channels together are 36 matrix products: 36 multiply-adds a tile and channel pair where the definition takes 144
//! (3x3) or 100 (5x5). Both gradients are the transposed steps around the same kind of products.
//!
//! The points are 0, 5/8, -5/8, 3/2, -3/2 and infinity: with the usual 0, 1, -1, 2, -2 errors are three to four times as large.
//! Measured against f64 with 192 channels: 2e-6 of the largest output, 2.2e-6 of the largest weight gradient (5x5), where plain
//! sums in f32 give 3e-7.
//!
//! Loop nest, forward: for each group of about 32 tiles, all channels: bytes of 16 channels are brought side by side (a line),
//! tiles of lines are transformed to V (36 matrices, tiles x channels); then, for 64 filters at a time, the 36 products with
//! the transformed filters U give M (tiles x filters), which is transformed back. V and M (0.4 MB each with 192 channels) stay
//! in the second cache, U passes through it once a group.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use std::cell::Cell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{Finish, Left, PANEL, ROWS, first, from_lines, multiply, to_lines};
use super::simd::{dispatch, store};
use crate::backend::ConvShape;

/// Points along an axis, and pairs of them.
const POINTS: usize = 6;
const PAIRS: usize = POINTS * POINTS;

/// The points besides 0 and infinity are plus and minus these.
const P: [f32; 2] = [0.625, 1.5];

/// Tiles worked on together, about.
const GROUP: usize = 32;

/// Panels of filters whose products are made before they are transformed back.
const FILTER_PANELS: usize = 4;

/// Whether the functions of this module can do a convolution, and faster than others.
pub fn applies(s: &ConvShape) -> bool {
    let same = |size: usize, out: usize| size + 2 * s.pad + 1 == out + s.r;
    let panels = s.c.is_multiple_of(PANEL) && s.k.is_multiple_of(PANEL);
    s.stride == 1 && s.r == s.s && [3, 5].contains(&s.r) && s.pad < s.r && same(s.h, s.p) && same(s.w, s.q) && panels
}

/// See [`crate::backend::Backend::conv_forward`].
pub fn conv_forward(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let finish = bias.map_or(Finish::Add, Finish::Bias);
    let maps = Maps { c: s.c, h: s.h, w: s.w, k: s.k, p: s.p, q: s.q, pad: s.pad };
    let taps = s.r * s.r;
    let filters = Filters { w, inputs: s.c, outputs: s.k, lane_stride: s.c * taps, row_stride: taps, turned: false };
    match s.r {
        3 => convolve::<4, 3>(&maps, n, x, filters, finish, y),
        _ => convolve::<2, 5>(&maps, n, x, filters, finish, y),
    }
}

/// See [`crate::backend::Backend::conv_backward_input`]: the convolution of dy with the filters turned by half a turn.
pub fn conv_backward_input(s: &ConvShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let maps = Maps { c: s.k, h: s.p, w: s.q, k: s.c, p: s.h, q: s.w, pad: s.r - 1 - s.pad };
    let taps = s.r * s.r;
    let filters = Filters { w, inputs: s.k, outputs: s.c, lane_stride: taps, row_stride: s.c * taps, turned: true };
    match s.r {
        3 => convolve::<4, 3>(&maps, n, dy, filters, Finish::Set, dx),
        _ => convolve::<2, 5>(&maps, n, dy, filters, Finish::Set, dx),
    }
}

/// See [`crate::backend::Backend::conv_backward_weight`].
pub fn conv_backward_weight(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let maps = Maps { c: s.c, h: s.h, w: s.w, k: s.k, p: s.p, q: s.q, pad: s.pad };
    match s.r {
        3 => weight_gradient::<4, 3>(&maps, n, x, dy, dw),
        _ => weight_gradient::<2, 5>(&maps, n, x, dy, dw),
    }
}

/// Sizes of the maps that a convolution reads (C H W) and makes (K P Q).
struct Maps {
    c: usize,
    h: usize,
    w: usize,
    k: usize,
    p: usize,
    q: usize,
    pad: usize,
}

/// Tiles of some images' outputs: `rows` rows of tiles from `first_row` on, of each of `images` images.
#[derive(Clone, Copy)]
struct Group {
    images: usize,
    first_row: usize,
    rows: usize,
    /// Tiles a row.
    across: usize,
}

impl Group {
    /// Tiles of an image.
    fn tiles(&self) -> usize {
        self.rows * self.across
    }

    /// Tiles of all images, and what a matrix of them has room for: an odd number of lines, so that the 36 matrices do not all
    /// begin in the same set of the cache.
    fn lines(&self) -> usize {
        (self.images * self.tiles()).next_multiple_of(ROWS) + 1
    }
}

/// How the outputs of an image are cut: images and rows of tiles a group.
fn grouping<const M: usize>(maps: &Maps, group: usize) -> (usize, usize, usize, usize) {
    let (down, across) = (maps.p.div_ceil(M), maps.q.div_ceil(M));
    let images = (group / (down * across)).max(1);
    let rows = if images > 1 { down } else { (group / across).clamp(1, down) };
    (images, rows, down, across)
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    /// Transformed inputs, products, transformed filters, lines before and after padding.
    v: Vec<f32>,
    m: Vec<f32>,
    u: Vec<f32>,
    lines: Vec<f32>,
    padded: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { v: Vec::new(), m: Vec::new(), u: Vec::new(), lines: Vec::new(), padded: Vec::new() }) };
}

/// Filters as a matrix of outputs and inputs, each R x R, wherever they lie.
#[derive(Clone, Copy)]
struct Filters<'a> {
    w: &'a [f32],
    inputs: usize,
    outputs: usize,
    /// Floats from one output to the next, and from one input to the next.
    lane_stride: usize,
    row_stride: usize,
    /// By half a turn.
    turned: bool,
}

fn convolve<const M: usize, const R: usize>(
    maps: &Maps,
    n: usize,
    x: &[f32],
    filters: Filters,
    finish: Finish,
    y: &mut [f32],
) {
    let mut outer = SCRATCH.take();
    let u_panel = PAIRS * filters.inputs * PANEL;
    let u = first(&mut outer.u, filters.outputs / PANEL * u_panel);
    u.par_chunks_exact_mut(u_panel)
        .enumerate()
        .for_each(|(panel, u)| dispatch(TransformFilters::<R> { filters, panel, u }));
    let u = &*u;
    let (images, rows, down, across) = grouping::<M>(maps, GROUP);
    let (x_image, y_image) = (maps.c * maps.h * maps.w, maps.k * maps.p * maps.q);
    y[..n * y_image].par_chunks_mut(images * y_image).enumerate().for_each(|(index, y)| {
        let mut scratch = SCRATCH.take();
        let x = &x[index * images * x_image..][..y.len() / y_image * x_image];
        for first_row in (0..down).step_by(rows) {
            let group = Group { images: y.len() / y_image, first_row, rows: rows.min(down - first_row), across };
            dispatch(ConvolveGroup::<M, R> { maps, group, x, u, finish, y, scratch: &mut scratch });
        }
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// All that happens to a group of tiles in a convolution.
struct ConvolveGroup<'a, const M: usize, const R: usize> {
    maps: &'a Maps,
    group: Group,
    x: &'a [f32],
    u: &'a [f32],
    finish: Finish<'a>,
    y: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl<const M: usize, const R: usize> WithSimd for ConvolveGroup<'_, M, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ConvolveGroup { maps, group, x, u, finish, y, scratch } = self;
        let (lines, tiles) = (group.lines(), group.images * group.tiles());
        let v_panel = PAIRS * lines * PANEL;
        let v = first(&mut scratch.v, maps.c / PANEL * v_panel);
        let inputs = Source { data: x, channels: maps.c, h: maps.h, w: maps.w, pad: maps.pad };
        for (panel, v) in v.chunks_exact_mut(v_panel).enumerate() {
            transform_tiles::<S, Inputs, POINTS>(
                simd,
                &inputs,
                group,
                M,
                panel,
                &mut scratch.lines,
                &mut scratch.padded,
                v,
            );
        }
        let left = Left { chunk_stride: v_panel, chunks: maps.c / PANEL, depth: PANEL };
        let (u_pair, u_panel) = (maps.c * PANEL, PAIRS * maps.c * PANEL);
        for panels in (0..maps.k / PANEL).collect::<Vec<_>>().chunks(FILTER_PANELS) {
            let m = first(&mut scratch.m, panels.len() * v_panel);
            for pair in 0..PAIRS {
                for (two, m) in panels.chunks(2).zip(m.chunks_mut(2 * v_panel)) {
                    let b: [*const f32; 2] =
                        [0, 1].map(|i| u[(two[0] + i).min(two[two.len() - 1]) * u_panel + pair * u_pair..].as_ptr());
                    let start = m.as_mut_ptr();
                    // SAFETY: both panels, or the first alone, lie in `m`, and matrix `pair` in each.
                    unsafe {
                        let c: [*mut f32; 2] =
                            [0, 1].map(|i| start.add(i.min(two.len() - 1) * v_panel + pair * lines * PANEL));
                        let a = v.as_ptr().add(pair * lines * PANEL);
                        let rows = tiles.next_multiple_of(ROWS);
                        multiply::<S, ROWS, PANEL, 1>(simd, rows, left, a, &b[..two.len()], &c[..two.len()], false);
                    }
                }
            }
            for (&panel, m) in panels.iter().zip(m.chunks_exact(v_panel)) {
                transform_outputs::<S, M>(simd, maps, group, panel, m, &mut scratch.lines, finish, y);
            }
        }
    }
}

fn weight_gradient<const M: usize, const R: usize>(maps: &Maps, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let mut outer = SCRATCH.take();
    let (x_image, y_image) = (maps.c * maps.h * maps.w, maps.k * maps.p * maps.q);
    let (images, rows, down, across) = grouping::<M>(maps, 2 * GROUP);
    let du_panel = PAIRS * maps.c * PANEL;
    let du = first(&mut outer.u, maps.k / PANEL * du_panel);
    for first_image in (0..n).step_by(images) {
        for first_row in (0..down).step_by(rows) {
            let (images, rows) = (images.min(n - first_image), rows.min(down - first_row));
            let group = Group { images, first_row, rows, across };
            let lines = group.lines();
            let panel_elems = PAIRS * lines * PANEL;
            let x = &x[first_image * x_image..][..images * x_image];
            let dy = &dy[first_image * y_image..][..images * y_image];
            let inputs = Source { data: x, channels: maps.c, h: maps.h, w: maps.w, pad: maps.pad };
            let gradients = Source { data: dy, channels: maps.k, h: maps.p, w: maps.q, pad: 0 };
            let v = first(&mut outer.v, maps.c / PANEL * panel_elems);
            v.par_chunks_exact_mut(panel_elems)
                .enumerate()
                .for_each(|(panel, v)| dispatch(TransformPanel::<M, R, true> { source: &inputs, group, panel, to: v }));
            let d = first(&mut outer.m, maps.k / PANEL * panel_elems);
            d.par_chunks_exact_mut(panel_elems).enumerate().for_each(|(panel, d)| {
                dispatch(TransformPanel::<M, R, false> { source: &gradients, group, panel, to: d })
            });
            let (v, d) = (&*v, &*d);
            let accumulate = first_image + first_row > 0;
            du.par_chunks_mut(2 * du_panel).zip(d.par_chunks(2 * panel_elems)).for_each(|(du, d)| {
                dispatch(WeightProducts {
                    channels: maps.c,
                    tiles: images * group.tiles(),
                    lines,
                    v,
                    d,
                    du,
                    accumulate,
                });
            });
        }
    }
    let du = &*du;
    let elems = PANEL * maps.c * R * R;
    dw[..maps.k * maps.c * R * R].par_chunks_exact_mut(elems).enumerate().for_each(|(panel, dw)| {
        let mut scratch = SCRATCH.take();
        let lines = first(&mut scratch.lines, elems);
        dispatch(FilterGradients::<R> { du: &du[panel * du_panel..][..du_panel], channels: maps.c, lines, dw });
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// One panel of inputs, or of output gradients, to matrices.
struct TransformPanel<'a, const M: usize, const R: usize, const INPUTS: bool> {
    source: &'a Source<'a>,
    group: Group,
    panel: usize,
    to: &'a mut [f32],
}

impl<const M: usize, const R: usize, const INPUTS: bool> WithSimd for TransformPanel<'_, M, R, INPUTS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TransformPanel { source, group, panel, to } = self;
        let mut scratch = SCRATCH.take();
        let Scratch { lines, padded, .. } = &mut scratch;
        if INPUTS {
            transform_tiles::<S, Inputs, POINTS>(simd, source, group, M, panel, lines, padded, to);
        } else {
            transform_tiles::<S, Evaluate<false>, M>(simd, source, group, M, panel, lines, padded, to);
        }
        SCRATCH.set(scratch);
    }
}

/// dU += V^T D for one or two panels of filters.
struct WeightProducts<'a> {
    channels: usize,
    tiles: usize,
    lines: usize,
    v: &'a [f32],
    d: &'a [f32],
    du: &'a mut [f32],
    accumulate: bool,
}

impl WithSimd for WeightProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WeightProducts { channels, tiles, lines, v, d, du, accumulate } = self;
        let (matrix, panel_elems) = (lines * PANEL, PAIRS * lines * PANEL);
        let (du_pair, du_panel) = (channels * PANEL, PAIRS * channels * PANEL);
        let count = du.len() / du_panel;
        let left = Left { chunk_stride: 0, chunks: 1, depth: tiles };
        let (d, du) = (d.as_ptr(), du.as_mut_ptr());
        for pair in 0..PAIRS {
            for (panel, v) in v.chunks_exact(panel_elems).enumerate() {
                // SAFETY: matrix `pair` of each panel of v and d, rows of `panel` of matrix `pair` of each panel of du.
                unsafe {
                    let b: [*const f32; 2] = [0, 1].map(|i| d.add(i.min(count - 1) * panel_elems + pair * matrix));
                    let rows = pair * du_pair + panel * PANEL * PANEL;
                    let c: [*mut f32; 2] = [0, 1].map(|i| du.add(i.min(count - 1) * du_panel + rows));
                    let a = v.as_ptr().add(pair * matrix);
                    multiply::<S, ROWS, 1, PANEL>(simd, PANEL, left, a, &b[..count], &c[..count], accumulate);
                }
            }
        }
    }
}

/// Maps that tiles are cut from: N x channels x h x w, with `pad` zeros around.
struct Source<'a> {
    data: &'a [f32],
    channels: usize,
    h: usize,
    w: usize,
    pad: usize,
}

impl Source<'_> {
    /// Rows `first_row - pad` and on of 16 channels of one image as `height` x `width` lines, with zeros outside the image.
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
        let lines = first(lines, count * PANEL);
        if count > 0 {
            to_lines(simd, &planes[from * self.w..], plane, PANEL, count, lines);
        }
        let padded = first(padded, height * width * PANEL);
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

/// Cuts tiles of SIDE x SIDE lines, `step` apart, from the maps of 16 channels, and writes what `X` makes of each to its line of the
/// 36 matrices: V = B^T x B from inputs, D = A dy A^T from output gradients.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transform_tiles<S: Simd, X: Axis<S, SIDE, POINTS>, const SIDE: usize>(
    simd: S,
    source: &Source,
    group: Group,
    step: usize,
    panel: usize,
    lines: &mut Vec<f32>,
    padded: &mut Vec<f32>,
    to: &mut [f32],
) {
    let matrix = group.lines() * PANEL;
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
                        both::<S, X, SIDE, POINTS>(simd, Tile { start: maps.as_ptr().add(corner), rows, columns })
                    };
                    for (pair, value) in values.as_flattened().iter().enumerate() {
                        store(simd, &mut to[pair * matrix + tile * PANEL + lane..], *value);
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
fn transform_outputs<S: Simd, const M: usize>(
    simd: S,
    maps: &Maps,
    group: Group,
    panel: usize,
    m: &[f32],
    lines: &mut Vec<f32>,
    finish: Finish,
    y: &mut [f32],
) {
    let (matrix, plane) = (group.lines() * PANEL, maps.p * maps.q);
    let (top, bottom) = (group.first_row * M, ((group.first_row + group.rows) * M).min(maps.p));
    let count = (bottom - top) * maps.q;
    let lines = first(lines, count * PANEL);
    assert!(m.len() >= PAIRS * matrix);
    let mut tile = 0;
    for image in 0..group.images {
        for row in 0..group.rows {
            for column in 0..group.across {
                for lane in (0..PANEL).step_by(S::F32_LANES) {
                    let start = m[tile * PANEL + lane..].as_ptr();
                    let (rows, columns) = ((POINTS * matrix) as isize, matrix as isize);
                    // SAFETY: every matrix has the tile's line, as asserted.
                    let values =
                        unsafe { both::<S, Interpolate<false>, POINTS, M>(simd, Tile { start, rows, columns }) };
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
        from_lines(simd, lines, PANEL, count, &mut y[top * maps.q..], plane, finish.of_panel(panel));
    }
}

/// U = G w G^T for 16 filters: 36 matrices of a line an input channel.
struct TransformFilters<'a, const R: usize> {
    filters: Filters<'a>,
    panel: usize,
    u: &'a mut [f32],
}

impl<const R: usize> WithSimd for TransformFilters<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TransformFilters { filters: f, panel, u } = self;
        let mut lines = [0f32; 25 * PANEL];
        for input in 0..f.inputs {
            to_lines(
                simd,
                &f.w[panel * PANEL * f.lane_stride + input * f.row_stride..],
                f.lane_stride,
                PANEL,
                R * R,
                &mut lines,
            );
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                let tap = |tap: usize| lines[tap * PANEL + lane..].as_ptr();
                let (rows, columns) = ((R * PANEL) as isize, PANEL as isize);
                let taps = match f.turned {
                    false => Tile { start: tap(0), rows, columns },
                    true => Tile { start: tap(R * R - 1), rows: -rows, columns: -columns },
                };
                // SAFETY: there are lines of R x R taps.
                let values = unsafe { both::<S, Evaluate<true>, R, POINTS>(simd, taps) };
                for (pair, value) in values.as_flattened().iter().enumerate() {
                    store(simd, &mut u[(pair * f.inputs + input) * PANEL + lane..], *value);
                }
            }
        }
    }
}

/// dw = G^T dU G for 16 filters: the transpose of [`TransformFilters`].
struct FilterGradients<'a, const R: usize> {
    du: &'a [f32],
    channels: usize,
    lines: &'a mut [f32],
    dw: &'a mut [f32],
}

impl<const R: usize> WithSimd for FilterGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let FilterGradients { du, channels, lines, dw } = self;
        for channel in 0..channels {
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                let (rows, columns) = ((POINTS * channels * PANEL) as isize, (channels * PANEL) as isize);
                assert_eq!(du.len(), PAIRS * channels * PANEL);
                let start = du[channel * PANEL + lane..].as_ptr();
                // SAFETY: every one of the 36 matrices has the channel's line.
                let taps = unsafe { both::<S, Interpolate<true>, POINTS, R>(simd, Tile { start, rows, columns }) };
                for (tap, value) in taps.as_flattened().iter().enumerate() {
                    store(simd, &mut lines[(channel * R * R + tap) * PANEL + lane..], *value);
                }
            }
        }
        let plane = channels * R * R;
        from_lines(simd, lines, PANEL, plane, dw, plane, Finish::Set);
    }
}

/// What is done along one axis of a tile. A trait and not closures: they are not always compiled for the wide instructions.
trait Axis<S: Simd, const I: usize, const O: usize> {
    fn apply(simd: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// B^T: the six inputs of a tile as the values of polynomials, so that products at the points give the convolution.
struct Inputs;

impl<S: Simd> Axis<S, POINTS, POINTS> for Inputs {
    #[inline(always)]
    fn apply(simd: S, d: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
        let [pp, qq] = [P[0] * P[0], P[1] * P[1]];
        let [pp_qq, sum] = [simd.splat_f32s(pp * qq), simd.splat_f32s(-(pp + qq))];
        let [minus_pp, minus_qq] = [simd.splat_f32s(-pp), simd.splat_f32s(-qq)];
        let (even_p, odd_p) = (simd.mul_add_e_f32s(minus_qq, d[2], d[4]), simd.mul_add_e_f32s(minus_qq, d[1], d[3]));
        let (even_q, odd_q) = (simd.mul_add_e_f32s(minus_pp, d[2], d[4]), simd.mul_add_e_f32s(minus_pp, d[1], d[3]));
        [
            simd.mul_add_e_f32s(pp_qq, d[0], simd.mul_add_e_f32s(sum, d[2], d[4])),
            simd.mul_add_e_f32s(simd.splat_f32s(P[0]), odd_p, even_p),
            simd.mul_add_e_f32s(simd.splat_f32s(-P[0]), odd_p, even_p),
            simd.mul_add_e_f32s(simd.splat_f32s(P[1]), odd_q, even_q),
            simd.mul_add_e_f32s(simd.splat_f32s(-P[1]), odd_q, even_q),
            simd.mul_add_e_f32s(pp_qq, d[1], simd.mul_add_e_f32s(sum, d[3], d[5])),
        ]
    }
}

/// The polynomial with the given coefficients at the six points: A, or G where `SCALED` by one over the product of the point's
/// distances to the other finite ones.
struct Evaluate<const SCALED: bool>;

impl<S: Simd, const N: usize, const SCALED: bool> Axis<S, N, POINTS> for Evaluate<SCALED> {
    #[inline(always)]
    fn apply(simd: S, y: [S::f32s; N]) -> [S::f32s; POINTS] {
        let scales = scales(SCALED);
        let zero = simd.mul_f32s(simd.splat_f32s(scales[0]), y[0]);
        let mut values = [zero, zero, zero, zero, zero, y[N - 1]];
        for index in 0..2 {
            let mut sums = [simd.splat_f32s(0.); 2]; // even powers, odd powers
            let mut power = scales[1 + index];
            for i in 0..N {
                sums[i % 2] = simd.mul_add_e_f32s(simd.splat_f32s(power), y[i], sums[i % 2]);
                power *= P[index];
            }
            values[1 + 2 * index] = simd.add_f32s(sums[0], sums[1]);
            values[2 + 2 * index] = simd.sub_f32s(sums[0], sums[1]);
        }
        values
    }
}

/// The transpose of [`Evaluate`]: A^T, or G^T where `SCALED`.
struct Interpolate<const SCALED: bool>;

impl<S: Simd, const N: usize, const SCALED: bool> Axis<S, POINTS, N> for Interpolate<SCALED> {
    #[inline(always)]
    fn apply(simd: S, m: [S::f32s; POINTS]) -> [S::f32s; N] {
        let scales = scales(SCALED);
        let mut y = [simd.splat_f32s(0.); N];
        y[0] = simd.mul_f32s(simd.splat_f32s(scales[0]), m[0]);
        y[N - 1] = m[POINTS - 1];
        for index in 0..2 {
            let (plus, minus) = (m[1 + 2 * index], m[2 + 2 * index]);
            let parts = [simd.add_f32s(plus, minus), simd.sub_f32s(plus, minus)];
            let mut power = scales[1 + index];
            for i in 0..N {
                y[i] = simd.mul_add_e_f32s(simd.splat_f32s(power), parts[i % 2], y[i]);
                power *= P[index];
            }
        }
        y
    }
}

/// For the points 0, plus and minus `P[0]`, plus and minus `P[1]`: see [`Evaluate`].
#[inline(always)]
fn scales(scaled: bool) -> [f32; 3] {
    let [pp, qq] = [P[0] * P[0], P[1] * P[1]];
    if scaled { [1. / (pp * qq), 1. / (2. * pp * (pp - qq)), 1. / (2. * qq * (qq - pp))] } else { [1.; 3] }
}

/// Vectors of a tile: (i, j) is at `start + i * rows + j * columns`.
#[derive(Clone, Copy)]
struct Tile {
    start: *const f32,
    rows: isize,
    columns: isize,
}

/// Applies `X` along the rows of a tile and then along its columns.
///
/// # Safety
/// The tile's I x I vectors must be valid to read.
#[inline(always)]
unsafe fn both<S: Simd, X: Axis<S, I, O>, const I: usize, const O: usize>(simd: S, tile: Tile) -> [[S::f32s; O]; O] {
    let zero = simd.splat_f32s(0.);
    let mut rows = [[zero; O]; I];
    for i in 0..I {
        let mut row = [zero; I];
        for j in 0..I {
            // SAFETY: by this function's contract; unaligned access is allowed.
            row[j] = unsafe {
                tile.start.offset(i as isize * tile.rows + j as isize * tile.columns).cast::<S::f32s>().read_unaligned()
            };
        }
        rows[i] = X::apply(simd, row);
    }
    let mut result = [[zero; O]; O];
    for j in 0..O {
        let mut column = [zero; I];
        for i in 0..I {
            column[i] = rows[i][j];
        }
        let column = X::apply(simd, column);
        for i in 0..O {
            result[i][j] = column[i];
        }
    }
    result
}
