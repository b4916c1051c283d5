//! The first picture of a GIF.

use std::num::NonZeroU64;

use ::gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::{MAX_PIXELS, Rgb, check_size};

/// Decodes a file. As in Pillow, where the first picture does not cover the canvas the transparent colour is seen, or
/// the palette's first; and the canvas grows to hold the picture.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let problem = |error: DecodingError| format!("damaged GIF: {error}");
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(most) = NonZeroU64::new(MAX_PIXELS) {
        options.set_memory_limit(MemoryLimit::Bytes(most));
    }
    let mut decoder = options.read_info(bytes).map_err(problem)?;
    let frame = decoder.next_frame_info().map_err(problem)?.ok_or("damaged GIF: it has no picture")?;
    let [left, top] = [frame.left, frame.top].map(usize::from);
    let [across, down] = [frame.width, frame.height].map(usize::from);
    let background = frame.transparent.unwrap_or(0);
    let width = usize::from(decoder.width()).max(left + across);
    let height = usize::from(decoder.height()).max(top + down);
    check_size(width as u64, height as u64)?;
    let mut picture = vec![0; across * down];
    decoder.read_into_buffer(&mut picture).map_err(problem)?;
    let palette = decoder.palette().map_err(problem)?.as_chunks::<3>().0;
    // Beyond the palette's end is grey.
    let mut colours: [[u8; 3]; 256] = std::array::from_fn(|index| [index as u8; 3]);
    colours.iter_mut().zip(palette).for_each(|(to, colour)| *to = *colour);
    let mut pixels = vec![colours[usize::from(background)]; width * height];
    if across > 0 {
        for (row, line) in picture.chunks_exact(across).enumerate() {
            let to = &mut pixels[(top + row) * width + left..][..across];
            to.iter_mut().zip(line).for_each(|(to, index)| *to = colours[usize::from(*index)]);
        }
    }
    Ok(Rgb::new([width as u32, height as u32], pixels.into_flattened(), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::gif::{Encoder, Frame};

    /// A picture of 2x2 at (1, 2) of a canvas of 4x3, in the colours of a palette of its own.
    fn file(transparent: Option<u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 4, 3, &[9, 9, 9]).expect("a GIF");
        let palette = Some(vec![10, 20, 30, 40, 50, 60, 70, 80, 90]);
        let buffer = vec![1, 2, 2, 1].into();
        let frame = Frame { left: 1, top: 2, width: 2, height: 2, transparent, palette, buffer, ..Frame::default() };
        encoder.write_frame(&frame).expect("a picture");
        drop(encoder);
        bytes
    }

    #[test]
    fn a_small_picture_lies_on_its_background_and_the_canvas_grows() {
        let [none, first, second] = [[10, 20, 30], [40, 50, 60], [70, 80, 90]];
        let image = decode(&file(None)).expect("an image");
        assert_eq!((image.width, image.height), (4, 4));
        let rows = [[none; 4], [none; 4], [none, first, second, none], [none, second, first, none]];
        assert_eq!(image.pixels, rows.as_flattened().as_flattened());
        // What is transparent has a colour all the same.
        let image = decode(&file(Some(2))).expect("an image");
        assert_eq!((&image.pixels[..3], &image.pixels[27..30]), (&second[..], &first[..]));
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = file(None);
        assert!((0..whole.len() - 3).all(|length| decode(&whole[..length]).is_err()));
    }
}
