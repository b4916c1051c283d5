//! Convolutions with few multiplications (Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast
//! algorithms for convolutional neural networks", CVPR 2016), for stride 1 and windows of 3x3 and 5x5; the first layer's
//! convolution is brought to that form (`strided`).
//!
//! A tile of M x M outputs reads N x N inputs, N = M + R - 1 for windows of R x R. Seen as polynomials, inputs and filters
//! are evaluated at N points along each axis; at each of the N x N pairs of points the convolution is one product a
//! channel, so all tiles and channels together are N x N matrix products. Both gradients are the transposed steps around
//! the same kind of products.
//!
//! | | N | points | 3x3 | 5x5 | multiply-adds a tile and channel pair, of the definition's |
//! |---|---|---|---|---|---|
//! | fp32 | 7 | 5/16, 7/8, 7/4, their negatives and infinity | M = 5 | M = 3 | 49 of 225 |
//! | bf16 | 6 | 0, 5/8, 3/2, their negatives and infinity | M = 4 | M = 2 | 36 of 144 and of 100 |
//!
//! Maps of 13 and of 27 are whole numbers of tiles with N = 7, but for two rows and columns of 15. Measured against f64
//! on random numbers: 2.4e-6 of the largest output (3x3, 192 channels; sums are cut short for that, see
//! [`summed`]), 1.6e-6 (3x3) and 2.6e-6 (5x5) of the largest weight gradient. In bf16 it is the values at the points
//! that are rounded, which costs more than rounding inputs and filters: with six points 1.1% of the outputs' standard
//! deviation, with seven about 3% (a direct convolution in bf16: 0.24%).
//!
//! Loop nest, forward, fp32: for each group of 36 tiles, all channels: values of 16 channels are brought side by side (a
//! line), tiles of lines are transformed to V (49 matrices, tiles x channels); then, for 64 filters at a time, the 49
//! products with the transformed filters U give M (tiles x filters), which is transformed back. V (1.4 MB with 192
//! channels), M (0.4 MB) and U pass through the second cache once a group.

mod filter_transforms;
mod points;
pub mod strided;
mod tiles;
mod weights;

use std::cell::Cell;
use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::filter_transforms::{Filters, TransformFilters};
use self::points::Inputs;
use self::tiles::{TileSource, transform_outputs, transform_tiles};
use self::weights::weight_gradient;
use crate::operands::Operands;
use crate::panels::{AlongRows, Epilogue, Left, PANEL, ROWS, multiply, scratch_slice};
use crate::shapes::ConvShape;

/// Tiles worked on together in a convolution, about: whole numbers of blocks for maps of 13 and 27.
const fn group(points: usize) -> usize {
    if points == 7 { 36 } else { 64 }
}

/// Tiles worked on together in a weight gradient, about.
const GRADIENT_GROUP: usize = 64;

/// Panels of filters whose products are made before they are transformed back.
const FILTER_PANELS: usize = 4;

/// Channels, or tiles, whose products are summed before they are added to the sums of others: sums of sums have smaller
/// errors than one long sum, and the more points there are the more that counts. With values rounded to bf16 it does not.
const fn summed<F: Operands>() -> usize {
    if F::DEPTHS == 1 { 32 } else { 1 << 16 }
}

/// Tiles that are made at a time: with seven points maps of 13 and of 27 have 9 tiles, or rows of 9.
const fn block_of_tiles(points: usize) -> usize {
    if points == 7 { 9 } else { ROWS }
}

/// Whether the functions of this module can do a convolution, and faster than others.
pub fn applies(s: &ConvShape) -> bool {
    let same = |size: usize, out: usize| size + 2 * s.pad + 1 == out + s.r;
    let panels = s.c.is_multiple_of(PANEL) && s.k.is_multiple_of(PANEL);
    s.stride == 1 && s.r == s.s && [3, 5].contains(&s.r) && s.pad < s.r && same(s.h, s.p) && same(s.w, s.q) && panels
}

/// See `Backend::conv_forward`.
pub fn conv_forward<F: Operands>(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let epilogue = bias.map_or(Epilogue::Add, Epilogue::Bias);
    let maps = Maps { c: s.c, h: s.h, w: s.w, k: s.k, p: s.p, q: s.q, pad: s.pad, block: 1 };
    let taps = s.r * s.r;
    let filters = Filters { w, inputs: s.c, outputs: s.k, lane_stride: s.c * taps, row_stride: taps, turned: false };
    match F::DEPTHS {
        1 if s.r == 3 => convolve::<F, 7, 5, 3>(&maps, n, x, filters, epilogue, y),
        1 => convolve::<F, 7, 3, 5>(&maps, n, x, filters, epilogue, y),
        _ if s.r == 3 => convolve::<F, 6, 4, 3>(&maps, n, x, filters, epilogue, y),
        _ => convolve::<F, 6, 2, 5>(&maps, n, x, filters, epilogue, y),
    }
}

/// See `Backend::conv_backward_input`: the convolution of dy with the filters turned by half a turn.
pub fn conv_backward_input<F: Operands>(s: &ConvShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let maps = Maps { c: s.k, h: s.p, w: s.q, k: s.c, p: s.h, q: s.w, pad: s.r - 1 - s.pad, block: 1 };
    let taps = s.r * s.r;
    let filters = Filters { w, inputs: s.k, outputs: s.c, lane_stride: taps, row_stride: s.c * taps, turned: true };
    match F::DEPTHS {
        1 if s.r == 3 => convolve::<F, 7, 5, 3>(&maps, n, dy, filters, Epilogue::Set, dx),
        1 => convolve::<F, 7, 3, 5>(&maps, n, dy, filters, Epilogue::Set, dx),
        _ if s.r == 3 => convolve::<F, 6, 4, 3>(&maps, n, dy, filters, Epilogue::Set, dx),
        _ => convolve::<F, 6, 2, 5>(&maps, n, dy, filters, Epilogue::Set, dx),
    }
}

/// See `Backend::conv_backward_weight`.
pub fn conv_backward_weight<F: Operands>(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let maps = Maps { c: s.c, h: s.h, w: s.w, k: s.k, p: s.p, q: s.q, pad: s.pad, block: 1 };
    match F::DEPTHS {
        1 if s.r == 3 => weight_gradient::<F, 7, 5, 3>(&maps, n, x, dy, dw),
        1 => weight_gradient::<F, 7, 3, 5>(&maps, n, x, dy, dw),
        _ if s.r == 3 => weight_gradient::<F, 6, 4, 3>(&maps, n, x, dy, dw),
        _ => weight_gradient::<F, 6, 2, 5>(&maps, n, x, dy, dw),
    }
}

/// Sizes of the maps that a convolution reads (C H W) and makes (K P Q). With blocks of 4 x 4 pixels, which are then C's
/// sixteens, H and W are the pixels.
#[derive(Clone, Copy)]
struct Maps {
    c: usize,
    h: usize,
    w: usize,
    k: usize,
    p: usize,
    q: usize,
    pad: usize,
    /// The side of a block, or 1.
    block: usize,
}

impl Maps {
    /// Numbers of an image that is read, and of one that is made.
    fn sizes(&self) -> (usize, usize) {
        (self.c / (self.block * self.block) * self.h * self.w, self.k * self.p * self.q)
    }

    /// Where inputs are cut from, given some images of them.
    fn inputs<'a>(&self, data: &'a [f32]) -> TileSource<'a> {
        let Maps { c, h, w, pad, block, .. } = *self;
        TileSource { data, channels: c / (block * block), h, w, pad, block }
    }
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

    /// Room for a matrix whose depth is the tiles of all images.
    fn matrix<F: Operands>(&self) -> usize {
        room(self.matrix_of::<F>(false))
    }

    /// Room that tiles take in a matrix whose depth is the channels of a panel, or else the tiles.
    fn matrix_of<F: Operands>(&self, depth_is_channels: bool) -> usize {
        let tiles = self.images * self.tiles();
        if depth_is_channels { tiles * F::words(PANEL) } else { F::words(tiles) * PANEL }
    }

    /// Tiles of all images, rounded up to `block`.
    fn rows_of_all(&self, block: usize) -> usize {
        (self.images * self.tiles()).next_multiple_of(block)
    }
}

/// Space for a matrix of `words` words: an odd number of lines, so that the 36 matrices do not all begin in the same
/// set of the cache.
fn room(words: usize) -> usize {
    (words.div_ceil(PANEL) | 1) * PANEL
}

/// The cut of the outputs into groups: images and rows of tiles in each.
fn grouping<const M: usize>(maps: &Maps, group: usize) -> (usize, usize, usize, usize) {
    let (down, across) = (maps.p.div_ceil(M), maps.q.div_ceil(M));
    let images = (group / (down * across)).max(1);
    let rows = if images > 1 { down } else { (group / across).clamp(1, down) };
    (images, rows, down, across)
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    /// Transformed inputs, products, transformed filters, lines of outputs and of padded inputs.
    v: Vec<f32>,
    m: Vec<f32>,
    u: Vec<f32>,
    lines: Vec<f32>,
    padded: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

fn convolve<F: Operands, const N: usize, const M: usize, const R: usize>(
    maps: &Maps,
    n: usize,
    x: &[f32],
    filters: Filters,
    epilogue: Epilogue,
    y: &mut [f32],
) {
    let mut outer = SCRATCH.take();
    let u_panel = N * N * F::words(filters.inputs) * PANEL;
    let u = scratch_slice(&mut outer.u, filters.outputs / PANEL * u_panel);
    u.par_chunks_exact_mut(u_panel)
        .enumerate()
        .for_each(|(panel, u)| F::dispatch(TransformFilters::<F, N, R> { filters, panel, u, operands: PhantomData }));
    let u = &*u;
    let (images, rows, down, across) = grouping::<M>(maps, group(N));
    // Smaller groups where there are more threads than groups: each tile is for itself, so this changes no bits.
    let images = images.min(n.div_ceil(2 * rayon::current_num_threads()).max(1));
    let (x_image, y_image) = maps.sizes();
    y[..n * y_image].par_chunks_mut(images * y_image).enumerate().for_each(|(index, y)| {
        let mut scratch = SCRATCH.take();
        let x = &x[index * images * x_image..][..y.len() / y_image * x_image];
        for first_row in (0..down).step_by(rows) {
            let group = Group { images: y.len() / y_image, first_row, rows: rows.min(down - first_row), across };
            let scratch = &mut scratch;
            F::dispatch(ConvolveGroup::<F, N, M, R> { maps, group, x, u, epilogue, y, scratch, operands: PhantomData });
        }
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// All that happens to a group of tiles in a convolution.
struct ConvolveGroup<'a, F, const N: usize, const M: usize, const R: usize> {
    maps: &'a Maps,
    group: Group,
    x: &'a [f32],
    u: &'a [f32],
    epilogue: Epilogue<'a>,
    y: &'a mut [f32],
    scratch: &'a mut Scratch,
    operands: PhantomData<F>,
}

impl<F: Operands, const N: usize, const M: usize, const R: usize> WithSimd for ConvolveGroup<'_, F, N, M, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ConvolveGroup { maps, group, x, u, epilogue, y, scratch, .. } = self;
        let Scratch { v, m, lines, padded, .. } = scratch;
        let rows = group.rows_of_all(block_of_tiles(N));
        let (v_matrix, m_matrix) = (room(rows * F::words(PANEL)), room(rows * PANEL));
        let (v_panel, m_panel) = (N * N * v_matrix, N * N * m_matrix);
        let v = scratch_slice(v, maps.c / PANEL * v_panel);
        let inputs = maps.inputs(x);
        for (panel, v) in v.chunks_exact_mut(v_panel).enumerate() {
            transform_tiles::<S, F, Inputs, N, N, true>(simd, &inputs, group, M, panel, padded, v_matrix, v);
        }
        let chunks = maps.c / PANEL;
        let u_pair = F::words(maps.c) * PANEL;
        let u_panel = N * N * u_pair;
        for panels in (0..maps.k / PANEL).collect::<Vec<_>>().chunks(FILTER_PANELS) {
            let m = scratch_slice(m, panels.len() * m_panel);
            for pair in 0..N * N {
                for (two, m) in panels.chunks(2).zip(m.chunks_mut(2 * m_panel)) {
                    let b: [*const f32; 2] =
                        [0, 1].map(|i| u[(two[0] + i).min(two[two.len() - 1]) * u_panel + pair * u_pair..].as_ptr());
                    let start = m.as_mut_ptr();
                    // SAFETY: both panels, or the first alone, lie in `m`, and matrix `pair` in each.
                    unsafe {
                        let c: [*mut f32; 2] =
                            [0, 1].map(|i| start.add(i.min(two.len() - 1) * m_panel + pair * m_matrix));
                        for chunk in (0..chunks).step_by(summed::<F>() / PANEL) {
                            let left = Left {
                                chunk_stride: v_panel,
                                chunks: (summed::<F>() / PANEL).min(chunks - chunk),
                                depth: F::words(PANEL),
                            };
                            let a = v.as_ptr().add(chunk * v_panel + pair * v_matrix);
                            let b = b.map(|b| b.add(chunk * F::words(PANEL) * PANEL));
                            let (b, c, adds) = (&b[..two.len()], &c[..two.len()], chunk > 0);
                            if N == 7 {
                                multiply::<S, F, AlongRows<F, PANEL>, { block_of_tiles(7) }>(
                                    simd, rows, left, a, b, c, adds,
                                );
                            } else {
                                multiply::<S, F, AlongRows<F, PANEL>, { block_of_tiles(6) }>(
                                    simd, rows, left, a, b, c, adds,
                                );
                            }
                        }
                    }
                }
            }
            for (&panel, m) in panels.iter().zip(m.chunks_exact(m_panel)) {
                transform_outputs::<S, N, M>(simd, maps, group, panel, m, m_matrix, lines, epilogue, y);
            }
        }
    }
}
