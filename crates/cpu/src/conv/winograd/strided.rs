//! The first layer's convolution, 11x11 windows 4 apart, as one of 3x3 windows 1 apart: a block of 4x4 pixels counts as
//! one pixel of 16 channels, so that 3x3 blocks hold a window. What the windows of 12x12 have too much is 0.
//!
//! Always in fp32: with so few channels the transformations take more time than the products, and bf16 would need more of
//! them (see the table of the module above).

use super::filter_transforms::Filters;
use super::weights::weight_gradient;
use super::{Maps, convolve};
use crate::operands::Fp32;
use crate::panels::{Epilogue, PANEL};
use crate::shapes::ConvShape;

/// The side of a block of pixels, which is the distance between windows.
pub const BLOCK: usize = 4;

/// Blocks along the side of a window.
const SIDE: usize = 3;

/// Whether the functions of this module can do a convolution, and faster than others.
pub fn applies(s: &ConvShape) -> bool {
    s.stride == BLOCK && s.r == s.s && s.r.div_ceil(BLOCK) == SIDE && s.k.is_multiple_of(PANEL)
}

/// The maps of blocks.
fn maps(s: &ConvShape) -> Maps {
    Maps { c: s.c * PANEL, h: s.h, w: s.w, k: s.k, p: s.p, q: s.q, pad: s.pad, block: BLOCK }
}

/// For each weight of K C R R its place in K 16C 3 3: channels by the place within the block, taps by the block.
fn places(s: &ConvShape) -> impl Iterator<Item = usize> {
    let (c, r) = (s.c, s.r);
    (0..s.k * c * r * r).map(move |index| {
        let (filter_and_channel, row, column) = (index / (r * r), index / r % r, index % r);
        let channel = filter_and_channel * PANEL + row % BLOCK * BLOCK + column % BLOCK;
        (channel * SIDE + row / BLOCK) * SIDE + column / BLOCK
    })
}

/// See `Backend::conv_forward`.
pub fn conv_forward(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (maps, taps) = (maps(s), SIDE * SIDE);
    let mut by_block = vec![0.; maps.k * maps.c * taps];
    places(s).zip(w).for_each(|(place, w)| by_block[place] = *w);
    let (lane_stride, row_stride) = (maps.c * taps, taps);
    let filters = Filters { w: &by_block, inputs: maps.c, outputs: maps.k, lane_stride, row_stride, turned: false };
    convolve::<Fp32, 7, 5, SIDE>(&maps, n, x, filters, bias.map_or(Epilogue::Add, Epilogue::Bias), y);
}

/// See `Backend::conv_backward_weight`.
pub fn conv_backward_weight(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let maps = maps(s);
    let mut by_block = vec![0.; maps.k * maps.c * SIDE * SIDE];
    weight_gradient::<Fp32, 7, 5, SIDE>(&maps, n, x, dy, &mut by_block);
    places(s).zip(dw).for_each(|(place, dw)| *dw = by_block[place]);
}
