//! Portable pixmaps and greymaps, in their binary forms (P6, P5): prepared sets with `--store raw` are made of them.

use super::{Rgb, check_size, to_rgb};

/// Decodes a file.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let channels = if bytes.starts_with(b"P6") { 3 } else { 1 };
    let mut rest = bytes.get(2..).unwrap_or_default();
    let [width, height, most] = [number(&mut rest), number(&mut rest), number(&mut rest)];
    let (Some(width), Some(height), Some(most @ 1..=65_535)) = (width, height, most) else {
        return Err("damaged PPM: its header is not one".into());
    };
    check_size(width.into(), height.into())?;
    let count = width as usize * height as usize * channels;
    // Behind the header is one space.
    let data = rest.get(1..).unwrap_or_default();
    let to_byte = |value: u32| ((value.min(most) * 255 + most / 2) / most) as u8;
    let samples: Vec<u8> = match most {
        255 => data.iter().take(count).copied().collect(),
        ..255 => data.iter().take(count).map(|&v| to_byte(v.into())).collect(),
        _ => data.as_chunks().0.iter().take(count).map(|&v| to_byte(u16::from_be_bytes(v).into())).collect(),
    };
    if samples.len() < count {
        return Err("truncated PPM: its data ends before the image does".into());
    }
    Ok(Rgb::new([width, height], to_rgb(samples, channels), None))
}

/// Takes a number of the header, and the spaces and comments before it.
fn number(rest: &mut &[u8]) -> Option<u32> {
    while let [first, behind @ ..] = rest {
        match first {
            b'#' => *rest = &behind[behind.iter().position(|&byte| byte == b'\n')?..],
            first if first.is_ascii_whitespace() => *rest = behind,
            _ => break,
        }
    }
    let (digits, behind) = rest.split_at(rest.iter().position(|byte| !byte.is_ascii_digit())?);
    *rest = behind;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixmaps_and_greymaps_are_read() {
        let image = decode(b"P6\n# made by hand\n1 2\n255\n\x01\x02\x03\x04\x05\x06more").expect("a pixmap");
        assert_eq!((image.width, image.height, image.pixels), (1, 2, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(decode(b"P5 2 1 15\n\x0f\x01").expect("a greymap").pixels, [255, 255, 255, 17, 17, 17]);
        assert_eq!(decode(b"P5 1 1 65535\n\x80\x80").expect("16 bits").pixels, [128; 3]);
        for damaged in [&b"P6 1 2 255\n\x01\x02\x03\x04\x05"[..], b"P6 1 2", b"P6 1 x 255\n", b"P5 1 1 0\n\0", b"P5"] {
            assert!(decode(damaged).is_err());
        }
    }
}
