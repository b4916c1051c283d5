//! The gradient of the filters: inputs and output gradients to their values at the points, and the products of those.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::filter_transforms::FilterGradients;
use super::points::{Evaluate, Inputs};
use super::tiles::{TileSource, transform_tiles};
use super::{GRADIENT_GROUP, Group, Maps, SCRATCH, grouping, room, summed};
use crate::operands::Operands;
use crate::panels::{AcrossRows, Left, PANEL, ROWS, multiply, scratch_slice};

/// dw, by rounds of some groups of tiles: all their panels of inputs and of output gradients are transformed, then at
/// each pair of points dU += V^T D, group after group. How many groups make a round depends on the number of threads; the
/// order of the sums does not.
pub fn weight_gradient<F: Operands, const N: usize, const M: usize, const R: usize>(
    maps: &Maps,
    n: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let mut outer = SCRATCH.take();
    let (x_image, y_image) = maps.sizes();
    let (c_panels, k_panels) = (maps.c / PANEL, maps.k / PANEL);
    let (images, rows, down, across) = grouping::<M>(maps, GRADIENT_GROUP);
    let groups = groups(n, images, rows, down, across);
    let du_pair = k_panels * maps.c * PANEL;
    let du = scratch_slice(&mut outer.u, N * N * du_pair);
    let panel_elems = N * N * room(F::words(images * rows * across) * PANEL);
    let group_elems = (c_panels + k_panels) * panel_elems;
    for (round, groups) in groups.chunks(rayon::current_num_threads().max(2)).enumerate() {
        let transformed = scratch_slice(&mut outer.v, groups.len() * group_elems);
        transformed.par_chunks_exact_mut(panel_elems).enumerate().for_each(|(index, to)| {
            let (first_image, group) = groups[index / (c_panels + k_panels)];
            let (panel, operands) = (index % (c_panels + k_panels), PhantomData);
            let matrix = group.matrix::<F>();
            if panel < c_panels {
                let data = &x[first_image * x_image..][..group.images * x_image];
                let source = &maps.inputs(data);
                F::dispatch(TransformPanel::<F, N, M, true> { source, group, panel, matrix, to, operands });
            } else {
                let (data, panel) = (&dy[first_image * y_image..][..group.images * y_image], panel - c_panels);
                let source = &TileSource { data, channels: maps.k, h: maps.p, w: maps.q, pad: 0, block: 1 };
                F::dispatch(TransformPanel::<F, N, M, false> { source, group, panel, matrix, to, operands });
            }
        });
        let transformed = &*transformed;
        // Two panels of filters at one pair of points at a time: more work items than pairs.
        let pairs = du.par_chunks_exact_mut(du_pair).enumerate();
        let parts = pairs.flat_map(|(pair, du)| {
            du.par_chunks_mut(2 * maps.c * PANEL).enumerate().map(move |(part, du)| (pair, 2 * part, du))
        });
        parts.for_each(|(pair, k_panel, du)| {
            for (index, (_, group)) in groups.iter().enumerate() {
                let (tiles, matrix) = (group.images * group.tiles(), group.matrix::<F>());
                let panels = &transformed[index * group_elems..][..group_elems];
                let (v, d) = panels.split_at(c_panels * panel_elems);
                let (v, d) = (&v[pair * matrix..], &d[k_panel * panel_elems + pair * matrix..]);
                let (accumulate, operands) = (round + index > 0, PhantomData);
                F::dispatch(WeightProducts::<F> { panel_elems, tiles, v, d, du, accumulate, operands });
            }
        });
    }
    let du = &*du;
    let elems = PANEL * maps.c * R * R;
    dw[..maps.k * maps.c * R * R].par_chunks_exact_mut(elems).enumerate().for_each(|(panel, dw)| {
        let mut scratch = SCRATCH.take();
        let lines = scratch_slice(&mut scratch.lines, elems);
        let du = &du[panel * maps.c * PANEL..];
        F::dispatch(FilterGradients::<N, R> { du, du_pair, channels: maps.c, lines, dw });
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// All groups, each with its first image.
fn groups(n: usize, images: usize, rows: usize, down: usize, across: usize) -> Vec<(usize, Group)> {
    let mut groups = Vec::new();
    for first_image in (0..n).step_by(images) {
        for first_row in (0..down).step_by(rows) {
            let (images, rows) = (images.min(n - first_image), rows.min(down - first_row));
            groups.push((first_image, Group { images, first_row, rows, across }));
        }
    }
    groups
}

/// One panel of inputs, or of output gradients, to matrices.
struct TransformPanel<'a, F, const N: usize, const M: usize, const INPUTS: bool> {
    source: &'a TileSource<'a>,
    group: Group,
    panel: usize,
    matrix: usize,
    to: &'a mut [f32],
    operands: PhantomData<F>,
}

impl<F: Operands, const N: usize, const M: usize, const INPUTS: bool> WithSimd for TransformPanel<'_, F, N, M, INPUTS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TransformPanel { source, group, panel, matrix, to, .. } = self;
        let mut scratch = SCRATCH.take();
        let padded = &mut scratch.padded;
        if INPUTS {
            transform_tiles::<S, F, Inputs, N, N, false>(simd, source, group, M, panel, padded, matrix, to);
        } else {
            transform_tiles::<S, F, Evaluate<false>, N, M, false>(simd, source, group, M, panel, padded, matrix, to);
        }
        SCRATCH.set(scratch);
    }
}

/// dU += V^T D at one pair of points, for one or two panels of filters: for each a line for each channel.
struct WeightProducts<'a, F> {
    /// Numbers from a panel of v or d to the next.
    panel_elems: usize,
    tiles: usize,
    v: &'a [f32],
    d: &'a [f32],
    du: &'a mut [f32],
    accumulate: bool,
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for WeightProducts<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WeightProducts { panel_elems, tiles, v, d, du, accumulate, .. } = self;
        let c_panels = v.len().div_ceil(panel_elems);
        let (count, depth) = (du.len() / (c_panels * PANEL * PANEL), F::words(tiles) * PANEL);
        assert!((1..=2).contains(&count) && du.len() == count * c_panels * PANEL * PANEL);
        assert!(v.len() >= (c_panels - 1) * panel_elems + depth && d.len() >= (count - 1) * panel_elems + depth);
        for c_panel in 0..c_panels {
            for from in (0..tiles).step_by(summed::<F>()) {
                let line = F::words(from) * PANEL;
                let left = Left { chunk_stride: 0, chunks: 1, depth: F::words(summed::<F>().min(tiles - from)) };
                // SAFETY: the lines of one panel of v and of one or two of d, and 16 lines of as many panels of du, as
                // asserted.
                unsafe {
                    let a = v.as_ptr().add(c_panel * panel_elems + line);
                    let (b, c) = (d.as_ptr().add(line), du.as_mut_ptr().add(c_panel * PANEL * PANEL));
                    let b: [*const f32; 2] = [b, b.wrapping_add(panel_elems)];
                    let c: [*mut f32; 2] = [c, c.wrapping_add(c_panels * PANEL * PANEL)];
                    let (b, c, adds) = (&b[..count], &c[..count], accumulate || from > 0);
                    multiply::<S, F, AcrossRows<PANEL>, ROWS>(simd, PANEL, left, a, b, c, adds);
                }
            }
        }
    }
}
