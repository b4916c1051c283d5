//! How values lie on the device for the bf16 kernels, and the conversion to and from what the host sees.
//!
//! Activations and their gradients are bf16, N H W C. Channels are padded with zeros to a multiple of 8, so that every
//! pixel begins at a multiple of 16 bytes. Filters are K R S C, dense weights outputs x (H W C), in fp32; behind them lie
//! their bf16 shadows, which the products read.
//!
//! The image is kept by space to depth: a convolution of stride t reads blocks of t x t pixels as the channels of one
//! place. It becomes an ordinary one of stride 1 over ceil(R / t) x ceil(S / t) places; taps beyond R and S weigh 0.

use crate::backend::{ConvShape, TensorShape};

/// The next multiple of 8.
pub fn pad8(count: usize) -> usize {
    count.next_multiple_of(8)
}

/// Rounds to 8 bits of mantissa, ties to even.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// A convolution as the kernels compute it, with stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the field's standard letters
pub struct Unstrided {
    /// Rows and columns of a block of pixels: the stride.
    pub block: usize,
    /// Channels, padded.
    pub c: usize,
    pub h: usize,
    pub w: usize,
    /// Filters, padded.
    pub k: usize,
    pub r: usize,
    pub s: usize,
    pub pad: usize,
}

impl Unstrided {
    /// The form of `s`.
    pub fn of(s: &ConvShape) -> Unstrided {
        let block = s.stride;
        if block == 1 {
            return Unstrided { block, c: pad8(s.c), h: s.h, w: s.w, k: pad8(s.k), r: s.r, s: s.s, pad: s.pad };
        }
        let (r, s_, c) = (s.r.div_ceil(block), s.s.div_ceil(block), pad8(block * block * s.c));
        Unstrided { block, c, h: s.p + r - 1, w: s.q + s_ - 1, k: pad8(s.k), r, s: s_, pad: 0 }
    }

    /// Values of the filters.
    pub fn filters(&self) -> usize {
        self.k * self.r * self.s * self.c
    }
}

/// Whether values of this shape are bf16.
fn is_bf16(shape: &TensorShape) -> bool {
    matches!(shape, TensorShape::Maps(..) | TensorShape::Pooled(..) | TensorShape::Input(..))
}

/// The values that the device keeps, padding included.
pub fn elems(shape: &TensorShape) -> usize {
    match shape {
        TensorShape::Values(elems) => pad8(*elems),
        TensorShape::Maps(n, [c, h, w]) | TensorShape::Pooled(n, [c, h, w]) => n * h * w * pad8(*c),
        TensorShape::Input(n, s) => {
            let form = Unstrided::of(s);
            n * form.h * form.w * form.c
        }
        TensorShape::Logits(n, classes) => n * pad8(*classes),
        TensorShape::Filters(s) => Unstrided::of(s).filters(),
        TensorShape::Weights(s) => pad8(s.outputs) * s.pixels * pad8(s.inputs / s.pixels),
    }
}

/// The rows of all maps; those of blocks of pixels in an input.
pub fn rows(shape: &TensorShape) -> usize {
    match shape {
        TensorShape::Input(n, s) => n * Unstrided::of(s).h,
        maps => maps.dims()[0] * maps.dims().get(2).unwrap_or(&1),
    }
}

/// The bytes that they take, shadows not included; a multiple of 16.
pub fn bytes(shape: &TensorShape) -> usize {
    elems(shape) * if is_bf16(shape) { 2 } else { 4 }
}

/// The bytes with what lies behind the values. Behind maps from a fused layer these are the places of the maxima, 4 bits
/// each. Behind a parameter its shadows: one in the same order and, for convolutions of stride 1, one for the gradient by
/// the input, C R S K with the taps turned by half a turn.
pub fn bytes_with_rest(shape: &TensorShape) -> usize {
    let halves = match shape {
        TensorShape::Filters(s) if s.stride == 1 => 2,
        TensorShape::Filters(_) | TensorShape::Weights(_) => 1,
        TensorShape::Pooled(..) => return bytes(shape) + bytes(shape) / 4,
        _ => 0,
    };
    bytes(shape) + halves * 2 * elems(shape)
}

/// Calls `visit` with each value's place on the host and on the device; pixels that no tap reads have none there.
fn each_place(shape: &TensorShape, mut visit: impl FnMut(usize, usize)) {
    // [outer, channels, rows, columns] on the host, in this order.
    let [outer, c, h, w] = match *shape {
        TensorShape::Values(elems) => [1, elems, 1, 1],
        TensorShape::Maps(n, [c, h, w]) | TensorShape::Pooled(n, [c, h, w]) => [n, c, h, w],
        TensorShape::Input(n, s) => [n, s.c, s.h, s.w],
        TensorShape::Logits(n, classes) => [n, classes, 1, 1],
        TensorShape::Filters(s) => [s.k, s.c, s.r, s.s],
        TensorShape::Weights(s) => [s.outputs, s.inputs / s.pixels, s.pixels, 1],
    };
    // Blocks of t x t places as channels, after `pad` rows and columns; how many there are, and their channels.
    let (t, pad, [rows, columns], channels) = match *shape {
        TensorShape::Input(_, s) => {
            let form = Unstrided::of(&s);
            (form.block, if form.block == 1 { 0 } else { s.pad }, [form.h, form.w], form.c)
        }
        TensorShape::Filters(s) => {
            let form = Unstrided::of(&s);
            (form.block, 0, [form.r, form.s], form.c)
        }
        _ => (1, 0, [h, w], pad8(c)),
    };
    let mut host = 0;
    for outer in 0..outer {
        for channel in 0..c {
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y + pad, x + pad))) {
                if y / t < rows && x / t < columns {
                    let place = (outer * rows + y / t) * columns + x / t;
                    visit(host, place * channels + (y % t * t + x % t) * c + channel);
                }
                host += 1;
            }
        }
    }
}

/// The words of the device from the host's values.
pub fn to_device(shape: &TensorShape, host: &[f32]) -> Vec<u32> {
    assert_eq!(host.len(), shape.elems(), "values of {shape:?}");
    let mut words = vec![0u32; bytes(shape) / size_of::<u32>()];
    if is_bf16(shape) {
        let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut words);
        each_place(shape, |from, to| halves[to] = to_bf16(host[from]));
    } else {
        each_place(shape, |from, to| words[to] = host[from].to_bits());
    }
    words
}

/// The host's values from the words of the device.
pub fn to_host(shape: &TensorShape, words: &[u32]) -> Vec<f32> {
    let mut host = vec![0.; shape.elems()];
    if is_bf16(shape) {
        let halves: &[u16] = bytemuck::cast_slice(words);
        each_place(shape, |to, from| host[to] = f32::from_bits(u32::from(halves[from]) << 16));
    } else {
        each_place(shape, |to, from| host[to] = f32::from_bits(words[from]));
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::DenseShape;

    fn conv(c: usize, size: usize, kernel: usize, stride: usize, pad: usize) -> ConvShape {
        let p = (size + 2 * pad - kernel) / stride + 1;
        ConvShape { c, h: size, w: size, k: 5, r: kernel, s: kernel, p, q: p, stride, pad, blocks: 1 }
    }

    #[test]
    fn what_is_written_is_read() {
        let shapes = [
            TensorShape::Values(5),
            TensorShape::Maps(2, [3, 4, 5]),
            TensorShape::Maps(1, [16, 3, 2]),
            TensorShape::Input(2, conv(3, 23, 11, 4, 0)),
            TensorShape::Input(1, conv(3, 9, 3, 1, 1)),
            TensorShape::Logits(3, 7),
            TensorShape::Filters(conv(3, 23, 11, 4, 0)),
            TensorShape::Filters(conv(9, 5, 3, 1, 1)),
            TensorShape::Weights(DenseShape { inputs: 3 * 6, outputs: 5, pixels: 6, blocks: 1, logits: false }),
        ];
        for shape in shapes {
            // Whole numbers up to 256 are bf16, too.
            let host: Vec<f32> = (0..shape.elems()).map(|i| (i % 256) as f32 + 1.).collect();
            let device = to_device(&shape, &host);
            assert_eq!(to_host(&shape, &device), host, "{shape:?}");
            assert_eq!(bytes(&shape) % 16, 0, "{shape:?}");
        }
    }

    /// The definition of space to depth, by the paper's first layer: the tap (r, s) of window (p, q) is found at place
    /// (p + r / 4, q + s / 4), channel (r % 4 * 4 + s % 4) * 3 + c, and the filter's weight there.
    #[test]
    fn windows_of_blocks_are_windows_of_pixels() {
        let s = conv(3, 23, 11, 4, 2);
        let form = Unstrided::of(&s);
        assert_eq!((form.block, form.c, form.r, form.h), (4, 48, 3, s.p + 2));
        let pixels: Vec<f32> = (0..3 * 23 * 23).map(|i| (i % 251) as f32).collect();
        let device = to_device(&TensorShape::Input(1, s), &pixels);
        let halves: &[u16] = bytemuck::cast_slice(&device);
        for (p, q, r, tap) in [(0usize, 0usize, 0, 0), (0, 0, 2, 2), (1, 3, 10, 0), (4, 4, 5, 10), (0, 4, 10, 10)] {
            for c in 0..3 {
                let (row, column) = ((p * 4 + r).checked_sub(2), (q * 4 + tap).checked_sub(2));
                let inside = row.zip(column).filter(|&(row, column)| row < 23 && column < 23);
                let expected = inside.map_or(0., |(row, column)| pixels[(c * 23 + row) * 23 + column]);
                let place = ((p + r / 4) * form.w + q + tap / 4) * form.c + (r % 4 * 4 + tap % 4) * 3 + c;
                assert_eq!(f32::from_bits(u32::from(halves[place]) << 16), expected, "{p} {q} {r} {tap} {c}");
            }
        }
    }
}
