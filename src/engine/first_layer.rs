//! The first layer's kernels: figure 3 of the paper as a picture, and how much the two streams differ in colour, which
//! section 6.1 describes.

use std::path::Path;

use crate::backend::Backend;
use crate::data::bitmap::Bitmap;
use crate::disk::write_whole;
use crate::engine::pair::Pair;
use crate::engine::stream::Tensor;
use crate::error::{Error, Result};
use crate::net::plan::Plan;

/// Kernels per row of the picture, as the 2012 code drew them (`shownet.py`).
const ROW: usize = 16;

/// Black lines around a kernel, in pixels before scaling.
const BORDER: usize = 1;

/// Black lines between two streams, [`BORDER`] included.
const GAP: usize = 3;

/// The first layer's kernels of all streams.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstLayerFilters {
    layer: String,
    /// Channels, rows, columns of one.
    shape: [usize; 3],
    /// K C R S values per stream.
    streams: Vec<Vec<f32>>,
}

/// The first layer's kernels in a plan: the parameter's index, and channels, rows and columns of a kernel.
///
/// Fails where the first layer is not a convolution.
pub fn locate(plan: &Plan) -> Result<(usize, [usize; 3])> {
    let params = plan.layers.first().and_then(|layer| layer.params);
    let found = params.and_then(|params| match plan.params[params.own].shape[..] {
        [_, c, r, s] => Some((params.own, [c, r, s])),
        _ => None,
    });
    let layer = plan.layers.first().map_or("1", |layer| &*layer.name);
    found.ok_or_else(|| Error::net(layer, "is not a convolution, so it has no filters to draw"))
}

impl FirstLayerFilters {
    /// K x C x R x S values of `layer` for each stream, where `shape` is C, R, S.
    ///
    /// Fails where a stream has no whole number of kernels.
    pub fn new(layer: &str, shape: [usize; 3], streams: Vec<Vec<f32>>) -> Result<FirstLayerFilters> {
        let elems: usize = shape.iter().product();
        if elems == 0 || streams.is_empty() {
            return Err(Error::net(layer, format!("{} streams of kernels of {shape:?} are empty", streams.len())));
        }
        if let Some(stream) = streams.iter().position(|values| values.len() % elems != 0) {
            let found = streams[stream].len();
            return Err(Error::net(layer, format!("stream {stream}: {found} values are not kernels of {shape:?}")));
        }
        Ok(FirstLayerFilters { layer: layer.into(), shape, streams })
    }

    /// Those of a network as it is now, on the process that leads; the other one gets nothing. Both must call it.
    pub fn of_pair<B: Backend>(pair: &mut Pair<B>) -> Result<Option<FirstLayerFilters>> {
        let (index, shape) = locate(&pair.plans()[0])?;
        let layer = pair.plans()[0].layers[0].name.clone();
        let streams = 0..pair.plans().len();
        let streams = streams.map(|stream| pair.read_param(stream, index, Tensor::Value)).collect::<Result<_>>()?;
        if !pair.leads() {
            return Ok(None);
        }
        FirstLayerFilters::new(&layer, shape, streams).map(Some)
    }

    /// The layer's name.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Channels, rows and columns of a kernel.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Kernels of each stream.
    pub fn counts(&self) -> Vec<usize> {
        self.streams.iter().map(|values| values.len() / self.elems()).collect()
    }

    fn elems(&self) -> usize {
        self.shape.iter().product()
    }

    /// The picture of the 2012 code: 16 kernels per row with black borders of one pixel, all brought to 0..255 by one
    /// minimum and maximum over both streams, so that they can be compared; stream 0's rows, a wider gap, stream 1's.
    /// Three channels are red, green and blue, one is grey. Every pixel is drawn `scale` times as wide and high.
    ///
    /// Values that are not finite are black; where all are equal they are grey.
    ///
    /// Fails for other numbers of channels, and where the picture would have more than 2^28 pixels.
    pub fn picture(&self, scale: u32) -> Result<Bitmap> {
        let [channels, rows, cols] = self.shape;
        if ![1, 3].contains(&channels) {
            let problem = format!("kernels of {channels} channels have no colours; 1 (grey) or 3 can be drawn");
            return Err(Error::net(&self.layer, problem));
        }
        let lines: Vec<usize> = self.counts().iter().map(|count| count.div_ceil(ROW)).collect();
        let across = self.counts().into_iter().max().unwrap_or(0).min(ROW);
        let width = across * (cols + BORDER) + BORDER;
        let height = lines.iter().sum::<usize>() * (rows + BORDER) + (lines.len() - 1) * (GAP - BORDER) + BORDER;
        let scale = scale.max(1) as usize;
        if width.saturating_mul(height).saturating_mul(scale).saturating_mul(scale) > 1 << 28 {
            let problem = format!("a picture of {width} x {height} pixels, {scale} times as large, is too large");
            return Err(Error::net(&self.layer, problem));
        }
        let finite = || self.streams.iter().flatten().filter(|v| v.is_finite()).map(|&v| f64::from(v));
        let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)));
        let shade = |v: f32| match f64::from(v) {
            v if !v.is_finite() => 0,
            _ if min == max => 128,
            v => (255. * (v - min) / (max - min)).round() as u8,
        };
        let mut picture = Bitmap::black([width, height].map(|side| (side * scale) as u32), channels);
        let mut top = BORDER;
        for (values, lines) in self.streams.iter().zip(&lines) {
            for (at, kernel) in values.chunks(self.elems()).enumerate() {
                let (x0, y0) = (BORDER + at % ROW * (cols + BORDER), top + at / ROW * (rows + BORDER));
                for tap in 0..rows * cols {
                    let colour = |c| shade(kernel[c * rows * cols + tap]);
                    let (x, y) = ((x0 + tap % cols) * scale, (y0 + tap / cols) * scale);
                    for pixel in 0..scale * scale {
                        picture.put(x + pixel % scale, y + pixel / scale, colour);
                    }
                }
            }
            top += lines * (rows + BORDER) + GAP - BORDER;
        }
        Ok(picture)
    }

    /// The colourfulness of each kernel; `None` for one channel, which has no colours.
    pub fn colours(&self) -> Option<Colourfulness> {
        let [channels, rows, cols] = self.shape;
        let of = |kernel: &[f32]| colourfulness(kernel, channels, rows * cols);
        let of_all = |values: &Vec<f32>| values.chunks(self.elems()).map(of).collect();
        (channels > 1).then(|| Colourfulness { streams: self.streams.iter().map(of_all).collect() })
    }
}

/// The colourfulness of a kernel: the share of its energy outside the grey axis,
///
/// 1 - C sum_rs(m^2) / sum_crs(w^2), where m is the mean over the C channels at each tap.
///
/// 0 where all channels are the same, 1 where they cancel at every tap; 0 for a kernel of zeros. Of three independent
/// axes one is grey, so a kernel of independent Gaussian weights has 2/3 on average: a network begins there.
pub fn colourfulness(kernel: &[f32], channels: usize, taps: usize) -> f64 {
    let (mut outside, mut all) = (0., 0.);
    for tap in 0..taps {
        let colour = || (0..channels).map(|c| f64::from(kernel[c * taps + tap]));
        let mean = colour().sum::<f64>() / channels as f64;
        // The same as sum(w^2) - C m^2 without its cancellation: a grey kernel gives 0 and not about 0.
        outside += colour().map(|w| (w - mean).powi(2)).sum::<f64>();
        all += colour().map(|w| w * w).sum::<f64>();
    }
    if all == 0. { 0. } else { outside / all }
}

/// The [`colourfulness`] of all kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Colourfulness {
    /// One value per kernel, by stream.
    pub streams: Vec<Vec<f64>>,
}

impl Colourfulness {
    /// Each stream's mean; NaN for a stream that has no kernels.
    pub fn means(&self) -> Vec<f64> {
        self.streams.iter().map(|values| values.iter().sum::<f64>() / values.len() as f64).collect()
    }

    /// Each stream's lower quartile, median and upper quartile, between neighbours by linear interpolation.
    pub fn quartiles(&self) -> Vec<[f64; 3]> {
        let of = |values: &Vec<f64>| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            [0.25, 0.5, 0.75].map(|share| {
                let place = share * sorted.len().saturating_sub(1) as f64;
                let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
                let (below, above) = (at(place as usize), at(place.ceil() as usize));
                below + (above - below) * place.fract()
            })
        };
        self.streams.iter().map(of).collect()
    }

    /// Kernels of each stream with more of their energy outside the grey axis than along it.
    pub fn above_half(&self) -> Vec<usize> {
        self.streams.iter().map(|values| values.iter().filter(|&&v| v > 0.5).count()).collect()
    }

    /// Kernels of each stream by tenths, from 0 to 1.
    pub fn tenths(&self) -> Vec<[usize; 10]> {
        let of = |values: &Vec<f64>| {
            let mut counts = [0; 10];
            values.iter().for_each(|v| counts[((v * 10.) as usize).min(9)] += 1);
            counts
        };
        self.streams.iter().map(of).collect()
    }

    /// The degree of specialization of the streams: the mean of stream 1 minus that of stream 0, -1 to 1; `None` for
    /// one stream. By 6.1 one stream becomes colour-agnostic and the other colour-specific whatever the initialization,
    /// and which is which differs from run to run: so does the sign.
    pub fn gap(&self) -> Option<f64> {
        match self.means()[..] {
            [first, second] => Some(second - first),
            _ => None,
        }
    }
}

/// Writes a picture as PNG, so that it is there whole or not at all.
pub fn write_png(picture: &Bitmap, path: &Path) -> Result<()> {
    let bytes = picture.png().map_err(Error::io("write", path))?;
    write_whole(path, &bytes)
}
