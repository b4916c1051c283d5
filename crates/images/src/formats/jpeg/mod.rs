//! JPEG: read and written by libjpeg-turbo-rs, which gives the same pixels as libjpeg-turbo.
//!
//! | file | holds |
//! |---|---|
//! | `check` | what is refused by its markers, before it is decoded |
//! | `cmyk` | files of four colours |

mod check;
mod cmyk;

use libjpeg_turbo_rs::{DecodeLimits, DecodeWarning, Decoder, JpegError, PixelFormat, Subsampling, compress};

use super::{MAX_SIDE, check_size};
use crate::decode::Rgb;

/// Scans of a file: usual ones have 1 to 12. Each is a pass over the image, so thousands of tiny ones would take hours.
const MAX_SCANS: usize = 200;

/// Decodes a file.
///
/// Fails where it is damaged or cut off, and where it is of a kind that is not read, which the message names.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    check::check(bytes)?;
    let limits = DecodeLimits {
        max_width: MAX_SIDE as usize,
        max_height: MAX_SIDE as usize,
        // What `check_size` says about larger ones is plainer.
        max_pixels: u64::MAX,
        max_scans: MAX_SCANS,
        max_memory: None,
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(problem)?;
    let (width, height) = (decoder.header().width, decoder.header().height);
    check_size(width.into(), height.into())?;
    let exif = decoder.exif_data().map(<[u8]>::to_vec);
    let (pixels, warnings) = if decoder.header().components.len() == 4 {
        cmyk::decode(decoder).map_err(problem)?
    } else {
        decoder.set_output_format(PixelFormat::Rgb);
        let image = decoder.decode_image().map_err(problem)?;
        (image.data, image.warnings)
    };
    // Junk between headers is met in good photographs and does no harm.
    if let Some(warning) = warnings.iter().find(|it| !matches!(it, DecodeWarning::ExtraneousData { .. })) {
        return Err(format!("damaged JPEG: {warning}"));
    }
    if pixels.len() != usize::from(width) * usize::from(height) * 3 {
        return Err(format!("damaged JPEG: {} bytes for {width}x{height} pixels", pixels.len()));
    }
    Ok(Rgb::new([width.into(), height.into()], pixels, exif.as_deref()))
}

fn problem(error: JpegError) -> String {
    match error {
        JpegError::UnexpectedEof => check::CUT_OFF.into(),
        JpegError::Unsupported(kind) => format!("JPEG of a kind that is not read: {kind}"),
        error => format!("damaged JPEG: {error}"),
    }
}

/// Compresses a square of `size` x `size` pixels, rows of red, green, blue; its colour differences are half as large
/// (4:2:0), as in most photographs.
pub fn encode(square: &[u8], size: usize, quality: u8) -> Result<Vec<u8>, String> {
    let file = compress(square, size, size, PixelFormat::Rgb, quality, Subsampling::S420);
    file.map_err(|error| format!("cannot be written as JPEG: {error}"))
}
