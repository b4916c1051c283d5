//! Red, green and blue to luminance and colour differences, and back (JFIF 1.02).

use pulp::{Simd, WithSimd};

use super::{Square, clamped};
use alexnet_split_cpu::simd::dispatch;

impl Square {
    /// Of rows of red, green, blue: `size` x `size` x 3. A colour difference is that of the mean of its pixels.
    pub fn from_rgb(pixels: &[u8], size: usize) -> Square {
        let half = size.div_ceil(2);
        let mut square = Square { size, y: vec![0; size * size], cb: vec![0; half * half], cr: vec![0; half * half] };
        dispatch(FromRgb { pixels, square: &mut square });
        square
    }

    /// Rows of red, green, blue: size x size x 3. Colour differences of pixels are made as libjpeg does: three quarters
    /// of the nearer, and a quarter of the next.
    pub fn rgb(&self) -> Vec<u8> {
        let mut pixels = vec![0; self.size * self.size * 3];
        dispatch(ToRgb { square: self, pixels: &mut pixels });
        pixels
    }
}

struct FromRgb<'a> {
    pixels: &'a [u8],
    square: &'a mut Square,
}

impl WithSimd for FromRgb<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let FromRgb { pixels, square: Square { size, y, cb, cr } } = self;
        let half = size.div_ceil(2);
        // Two rows of each colour; where there is no second row or last column, the one before counts twice.
        let mut colours = [(); 3].map(|()| [vec![0f32; 2 * half], vec![0f32; 2 * half]]);
        for (pair, (cb, cr)) in cb.chunks_exact_mut(half).zip(cr.chunks_exact_mut(half)).enumerate() {
            for below in 0..2 {
                let row = (2 * pair + below).min(*size - 1);
                let line = pixels[row * 3 * *size..][..3 * *size].as_chunks::<3>().0;
                for (colour, rows) in colours.iter_mut().enumerate() {
                    let to = &mut rows[below];
                    for (to, pixel) in to.iter_mut().zip(line) {
                        *to = f32::from(pixel[colour]);
                    }
                    to[2 * half - 1] = to[*size - 1];
                }
                let [red, green, blue] = colours.each_ref().map(|rows| &rows[below]);
                let to = &mut y[row * *size..][..*size];
                for (((to, r), g), b) in to.iter_mut().zip(red).zip(green).zip(blue) {
                    *to = clamped(0.299 * r + 0.587 * g + 0.114 * b);
                }
            }
            for x in 0..half {
                let mut mean = [0f32; 3];
                for (mean, [above, below]) in mean.iter_mut().zip(&colours) {
                    *mean = 0.25 * (above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1]);
                }
                let [r, g, b] = mean;
                cb[x] = clamped(128. - 0.168_735_9 * r - 0.331_264_1 * g + 0.5 * b);
                cr[x] = clamped(128. + 0.5 * r - 0.418_687_6 * g - 0.081_312_4 * b);
            }
        }
    }
}

struct ToRgb<'a> {
    square: &'a Square,
    pixels: &'a mut [u8],
}

impl WithSimd for ToRgb<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let ToRgb { square: Square { size, y, cb, cr }, pixels } = self;
        let half = size.div_ceil(2);
        // A row of each colour difference, with the first and last once more at the ends; the same for pixels.
        let mut narrow = vec![0f32; half + 2];
        let mut differences = [vec![0f32; 2 * half], vec![0f32; 2 * half]];
        let mut colours = [(); 3].map(|()| vec![0u8; *size]);
        for (row, (y, pixels)) in y.chunks_exact(*size).zip(pixels.chunks_exact_mut(3 * *size)).enumerate() {
            let near = row / 2;
            let far = if row % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(half - 1) };
            for (plane, to) in [cb, cr].into_iter().zip(&mut differences) {
                let [near, far] = [near, far].map(|row| &plane[row * half..][..half]);
                for ((to, near), far) in narrow[1..=half].iter_mut().zip(near).zip(far) {
                    *to = 0.75 * f32::from(*near) + 0.25 * f32::from(*far) - 128.;
                }
                (narrow[0], narrow[half + 1]) = (narrow[1], narrow[half]);
                let sides = narrow.iter().zip(&narrow[1..]).zip(&narrow[2..]);
                for (pair, ((left, here), right)) in to.as_chunks_mut::<2>().0.iter_mut().zip(sides) {
                    *pair = [0.75 * here + 0.25 * left, 0.75 * here + 0.25 * right];
                }
            }
            let [red, green, blue] = &mut colours;
            let [cb, cr] = differences.each_ref().map(|row| &row[..*size]);
            for x in 0..*size {
                let y = f32::from(y[x]);
                red[x] = clamped(y + 1.402 * cr[x]);
                green[x] = clamped(y - 0.344_136_3 * cb[x] - 0.714_136_3 * cr[x]);
                blue[x] = clamped(y + 1.772 * cb[x]);
            }
            let pixels = pixels.as_chunks_mut::<3>().0.iter_mut();
            for (((pixel, r), g), b) in pixels.zip(&*red).zip(&*green).zip(&*blue) {
                *pixel = [*r, *g, *b];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_come_back() {
        for (pixel, y) in [
            ([0, 0, 0], 0),
            ([255, 255, 255], 255),
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([12, 200, 77], 130),
        ] {
            for size in [1, 2, 5, 32] {
                let pixels = pixel.repeat(size * size);
                let square = Square::from_rgb(&pixels, size);
                assert!(square.y.iter().all(|&v| v == y), "{pixel:?}: {}", square.y[0]);
                let back = square.rgb();
                assert_eq!(back.len(), pixels.len());
                assert!(back.iter().zip(&pixels).all(|(a, b)| a.abs_diff(*b) <= 2), "{pixel:?} {:?}", &back[..3]);
            }
        }
    }

    #[test]
    fn differences_are_halfway_between_pixels() {
        // Left half blue, right half black: the column at the edge is three quarters of its own.
        let square = Square { size: 8, y: vec![100; 64], cb: [168, 168, 128, 128].repeat(4), cr: vec![128; 16] };
        let blue: Vec<u8> = square.rgb()[..24].as_chunks::<3>().0.iter().map(|pixel| pixel[2]).collect();
        assert_eq!(blue, [171, 171, 171, 153, 118, 100, 100, 100]);
    }
}
