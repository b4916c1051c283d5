//! How a camera was held.

use super::tags::Tags;

/// The tag of how a camera was held: a number of 16 bits, or of 8 or 32, as some programs write it.
const ORIENTATION: u16 = 0x112;

/// How an image must be turned to stand upright, by its EXIF: 1 to 8, where 1 is not at all.
pub fn orientation(exif: Option<&[u8]>) -> u8 {
    // WebP files have what only JPEG should have before it.
    let exif = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    let turn = exif.and_then(Tags::new).and_then(|tags| tags.first(ORIENTATION));
    turn.and_then(|turn| u8::try_from(turn).ok()).filter(|turn| (1..=8).contains(turn)).unwrap_or(1)
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
        // A number of 32 bits, of 8.
        let long =
            |kind: u8, value: [u8; 4]| [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0"[..], &[kind, 0, 0, 0, 1], &value].concat();
        assert_eq!(
            [long(4, [0, 0, 0, 3]), long(9, [0, 0, 0, 5]), long(1, [7, 0, 0, 0])].map(|it| orientation(Some(&it))),
            [3, 5, 7]
        );
        assert_eq!(orientation(Some(&long(4, [0, 1, 0, 3]))), 1);
        // No EXIF, none that says it, one that is cut off, a turn that there is not.
        let mut ninth = little.to_vec();
        ninth[18] = 9;
        for exif in [None, Some(&b"MM\0*\0\0\0\x08\0\0"[..]), Some(&little[..19]), Some(&ninth)] {
            assert_eq!(orientation(exif), 1);
        }
    }
}
