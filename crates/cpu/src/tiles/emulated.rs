//! The unit, in plain code: so that operands and edges are tested on every processor.

#![allow(clippy::needless_range_loop)] // rows and columns, as the manual names them

use super::{SIDE, Unit};

/// The unit, a number at a time.
#[derive(Default)]
pub struct Emulated {
    rows: usize,
    words: usize,
    tiles: [[[u32; SIDE]; SIDE]; 8],
}

impl Emulated {
    /// Rows and words of a register.
    fn size(&self, register: u8) -> [usize; 2] {
        match register {
            0..4 => [self.rows, SIDE],
            4 | 5 => [self.rows, self.words],
            _ => [self.words, SIDE],
        }
    }
}

/// Numbers below the smallest normal one are 0.
fn normal(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

impl Unit for Emulated {
    fn shape(&mut self, rows: usize, words: usize) {
        assert!((1..=SIDE).contains(&rows) && (1..=SIDE).contains(&words));
        if (rows, words) != (self.rows, self.words) {
            *self = Emulated { rows, words, ..Emulated::default() };
        }
    }

    fn zero<const TO: u8>(&mut self) {
        self.tiles[usize::from(TO)] = Default::default();
    }

    unsafe fn load<const TO: u8>(&mut self, from: *const f32, stride: usize) {
        let [rows, words] = self.size(TO);
        for row in 0..rows {
            // SAFETY: by this function's contract.
            let values = unsafe { std::slice::from_raw_parts(from.add(row * stride).cast::<u32>(), words) };
            self.tiles[usize::from(TO)][row][..words].copy_from_slice(values);
        }
    }

    unsafe fn store<const FROM: u8>(&mut self, to: *mut f32) {
        for row in 0..self.rows {
            // SAFETY: by this function's contract.
            let values = unsafe { std::slice::from_raw_parts_mut(to.add(row * SIDE).cast::<u32>(), SIDE) };
            values.copy_from_slice(&self.tiles[usize::from(FROM)][row]);
        }
    }

    fn multiply_add<const SUM: u8, const LEFT: u8, const RIGHT: u8>(&mut self) {
        let [left, right] = [LEFT, RIGHT].map(|register| self.tiles[usize::from(register)]);
        let depth =
            |word: u32, odd: u32| normal(f32::from_bits(if odd == 1 { word & 0xffff_0000 } else { word << 16 }));
        for row in 0..self.rows {
            for column in 0..SIDE {
                let mut parts = [0f32; 2];
                for word in 0..self.words {
                    for odd in 0..2 {
                        let (a, b) = (depth(left[row][word], odd), depth(right[word][column], odd));
                        let part = &mut parts[odd as usize];
                        *part = normal(a.mul_add(b, *part));
                    }
                }
                let sum = &mut self.tiles[usize::from(SUM)][row][column];
                *sum = normal(normal(f32::from_bits(*sum)) + normal(parts[0] + parts[1])).to_bits();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, Simd, WithSimd};

    use super::super::{multiply, *};
    use super::*;
    use crate::panels::{AcrossRows, AlongRows, Left, PANEL, Strides};

    struct TwoDepths;

    impl crate::operands::Operands for TwoDepths {
        const DEPTHS: usize = 2;
        fn dispatch<Op: WithSimd>(_: Op) -> Op::Output {
            unreachable!()
        }
        fn multiply_add<S: Simd>(_: S, _: S::f32s, _: S::f32s, _: S::f32s) -> S::f32s {
            unreachable!()
        }
        fn put<S: Simd>(_: S, _: S::f32s, _: usize, _: usize, _: &mut [f32]) {
            unreachable!()
        }
        fn put_depths<S: Simd>(_: S, _: S::f32s, _: &mut [f32]) {
            unreachable!()
        }
    }

    /// Words of two values of bf16, some of them denormal, from a seed.
    fn words(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut half = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / 8_388_608. - 1.;
            if state.is_multiple_of(97) { 3 } else { value.to_bits() >> 16 }
        };
        (0..count).map(|_| f32::from_bits(half() << 16 | half())).collect()
    }

    fn halves(word: f32) -> [f64; 2] {
        [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(|bits| f64::from(normal(f32::from_bits(bits))))
    }

    /// The product of words that lie as `L` says, by the unit given, and in f64.
    fn both<U: Unit, L: Strides>(unit: &mut U, rows: usize, left: Left, panels: usize, adds: bool) -> [Vec<f64>; 2] {
        let (a, depth) = (words(4096, 7), left.chunks * left.depth);
        let b: Vec<Vec<f32>> = (0..panels).map(|panel| words(depth * PANEL, 11 + panel as u32)).collect();
        let mut c: Vec<Vec<f32>> = (0..panels).map(|_| vec![if adds { 0.5 } else { f32::NAN }; rows * PANEL]).collect();
        let exact = b.iter().flat_map(|b| {
            (0..rows * PANEL).map(|at| {
                let words = (0..depth).map(|d| {
                    let (chunk, depth) = (d / left.depth, d % left.depth);
                    let a = halves(a[chunk * left.chunk_stride + at / PANEL * L::ROW + depth * L::DEPTH]);
                    let b = halves(b[d * PANEL + at % PANEL]);
                    a[0] * b[0] + a[1] * b[1]
                });
                words.sum::<f64>() + if adds { 0.5 } else { 0. }
            })
        });
        let exact: Vec<f64> = exact.collect();
        let (at_b, at_c): (Vec<_>, Vec<_>) =
            (b.iter().map(|b| b.as_ptr()).collect(), c.iter_mut().map(|c| c.as_mut_ptr()).collect());
        // SAFETY: the operands are as long as the sizes say; `a` is longer.
        unsafe { multiply::<Scalar, U, L>(Scalar, unit, rows, left, a.as_ptr(), &at_b, &at_c, adds) };
        [c.concat().into_iter().map(f64::from).collect(), exact]
    }

    /// Rows that fill tiles and that do not, depths that end within a tile, several chunks, both layouts.
    fn cases(mut check: impl FnMut(usize, Left, usize, bool)) {
        for rows in [8, 16, 24, 32, 40, 64, 72] {
            for (chunks, depth) in [(1, 8), (3, 8), (1, 16), (1, 32), (1, 23), (2, 21), (1, 1), (1, 52)] {
                let left = Left { chunk_stride: 1200, chunks, depth };
                check(rows, left, 1 + rows / 8 % 2, chunks > 1);
                check(rows, left, 2, false);
            }
        }
    }

    #[test]
    fn tiles_multiply_as_their_definition() {
        cases(|rows, left, panels, adds| {
            let found = [
                both::<_, AlongRows<TwoDepths, 32>>(
                    &mut Emulated::default(),
                    rows.min(64),
                    Left { depth: left.depth.min(16), ..left },
                    panels,
                    adds,
                ),
                both::<_, AcrossRows<72>>(
                    &mut Emulated::default(),
                    rows,
                    Left { depth: left.depth.min(23), ..left },
                    panels,
                    adds,
                ),
            ];
            for [found, exact] in found {
                for (found, exact) in found.iter().zip(&exact) {
                    assert!((found - exact).abs() < 1e-5, "{rows} rows, {} words: {found} is not {exact}", left.depth);
                }
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_emulation_has_the_bits_of_the_unit() {
        if !is_there() {
            eprintln!("skipped: this processor has no AMX");
            return;
        }
        cases(|rows, left, panels, adds| {
            let left = Left { depth: left.depth.min(23), ..left };
            let [unit, _] = both::<_, AcrossRows<72>>(&mut Amx, rows, left, panels, adds);
            let [emulated, _] = both::<_, AcrossRows<72>>(&mut Emulated::default(), rows, left, panels, adds);
            assert_eq!(unit, emulated, "{rows} rows, {left:?}");
        });
    }
}
