//! The structs that the bf16 kernels take by value; kernels/bf16/layouts.cuh defines the same.

use cudarc::driver::DeviceRepr;

use super::layout::{self, Unstrided, pad8};
use crate::backend::cuda::kernels::{self, Divisor};
use crate::backend::cuda::sources::ELEMENT_THREADS;
use crate::backend::{self, TensorShape};

/// A convolution of stride 1: n, h, w, c, k, r, s, p, q, pad.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Conv([u32; 10]);

impl Conv {
    /// `n` images of `s`.
    pub fn new(s: &backend::ConvShape, n: usize) -> Conv {
        let form = Unstrided::of(s);
        Conv([n, form.h, form.w, form.c, form.k, form.r, form.s, s.p, s.q, form.pad].map(|size| size as u32))
    }

    /// Of one pixel, which is a dense layer; counts are padded.
    pub fn pixel(n: usize, inputs: usize, outputs: usize) -> Conv {
        Conv([n, 1, 1, inputs, outputs, 1, 1, 1, 1, 0].map(|size| size as u32))
    }

    /// The one that gives the gradient by the input from that by the output: with filters turned by half a turn.
    pub fn turned(self) -> Conv {
        let Conv([n, h, w, c, k, r, s, p, q, pad]) = self;
        Conv([n, p, q, k, c, r, s, h, w, r - 1 - pad])
    }

    /// Rows, columns and depth of the forward product: windows, filters, taps.
    pub fn forward(&self) -> [usize; 3] {
        let Conv([n, _, _, c, k, r, s, p, q, _]) = *self;
        [n * p * q, k, r * s * c].map(|size| size as usize)
    }

    /// All its weights exist.
    pub fn all_there(&self) -> Absent {
        let Conv([_, _, _, c, _, r, s, ..]) = *self;
        Absent([r, s, 1, c, r, s])
    }
}

/// The weights that exist in a convolution over blocks: r, s, block, channels, rows, columns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Absent([u32; 6]);

impl Absent {
    /// Of `s`.
    pub fn new(s: &backend::ConvShape) -> Absent {
        let form = Unstrided::of(s);
        let channels = if form.block == 1 { form.c } else { s.c };
        Absent([s.r, s.s, form.block, channels, form.r, form.s].map(|size| size as u32))
    }

    /// Whether a weight does not exist.
    pub fn is_any(&self) -> bool {
        self.0[2] > 1
    }
}

/// See [`backend::LrnShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lrn {
    /// n, c, padded c, pixels, window.
    sizes: [u32; 5],
    /// k, alpha, beta.
    constants: [f32; 3],
}

impl Lrn {
    /// `n` images of `s`.
    pub fn new(s: &backend::LrnShape, n: usize) -> Lrn {
        let sizes = [n, s.c, pad8(s.c), s.pixels, s.n].map(|size| size as u32);
        Lrn { sizes, constants: [s.k, s.alpha, s.beta] }
    }
}

/// See [`backend::SpatialLrnShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SpatialLrn {
    norm: Lrn,
    /// h, w.
    sizes: [u32; 2],
}

impl SpatialLrn {
    /// `n` images of `s`.
    pub fn new(s: &backend::SpatialLrnShape, n: usize) -> SpatialLrn {
        SpatialLrn { norm: Lrn::new(&s.norm, n), sizes: [s.h, s.w].map(|size| size as u32) }
    }
}

/// See [`backend::PoolShape`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// n, c (padded), h, w, window, stride, p, q, all_ties.
    sizes: [u32; 9],
    /// Division by the vectors of a pixel, by w and by h.
    by: [Divisor; 3],
}

impl Pool {
    /// `n` images of `s`.
    pub fn new(s: &backend::PoolShape, n: usize) -> Pool {
        let kernels::PoolShape(mut sizes) = kernels::PoolShape::new(s, n);
        sizes[1] = pad8(s.c) as u32;
        Pool { sizes, by: [pad8(s.c) / 8, s.w, s.h].map(Divisor::new) }
    }
}

/// Values of a row that a block of `augment` has room for; see kernels/bf16/augment.cu.
pub const AUGMENT_ROOM: usize = 4096;
/// Rows that it makes.
const AUGMENT_ROWS: usize = 4;

/// See [`backend::AugmentShape`], and the blocks of the input: block, pad, rows, columns, padded channels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Augment {
    image: kernels::AugmentShape,
    blocks: [u32; 5],
}

impl Augment {
    /// The network's input of the shape `input`.
    pub fn new(image: kernels::AugmentShape, input: &TensorShape) -> Augment {
        let blocks = match *input {
            TensorShape::Input(_, s) => {
                let form = Unstrided::of(&s);
                [form.block, if form.block == 1 { 0 } else { s.pad }, form.h, form.w, form.c]
            }
            ref maps => {
                let dims = maps.dims();
                [1, 0, dims[2], dims[3], pad8(dims[1])]
            }
        };
        Augment { image, blocks: blocks.map(|size| size as u32) }
    }

    /// CUDA's blocks: each makes as much of a row as it has room and threads for.
    pub fn blocks(&self) -> [usize; 3] {
        let [block, _, rows, columns, padded] = self.blocks.map(|size| size as usize);
        let most = (AUGMENT_ROOM / (padded + 4)).min(ELEMENT_THREADS as usize / block);
        [columns.div_ceil(most), rows.div_ceil(AUGMENT_ROWS), self.image.sizes[0] as usize]
    }
}

/// See [`backend::DropoutShape`], the pixels of a map, and the padded channels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    units: kernels::DropoutShape,
    pixels: u32,
    padded: u32,
}

impl Dropout {
    /// A draw for `n` images of `s`.
    pub fn new(s: &backend::DropoutShape, n: usize, draw: &backend::DropoutDraw) -> Dropout {
        let units = kernels::DropoutShape::new(s, n, draw);
        Dropout { units, pixels: s.pixels as u32, padded: pad8(s.elems / s.pixels) as u32 }
    }
}

/// Inputs of a dense layer, padded.
pub fn dense_inputs(s: &backend::DenseShape) -> usize {
    layout::elems(&TensorShape::Maps(1, [s.inputs / s.pixels, s.pixels, 1]))
}

// SAFETY: plain numbers in C layout, as kernels/bf16/layouts.cuh declares them.
unsafe impl DeviceRepr for Conv {}
// SAFETY: as above.
unsafe impl DeviceRepr for Absent {}
// SAFETY: as above.
unsafe impl DeviceRepr for Lrn {}
// SAFETY: as above.
unsafe impl DeviceRepr for SpatialLrn {}
// SAFETY: as above.
unsafe impl DeviceRepr for Pool {}
// SAFETY: as above.
unsafe impl DeviceRepr for Augment {}
// SAFETY: as above.
unsafe impl DeviceRepr for Dropout {}
