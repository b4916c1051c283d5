//! WebP: lossy, lossless, and the first picture of an animation.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::{MAX_BYTES, Rgb, check_size, to_rgb};

/// Decodes a file.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let problem = |error: DecodingError| format!("damaged WebP: {error}");
    // The decoder fills up what is missing. The last byte may be one that only makes the number of them even.
    let size = bytes.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_le_bytes(*size));
    if bytes.len() as u64 + 1 < 8 + u64::from(size) {
        return Err("truncated WebP: its data ends before the image does".into());
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(problem)?;
    decoder.set_memory_limit(MAX_BYTES);
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let mut samples = vec![0; decoder.output_buffer_size().ok_or("damaged WebP: it has no size")?];
    decoder.read_image(&mut samples).map_err(problem)?;
    let exif = decoder.exif_metadata().ok().flatten();
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    Ok(Rgb::new([width, height], to_rgb(samples, channels), exif.as_deref()))
}
