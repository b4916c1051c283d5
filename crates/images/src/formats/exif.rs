//! How a camera was held.

/// How an image must be turned to stand upright, by its EXIF: 1 to 8, where 1 is not at all.
pub fn orientation(exif: Option<&[u8]>) -> u8 {
    // WebP files have what only JPEG should have before it.
    let exif = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    exif.and_then(find).filter(|turn| (1..=8).contains(turn)).unwrap_or(1)
}

/// The value of tag 0x112 in the first directory, which has an entry of 12 bytes a tag.
fn find(exif: &[u8]) -> Option<u8> {
    let little = match exif.first_chunk::<4>()? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let word = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let (first, second) = (usize::from(word(at)?), usize::from(word(at + 2)?));
        Some(if little { second << 16 | first } else { first << 16 | second })
    };
    let directory = long(4)?;
    let mut entries = (0..usize::from(word(directory)?)).map(|entry| directory + 2 + 12 * entry);
    let entry = entries.find(|&at| word(at) == Some(0x112))?;
    // One number of 16 bits.
    let expected = word(entry + 2)? == 3 && long(entry + 4)? == 1;
    word(entry + 8).filter(|_| expected)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_is_found_in_both_byte_orders() {
        let big = b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x01\0\0\0\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0";
        assert_eq!((orientation(Some(big)), orientation(Some(little))), (6, 8));
        assert_eq!(orientation(Some(&[b"Exif\0\0", &big[..]].concat())), 6);
        // No EXIF, none that says it, one that is cut off, a turn that there is not.
        let mut ninth = little.to_vec();
        ninth[18] = 9;
        for exif in [None, Some(&b"MM\0*\0\0\0\x08\0\0"[..]), Some(&little[..19]), Some(&ninth)] {
            assert_eq!(orientation(exif), 1);
        }
    }
}
