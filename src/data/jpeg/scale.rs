//! Scaling of a component, as Pillow's and torchvision's: bilinear over the area that a pixel covers.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::rounded;
use super::scan::Rows;

/// A side of an image, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Pixels.
    pub length: usize,
    /// Those in the middle that are kept.
    pub kept: usize,
    /// What they become.
    pub size: usize,
}

/// What the samples of a scaled row or column are made of.
pub struct Taps {
    /// The first sample of each.
    first: Vec<usize>,
    /// Of each as many, from the first on.
    weights: Vec<f32>,
    /// So many.
    count: usize,
}

impl Side {
    /// For a component that has a sample for `from` pixels before and for `to` pixels after scaling, 1 or 2.
    ///
    /// A pixel is three quarters of the sample that it lies in and a quarter of the next one to its centre, as in
    /// libjpeg; a sample is the mean of its pixels. So a component is scaled as if all had been done with pixels.
    pub fn taps(self, from: usize, to: usize) -> Taps {
        let Side { length, kept, size } = self;
        let (samples, count) = (length.div_ceil(from), size.div_ceil(to));
        let scale = kept as f64 / size as f64;
        let support = scale.max(1.);
        let offset = (length - kept) as f64 / 2.;
        let widest = ((2. * support + (to - 1) as f64 * scale) as usize + 2) / from + 2;
        let (mut first, mut weights) = (Vec::with_capacity(count), vec![0.; count * widest]);
        let mut taps = 1;
        for (sample, weights) in weights.chunks_exact_mut(widest).enumerate() {
            let pixels = sample * to..(sample * to + to).min(size);
            let share = 1. / pixels.len() as f64;
            let mut start = None;
            for pixel in pixels {
                let centre = offset + (pixel as f64 + 0.5) * scale;
                let covered = (centre - support + 0.5) as usize..((centre + support + 0.5) as usize).min(length);
                let weight = |at: usize| (1. - ((at as f64 + 0.5 - centre) / support).abs()).max(0.);
                let sum: f64 = covered.clone().map(weight).sum();
                let start =
                    *start.get_or_insert(if from == 1 { covered.start } else { covered.start.saturating_sub(1) / 2 });
                for at in covered {
                    let weight = weight(at) / sum * share;
                    let near = at / from;
                    if from == 1 {
                        weights[near - start] += weight;
                    } else {
                        let far = if at % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(samples - 1) };
                        weights[near - start] += 0.75 * weight;
                        weights[far - start] += 0.25 * weight;
                    }
                }
            }
            first.push(start.unwrap_or(0));
            taps = taps.max(weights.iter().rposition(|&weight| weight != 0.).unwrap_or(0) + 1);
        }
        // The last ones begin earlier, so that none goes beyond the end.
        let mut all = Taps { first: Vec::with_capacity(count), weights: vec![0.; count * taps], count: taps };
        for ((from, &first), to) in weights.chunks_exact(widest).zip(&first).zip(all.weights.chunks_exact_mut(taps)) {
            let start = first.min(samples.saturating_sub(taps));
            for (to, from) in to[first - start..].iter_mut().zip(from) {
                *to = *from as f32;
            }
            all.first.push(start);
        }
        all
    }
}

impl Taps {
    /// The samples that are needed.
    pub fn range(&self) -> Range<usize> {
        let [first, last] = [self.first.first(), self.first.last()].map(|at| at.copied().unwrap_or(0));
        first..last + self.count
    }
}

/// Rows of a component that are scaled as they come.
pub struct Narrow<'a> {
    taps: &'a Taps,
    /// Eight rows.
    wide: Vec<[f32; 8]>,
    narrow: Vec<[u8; 8]>,
    /// All rows so far.
    rows: Vec<u8>,
}

impl<'a> Narrow<'a> {
    /// Of a component of which there will be so many rows.
    pub fn new(taps: &'a Taps, rows: usize) -> Self {
        let width = taps.first.len();
        Narrow { taps, wide: Vec::new(), narrow: vec![[0; 8]; width], rows: Vec::with_capacity((rows + 14) * width) }
    }
}

impl Rows for Narrow<'_> {
    #[inline(always)]
    fn take(&mut self, columns: &[u64]) {
        let Narrow { taps, wide, narrow, rows } = self;
        wide.resize(columns.len(), [0.; 8]);
        for (wide, column) in wide.iter_mut().zip(columns) {
            let column = column.to_le_bytes();
            for row in 0..8 {
                wide[row] = f32::from(column[row]);
            }
        }
        let corner = taps.range().start / 8 * 8;
        for ((to, first), weights) in narrow.iter_mut().zip(&taps.first).zip(taps.weights.chunks_exact(taps.count)) {
            let mut sums = [0f32; 8];
            for (from, weight) in wide[first - corner..].iter().zip(weights) {
                for row in 0..8 {
                    sums[row] += from[row] * weight;
                }
            }
            for row in 0..8 {
                to[row] = rounded(sums[row]);
            }
        }
        for row in 0..8 {
            rows.extend(narrow.iter().map(|column| (u64::from_le_bytes(*column) >> (8 * row)) as u8));
        }
    }
}

/// Scales the columns of narrow rows.
pub struct Lowered<'a> {
    /// The rows.
    pub rows: Narrow<'a>,
    /// Of the columns.
    pub taps: &'a Taps,
}

impl WithSimd for Lowered<'_> {
    type Output = Vec<u8>;

    /// Rows of samples.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<u8> {
        let Lowered { rows: Narrow { rows, taps: columns, .. }, taps } = self;
        let width = columns.first.len();
        let corner = taps.range().start / 8 * 8;
        let mut scaled = vec![0u8; taps.first.len() * width];
        let mut sums = vec![0f32; width];
        let weights = taps.weights.chunks_exact(taps.count);
        for ((to, first), weights) in scaled.chunks_exact_mut(width).zip(&taps.first).zip(weights) {
            sums.fill(0.);
            let from = rows[(first - corner) * width..].chunks_exact(width);
            for (from, weight) in from.zip(weights) {
                for (sum, from) in sums.iter_mut().zip(from) {
                    *sum += f32::from(*from) * weight;
                }
            }
            for (to, sum) in to.iter_mut().zip(&sums) {
                *to = rounded(*sum);
            }
        }
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sample `at` of a scaled line, as pixels: before scaling, scaled, and after it.
    fn expected(side: Side, line: &[f64], from: usize, to: usize, at: usize) -> f64 {
        let sample = |at: isize| line[at.clamp(0, line.len() as isize - 1) as usize];
        let pixel = |at: usize| match from {
            1 => line[at],
            _ => 0.75 * sample(at as isize / 2) + 0.25 * sample(at as isize / 2 - 1 + at as isize % 2 * 2),
        };
        let scale = side.kept as f64 / side.size as f64;
        let pixels = (at * to..(at * to + to).min(side.size)).map(|at| {
            let centre = (side.length - side.kept) as f64 / 2. + (at as f64 + 0.5) * scale;
            let weight = |at: usize| (1. - (at as f64 + 0.5 - centre).abs() / scale.max(1.)).max(0.);
            let sum: f64 = (0..side.length).map(|at| weight(at) * pixel(at)).sum();
            sum / (0..side.length).map(weight).sum::<f64>()
        });
        let pixels: Vec<f64> = pixels.collect();
        pixels.iter().sum::<f64>() / pixels.len() as f64
    }

    #[test]
    fn a_component_is_scaled_as_pixels_are() {
        for (length, kept, size) in [
            (500, 375, 256),
            (375, 375, 256),
            (31, 30, 64),
            (64, 64, 64),
            (9, 1, 7),
            (1, 1, 5),
            (5000, 300, 16),
            (77, 77, 33),
        ] {
            let side = Side { length, kept, size };
            for (from, to) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                let line: Vec<f64> = (0..length.div_ceil(from)).map(|at| (at * at * 7 % 256) as f64).collect();
                let taps = side.taps(from, to);
                assert_eq!(taps.first.len(), size.div_ceil(to));
                assert!(taps.range().end <= line.len() && taps.first.is_sorted());
                for (at, first) in taps.first.iter().enumerate() {
                    let weights = &taps.weights[at * taps.count..][..taps.count];
                    let value: f64 =
                        weights.iter().zip(&line[*first..]).map(|(weight, v)| f64::from(*weight) * v).sum();
                    let expected = expected(side, &line, from, to, at);
                    assert!((value - expected).abs() < 1e-3, "{side:?} {from} {to} {at}: {value} {expected}");
                }
            }
        }
    }
}
