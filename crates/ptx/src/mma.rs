//! Tensor-core products, and the loads that feed them. A matrix is spread over the registers of a warp; which lane holds
//! which element is written down in the PTX ISA, sections "Matrix Fragments for mma.m16n8k8", "... for mma.m16n8k16" and
//! "ldmatrix". With group = lane / 4 and t = lane % 4:
//!
//! ```text
//!           register   row of A (16 x k)         column of A
//! bf16 A    0 to 3     group + 8 (register % 2)  2 t, 2 t + 1 (low half, high half), + 8 (register / 2)
//! tf32 A    0 to 3     group + 8 (register % 2)  t + 4 (register / 2)
//!           register   column of B (k x 8)       row of B
//! bf16 B    0, 1       group                     2 t, 2 t + 1 (low half, high half), + 8 register
//! tf32 B    0, 1       group                     t + 4 register
//!           register   row of C and D (16 x 8)   column
//! f32 C, D  0 to 3     group + 8 (register / 2)  2 t + register % 2
//! ```
//!
//! Hardware leaves open in which order it adds and how it rounds on the way. Here each sum starts from C and adds one
//! product after another, each rounded once, so results are compared with a tolerance.

use super::instructions::{Factors, LANES, Words};

/// D = A B + C: registers of A, B and C in, of D out.
pub fn multiply(factors: Factors, a: [Words; 4], b: [Words; 2], c: [Words; 4]) -> [Words; 4] {
    pulp::Arch::new().dispatch(Product { factors, a, b, c })
}

struct Product {
    factors: Factors,
    a: [Words; 4],
    b: [Words; 2],
    c: [Words; 4],
}

impl pulp::NullaryFnOnce for Product {
    type Output = [Words; 4];

    // Inlined, or it would not be compiled for this CPU.
    #[inline(always)]
    fn call(self) -> [Words; 4] {
        let Product { factors, a, b, c } = self;
        match factors {
            Factors::Bf16 => product::<16>(
                |row, depth| half(a[row / 8 + depth / 8 * 2][row % 8 * 4 + depth % 8 / 2], depth % 2),
                |depth, column| half(b[depth / 8][column * 4 + depth % 8 / 2], depth % 2),
                c,
            ),
            Factors::Tf32 => product::<8>(
                |row, depth| tf32(a[row / 8 + depth / 4 * 2][row % 8 * 4 + depth % 4]),
                |depth, column| tf32(b[depth / 4][column * 4 + depth % 4]),
                c,
            ),
        }
    }
}

/// The bf16 number in the low (0) or high (1) half.
fn half(word: u32, which: usize) -> f32 {
    f32::from_bits(if which == 0 { word << 16 } else { word & 0xffff_0000 })
}

/// Tensor cores do not look at the lower 13 bits.
fn tf32(word: u32) -> f32 {
    f32::from_bits(word & !0x1fff)
}

#[inline(always)]
fn product<const DEPTH: usize>(
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    c: [Words; 4],
) -> [Words; 4] {
    let b: [[f32; 8]; DEPTH] = std::array::from_fn(|depth| std::array::from_fn(|column| b(depth, column)));
    let mut d = c;
    for row in 0..16 {
        let place = |column: usize| (row / 8 * 2 + column % 2, row % 8 * 4 + column / 2);
        let mut sums: [f32; 8] = std::array::from_fn(|column| {
            let (register, lane) = place(column);
            f32::from_bits(c[register][lane])
        });
        for (depth, b) in b.iter().enumerate() {
            let a = a(row, depth);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
        for (column, sum) in sums.iter().enumerate() {
            let (register, lane) = place(column);
            d[register][lane] = if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() };
        }
    }
    d
}

/// What a lane gets of an 8 x 8 matrix of 16-bit numbers: columns 2 t and 2 t + 1 of row `group`, or, transposed, rows
/// 2 t and 2 t + 1 of column `group`. `rows`: four words each.
pub fn fragment(rows: &[[u32; 4]; 8], transposed: bool) -> Words {
    let at = |row: usize, column: usize| rows[row][column / 2] >> (column % 2 * 16) & 0xffff;
    let mut words = [0; LANES];
    for (lane, word) in words.iter_mut().enumerate() {
        let (group, t) = (lane / 4, lane % 4);
        *word = match transposed {
            false => at(group, 2 * t) | at(group, 2 * t + 1) << 16,
            true => at(2 * t, group) | at(2 * t + 1, group) << 16,
        };
    }
    words
}
