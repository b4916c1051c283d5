//! The polynomials behind the transformations: along one axis of a tile, and along both. Their numbers are asked for in
//! `const` blocks: a call at run time moves all vectors to memory and back.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::Simd;

/// Pairs of points plus and minus a number that are used at most.
const MOST: usize = 3;

/// The number of such pairs among `n` points of an axis: the others are infinity and, where `n` is even, 0.
const fn pairs(n: usize) -> usize {
    (n - 1) / 2
}

/// 1 where 0 is a point, which is then the first one, else 0.
const fn zeros(n: usize) -> usize {
    1 - n % 2
}

/// The positive points of `n` along an axis: those whose errors are smallest by their norms, among squares that are
/// exact.
const fn positive(n: usize) -> [f32; MOST] {
    match n {
        6 => [0.625, 1.5, 0.],
        7 => [0.3125, 0.875, 1.75],
        _ => panic!("there are six points or seven"),
    }
}

/// The coefficients of the product of (x - p^2) over the positive points of `n`, the constant one first; without point
/// `left_out`, which may be none of them.
const fn product(n: usize, left_out: usize) -> [f32; MOST + 1] {
    let mut coefficients = [1., 0., 0., 0.];
    let (mut point, mut degree) = (0, 0);
    while point < pairs(n) {
        if point != left_out {
            let square = positive(n)[point] * positive(n)[point];
            degree += 1;
            let mut power = degree;
            while power > 0 {
                coefficients[power] = coefficients[power - 1] - square * coefficients[power];
                power -= 1;
            }
            coefficients[0] *= -square;
        }
        point += 1;
    }
    coefficients
}

/// For 0, and for each positive point p: 1, or where `scaled` one over the product of the point's distances to the
/// other finite ones. Without 0 among the points that of minus p is the negative.
const fn scales(n: usize, scaled: bool) -> [f32; MOST + 1] {
    let mut scales = [1.; MOST + 1];
    if scaled {
        scales[0] = 1. / product(n, MOST)[0];
        let mut point = 0;
        while point < pairs(n) {
            let p = positive(n)[point];
            let others = product(n, point);
            let mut value = 0.;
            let mut power = MOST + 1;
            while power > 0 {
                power -= 1;
                value = value * (p * p) + others[power];
            }
            scales[1 + point] = 1. / (2. * p * if zeros(n) == 1 { p } else { 1. } * value);
            point += 1;
        }
    }
    scales
}

/// A transformation along one axis of a tile. It is a trait because closures are not always compiled for the wide
/// instructions.
pub trait Axis<S: Simd, const I: usize, const O: usize> {
    /// Along one row or column.
    fn apply(simd: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// B^T: the N inputs of a tile as the values of polynomials, so that products at the points give the convolution.
///
/// Input i belongs to x^i. The row of infinity is the product of (x - p) over all finite points p, that of a point the
/// same without it. With Q = the product of (x^2 - p^2), or Q_p without one pair, rows are Q for 0, x Q (or Q without 0)
/// for infinity, and x (x + p) Q_p and x (x - p) Q_p (or without the first x) for p and minus p.
pub struct Inputs;

impl<S: Simd, const N: usize> Axis<S, N, N> for Inputs {
    #[inline(always)]
    fn apply(simd: S, d: [S::f32s; N]) -> [S::f32s; N] {
        let all = const { product(N, MOST) };
        // The values of Q at 0 or infinity: `shift` for the x before it.
        let mut values = [simd.splat_f32s(0.); N];
        for (row, shift) in [(0, 0), (N - 1, zeros(N))] {
            let mut value = d[2 * pairs(N) + shift];
            for power in (0..pairs(N)).rev() {
                value = simd.mul_add_e_f32s(simd.splat_f32s(all[power]), d[2 * power + shift], value);
            }
            values[row] = value;
        }
        for point in 0..pairs(N) {
            let others = const { [product(N, 0), product(N, 1), product(N, 2)] }[point];
            let last = 2 * pairs(N) - 2 + zeros(N);
            let (mut upper, mut lower) = (d[last + 1], d[last]);
            for power in (0..pairs(N) - 1).rev() {
                let factor = simd.splat_f32s(others[power]);
                upper = simd.mul_add_e_f32s(factor, d[2 * power + 1 + zeros(N)], upper);
                lower = simd.mul_add_e_f32s(factor, d[2 * power + zeros(N)], lower);
            }
            let (p, row) = (const { positive(N) }[point], zeros(N) + 2 * point);
            values[row] = simd.mul_add_e_f32s(simd.splat_f32s(p), lower, upper);
            values[row + 1] = simd.mul_add_e_f32s(simd.splat_f32s(-p), lower, upper);
        }
        values
    }
}

/// The polynomial with the given coefficients at the N points: A, or G where `SCALED` by one over the product of the
/// point's distances to the other finite ones.
pub struct Evaluate<const SCALED: bool>;

impl<S: Simd, const C: usize, const N: usize, const SCALED: bool> Axis<S, C, N> for Evaluate<SCALED> {
    #[inline(always)]
    fn apply(simd: S, y: [S::f32s; C]) -> [S::f32s; N] {
        let scales = const { scales(N, SCALED) };
        let mut values = [y[C - 1]; N];
        if zeros(N) == 1 {
            values[0] = simd.mul_f32s(simd.splat_f32s(scales[0]), y[0]);
        }
        for point in 0..pairs(N) {
            let mut sums = [simd.splat_f32s(0.); 2]; // even powers, odd powers
            let mut power = scales[1 + point];
            for i in 0..C {
                sums[i % 2] = simd.mul_add_e_f32s(simd.splat_f32s(power), y[i], sums[i % 2]);
                power *= const { positive(N) }[point];
            }
            let row = zeros(N) + 2 * point;
            values[row] = simd.add_f32s(sums[0], sums[1]);
            values[row + 1] = match SCALED && zeros(N) == 0 {
                true => simd.sub_f32s(sums[1], sums[0]),
                false => simd.sub_f32s(sums[0], sums[1]),
            };
        }
        values
    }
}

/// The transpose of [`Evaluate`]: A^T, or G^T where `SCALED`.
pub struct Interpolate<const SCALED: bool>;

impl<S: Simd, const C: usize, const N: usize, const SCALED: bool> Axis<S, N, C> for Interpolate<SCALED> {
    #[inline(always)]
    fn apply(simd: S, m: [S::f32s; N]) -> [S::f32s; C] {
        let scales = const { scales(N, SCALED) };
        let mut y = [simd.splat_f32s(0.); C];
        if zeros(N) == 1 {
            y[0] = simd.mul_f32s(simd.splat_f32s(scales[0]), m[0]);
        }
        y[C - 1] = m[N - 1];
        for point in 0..pairs(N) {
            let (plus, minus) = (m[zeros(N) + 2 * point], m[zeros(N) + 2 * point + 1]);
            let mut parts = [simd.add_f32s(plus, minus), simd.sub_f32s(plus, minus)];
            if SCALED && zeros(N) == 0 {
                parts = [parts[1], parts[0]];
            }
            let mut power = scales[1 + point];
            for i in 0..C {
                y[i] = simd.mul_add_e_f32s(simd.splat_f32s(power), parts[i % 2], y[i]);
                power *= const { positive(N) }[point];
            }
        }
        y
    }
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

/// Takes the vectors of a transformed tile. It is a trait because closures are not always compiled for the wide
/// instructions, and no array, because that would go through memory.
pub trait Sink<S: Simd> {
    /// Takes (i, j).
    fn put(&mut self, simd: S, i: usize, j: usize, value: S::f32s);
}

/// Applies `X` along the rows of a tile and then along its columns.
///
/// # Safety
/// The tile's I x I vectors must be valid to read.
#[inline(always)]
pub unsafe fn transform_2d<S: Simd, X: Axis<S, I, O>, const I: usize, const O: usize>(
    simd: S,
    tile: Tile,
    sink: &mut impl Sink<S>,
) {
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
    for j in 0..O {
        let mut column = [zero; I];
        for i in 0..I {
            column[i] = rows[i][j];
        }
        let column = X::apply(simd, column);
        for i in 0..O {
            sink.put(simd, i, j, column[i]);
        }
    }
}
