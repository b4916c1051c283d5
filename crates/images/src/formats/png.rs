//! PNG of all kinds; of an animated one the picture that other readers see. And what draws pictures writes them here.

use std::io::{self, Cursor};

use ::png::{ColorType, Compression, Decoder, DecodingError, Encoder, Limits, Transformations};

use super::{MAX_BYTES, Rgb, check_size, to_rgb};

/// Decodes a file.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let problem = |error: DecodingError| format!("damaged PNG: {error}");
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_BYTES });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Palettes and fewer than 8 bits to 8; of 16 the upper ones.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(problem)?;
    check_size(header.width.into(), header.height.into())?;
    let mut reader = decoder.read_info().map_err(problem)?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or("damaged PNG: it has no size")?];
    let frame = reader.next_frame(&mut samples).map_err(problem)?;
    // EXIF may stand behind the pixels; that there is nothing more does no harm.
    let _ = reader.finish();
    let exif = reader.info().exif_metadata.as_deref();
    let pixels = to_rgb(samples, frame.color_type.samples());
    Ok(Rgb::new([frame.width, frame.height], pixels, exif))
}

/// Writes rows of grey (1 channel) or of red, green and blue (3).
pub fn encode(samples: &[u8], [width, height]: [u32; 2], channels: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(if channels == 1 { ColorType::Grayscale } else { ColorType::Rgb });
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(samples)?;
    writer.finish()?;
    Ok(bytes)
}
