//! Baseline JPEG of YCbCr with 4:2:0 and the Huffman tables of the standard (ITU-T T.81, F.1).

use pulp::{Simd, WithSimd};

use super::Square;
use super::emit::{Bits, TABLES};
use super::fdct::{Coefficients, quantization, transform};
use super::idct::{LANES, Scratch};
use super::tables::{AC, CHROMINANCE, DC, LUMINANCE, ZIGZAG};
use alexnet_split_cpu::simd::dispatch;

impl Square {
    /// A JPEG file; `quality` is 1 to 100, with the quantization that libjpeg has for it.
    pub fn encode(&self, quality: u8) -> Vec<u8> {
        let steps = [scaled(&LUMINANCE, quality), scaled(&CHROMINANCE, quality)];
        let mut bytes = Vec::with_capacity(self.size * self.size / 2 + 1024);
        headers(self.size, &steps, &mut bytes);
        let mut bits = Bits::after(bytes);
        dispatch(Scan { square: self, factors: steps.each_ref().map(quantization), bits: &mut bits });
        let mut bytes = bits.finish();
        bytes.extend([0xff, 0xd9]);
        bytes
    }
}

/// Steps for a quality, by libjpeg's rule (jcparam.c): in per cent of table K, 5000 / q below 50, else 200 - 2 q.
fn scaled(table: &[u8; 64], quality: u8) -> [u8; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    table.map(|step| ((u32::from(step) * percent + 50) / 100).clamp(1, 255) as u8)
}

/// Everything before the entropy-coded data (B.2).
fn headers(size: usize, steps: &[[u8; 64]; 2], bytes: &mut Vec<u8>) {
    bytes.extend([0xff, 0xd8]);
    let mut segment = |marker: u8, parts: &[&[u8]]| {
        let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>() as u16;
        bytes.extend([0xff, marker]);
        bytes.extend(length.to_be_bytes());
        parts.iter().for_each(|part| bytes.extend(*part));
    };
    segment(0xe0, &[b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0"]); // version 1.2, square pixels
    let [high, low] = (size as u16).to_be_bytes();
    for (name, steps) in (0u8..).zip(steps) {
        segment(0xdb, &[&[name], &ZIGZAG.map(|at| steps[usize::from(at)])]);
    }
    segment(0xc0, &[&[8, high, low, high, low, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]]);
    for (class, tables) in [(0u8, &DC), (0x10, &AC)] {
        for (name, (counts, symbols)) in (class..).zip(tables) {
            segment(0xc4, &[&[name], counts, symbols]);
        }
    }
    segment(0xda, &[&[3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]]);
}

/// All minimum coded units.
struct Scan<'a> {
    square: &'a Square,
    factors: [[f32; 64]; 2],
    bits: &'a mut Bits,
}

impl WithSimd for Scan<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Scan { square, factors, bits } = self;
        let units = square.size.div_ceil(16);
        let half = square.size.div_ceil(2);
        // Rows of blocks of a row of minimum coded units: plane, side, rows of blocks, which of them, quantization.
        let y = |below| (&square.y[..], square.size, 2, below, 0);
        let lines = [y(0), y(1), (&square.cb[..], half, 1, 0, 1), (&square.cr[..], half, 1, 0, 1)];
        let mut groups =
            [2 * units, 2 * units, units, units].map(|blocks| vec![Coefficients::default(); blocks.div_ceil(LANES)]);
        let mut predictions = [0; 3];
        let mut scratch = [[[0.; LANES]; 64]; 2];
        for row in 0..units {
            for ((plane, side, rows, below, kind), groups) in lines.iter().zip(&mut groups) {
                transform_row(plane, *side, row * rows + below, &factors[*kind], &mut scratch, groups);
            }
            for unit in 0..units {
                let (left, right) = (2 * unit, 2 * unit + 1);
                for (line, block, component) in
                    [(0, left, 0), (0, right, 0), (1, left, 0), (1, right, 0), (2, unit, 1), (3, unit, 2)]
                {
                    let (prediction, tables) = (&mut predictions[component], &TABLES[component.min(1)]);
                    bits.block(&groups[line][block / LANES], block % LANES, prediction, tables);
                }
            }
        }
    }
}

/// Transforms a row of blocks. Beyond the plane, its last row and column go on.
#[inline(always)]
fn transform_row(
    plane: &[u8],
    side: usize,
    row: usize,
    factors: &[f32; 64],
    scratch: &mut Scratch,
    groups: &mut [Coefficients],
) {
    for (number, group) in groups.iter_mut().enumerate() {
        let column = (number * 8 * LANES).min(side - 1);
        let mut padded = [[0; 8 * LANES]; 8];
        let mut rows = [&[0; 8 * LANES]; 8];
        for (at, (to, padded)) in rows.iter_mut().zip(&mut padded).enumerate() {
            let line = &plane[(8 * row + at).min(side - 1) * side..][..side][column..];
            *to = match line.first_chunk() {
                Some(whole) => whole,
                None => {
                    padded.fill(line[line.len() - 1]);
                    padded[..line.len()].copy_from_slice(line);
                    padded
                }
            };
        }
        transform(rows, factors, scratch, group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_libjpeg() {
        assert_eq!(scaled(&LUMINANCE, 50), LUMINANCE);
        assert_eq!(scaled(&LUMINANCE, 90)[..8], [3, 2, 2, 3, 5, 8, 10, 12]);
        assert_eq!(scaled(&CHROMINANCE, 10)[..4], [85, 90, 120, 235]);
        assert_eq!(scaled(&CHROMINANCE, 100), [1; 64]);
        assert_eq!(scaled(&CHROMINANCE, 1), [255; 64]);
    }
}
