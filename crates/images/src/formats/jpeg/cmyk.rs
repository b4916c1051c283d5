//! JPEG of four colours, as printers have them.
//!
//! The decoder gives each colour as it is stored. Where some are sampled more coarsely than others, what it makes of
//! them itself has edges as coarse, or fails.

use libjpeg_turbo_rs::{ColorSpace, DecodeWarning, Decoder, JpegError};

/// The pixels of a file, rows of red, green, blue, and what the decoder has to say about it.
pub fn decode(decoder: Decoder) -> Result<(Vec<u8>, Vec<DecodeWarning>), JpegError> {
    let size @ [width, height] = [decoder.header().width, decoder.header().height].map(usize::from);
    let components = decoder.header().components.iter();
    let sampling: Vec<_> =
        components.map(|it| [it.horizontal_sampling, it.vertical_sampling].map(usize::from)).collect();
    let most = [0, 1].map(|axis| sampling.iter().map(|samples| samples[axis]).max().unwrap_or(1));
    let of_differences = decoder.jpeg_color_space() == ColorSpace::Ycck;
    let (raw, warnings) = decoder.decode_raw_with_warnings()?;
    let planes = raw.planes.iter().zip(raw.plane_widths).zip(sampling);
    let planes: Vec<Vec<u8>> = planes
        .map(|((plane, stride), sampling)| {
            whole_plane(plane, stride, [0, 1].map(|axis| most[axis] / sampling[axis]), size)
        })
        .collect();
    let mut pixels = Vec::with_capacity(3 * width * height);
    let [c, m, y, k] = &planes[..] else { return Err(JpegError::CorruptData("it has not four colours".into())) };
    for (((&c, &m), &y), &k) in c.iter().zip(m).zip(y).zip(k) {
        let inks = if of_differences { inks(c, m, y) } else { [c, m, y] };
        // Stored inverted, as Adobe's programs write it: 255 is no ink.
        pixels.extend(inks.map(|ink| ((u32::from(ink) * u32::from(k) + 127) / 255) as u8));
    }
    Ok((pixels, warnings))
}

/// A colour of as many samples as the image has pixels, from one that has one for `across` columns and `down` rows.
fn whole_plane(plane: &[u8], stride: usize, [across, down]: [usize; 2], [width, height]: [usize; 2]) -> Vec<u8> {
    // Behind these, rows and columns fill up the last blocks.
    let (columns, rows) = (width.div_ceil(across), height.div_ceil(down));
    let across = Places { times: across, count: columns, smooth: columns > 2 };
    let down = Places { times: down, count: rows, smooth: columns > 2 || across.times == 1 };
    let mut whole = Vec::with_capacity(width * height);
    for row in 0..height {
        let (near, far) = down.of(row);
        let row = |row: usize| (0..width).map(move |column| across.between(&plane[row * stride..], column));
        whole.extend(row(near).zip(row(far)).map(|(near, far)| between(near, far)));
    }
    whole
}

/// Places of samples in a row or a column of `count`, of which `times` as many are made. As libjpeg: only doubling is
/// smooth, and not across one or two columns.
#[derive(Clone, Copy)]
struct Places {
    times: usize,
    count: usize,
    smooth: bool,
}

impl Places {
    /// The two samples that the one at `at` is between, the nearer one first.
    fn of(self, at: usize) -> (usize, usize) {
        let near = at / self.times;
        match self.times {
            2 if !self.smooth => (near, near),
            2 if at.is_multiple_of(2) => (near, near.saturating_sub(1)),
            2 => (near, (near + 1).min(self.count - 1)),
            _ => (near, near),
        }
    }

    fn between(self, samples: &[u8], at: usize) -> u8 {
        let (near, far) = self.of(at);
        between(samples[near], samples[far])
    }
}

fn between(near: u8, far: u8) -> u8 {
    ((3 * u16::from(near) + u16::from(far) + 2) / 4) as u8
}

/// Cyan, magenta and yellow from their brightness and its differences to blue and red (JFIF).
fn inks(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128., f32::from(cr) - 128.];
    let light = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    light.map(|light| 255 - light.round() as u8)
}
