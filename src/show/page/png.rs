//! PNG files in a page.

/// A PNG file as a `data:` address.
pub fn address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// Width and height of a PNG file, in pixels; `None` where it is none.
pub fn size(png: &[u8]) -> Option<[u32; 2]> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..16)?;
    let (sizes, _) = header.as_chunks::<4>();
    Some([u32::from_be_bytes(sizes[0]), u32::from_be_bytes(sizes[1])]).filter(|[w, h]| *w > 0 && *h > 0)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place <= group.len() { letter } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(size(b"GIF89a"), None);
    }
}
