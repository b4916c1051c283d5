//! The polynomials behind the transformations: along one axis of a tile, and along both.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::Simd;

/// Points along an axis, and pairs of them.
pub const POINTS: usize = 6;
pub const PAIRS: usize = POINTS * POINTS;

/// The points besides 0 and infinity are plus and minus these.
pub const P: [f32; 2] = [0.625, 1.5];

/// What is done along one axis of a tile. A trait and not closures: they are not always compiled for the wide
/// instructions.
pub trait Axis<S: Simd, const I: usize, const O: usize> {
    /// Along one row or column.
    fn apply(simd: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// B^T: the six inputs of a tile as the values of polynomials, so that products at the points give the convolution.
pub struct Inputs;

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

/// The polynomial with the given coefficients at the six points: A, or G where `SCALED` by one over the product of the
/// point's distances to the other finite ones.
pub struct Evaluate<const SCALED: bool>;

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
pub struct Interpolate<const SCALED: bool>;

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
pub fn scales(scaled: bool) -> [f32; 3] {
    let [pp, qq] = [P[0] * P[0], P[1] * P[1]];
    if scaled { [1. / (pp * qq), 1. / (2. * pp * (pp - qq)), 1. / (2. * qq * (qq - pp))] } else { [1.; 3] }
}

/// Vectors of a tile: (i, j) is at `start + i * rows + j * columns`.
#[derive(Clone, Copy)]
pub struct Tile {
    /// (0, 0).
    pub start: *const f32,
    /// Floats from a row to the next.
    pub rows: isize,
    /// Floats from a column to the next.
    pub columns: isize,
}

/// Applies `X` along the rows of a tile and then along its columns.
///
/// # Safety
/// The tile's I x I vectors must be valid to read.
#[inline(always)]
pub unsafe fn both<S: Simd, X: Axis<S, I, O>, const I: usize, const O: usize>(
    simd: S,
    tile: Tile,
) -> [[S::f32s; O]; O] {
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
