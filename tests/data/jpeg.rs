//! JPEG files as programs, cameras and broken downloads leave them: each gives the right pixels, or an error that says
//! what is wrong with it or what kind of file it is.

use crate::support::jpegs::{JFIF, Jpeg, adobe};
use alexnet_split::data::decode::{Rgb, decode};

const SIZE: [usize; 2] = [75, 61];
const FULL: [usize; 2] = [1, 1];

fn new(first: [usize; 2]) -> Jpeg {
    Jpeg::new(SIZE, [first, FULL, FULL])
}

/// One scan a colour.
fn apart(jpeg: Jpeg) -> Jpeg {
    let scans = (0..jpeg.colours.len()).map(|colour| vec![colour]).collect();
    Jpeg { scans, ..jpeg }
}

fn progressive(jpeg: Jpeg) -> Jpeg {
    Jpeg { progressive: true, ..jpeg }
}

/// Four colours in one scan, as Adobe's programs store them.
fn of_four(sampling: [[usize; 2]; 4], transform: u8) -> Jpeg {
    let colours = (1..).zip(sampling).collect();
    Jpeg { colours, scans: vec![vec![0, 1, 2, 3]], front: adobe(transform), ..new(FULL) }
}

fn from_ycbcr(stored: &[u8]) -> [u8; 3] {
    let [y, cb, cr] = [0, 1, 2].map(|colour| f64::from(stored[colour]));
    let (cb, cr) = (cb - 128., cr - 128.);
    [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb].map(|light| light.round() as u8)
}

fn as_stored(stored: &[u8]) -> [u8; 3] {
    [stored[0], stored[1], stored[2]]
}

fn from_cmyk(stored: &[u8]) -> [u8; 3] {
    as_stored(stored).map(|ink| (f64::from(ink) * f64::from(stored[3]) / 255.).round() as u8)
}

fn from_ycck(stored: &[u8]) -> [u8; 3] {
    let [r, g, b] = from_ycbcr(stored);
    from_cmyk(&[255 - r, 255 - g, 255 - b, stored[3]])
}

#[track_caller]
fn gives(jpeg: &Jpeg, shown: fn(&[u8]) -> [u8; 3]) {
    let Rgb { width, height, pixels, .. } = decode(&jpeg.bytes()).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!([width, height], jpeg.size);
    let mut seen = 0;
    for (at, pixel) in pixels.chunks(3).enumerate() {
        let (x, y) = (at % width, at / width);
        let Some(stored) = jpeg.stored(x, y) else { continue };
        let expected = shown(&stored);
        let near = pixel.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 4);
        assert!(near, "column {x}, row {y}: {pixel:?}, expected {expected:?}");
        seen += 1;
    }
    assert!(seen > width * height / 4, "only {seen} pixels are known");
}

#[track_caller]
fn refused(bytes: &[u8], problem: &str) {
    match decode(bytes) {
        Ok(_) => panic!("read, expected: {problem}"),
        Err(found) => assert!(found.contains(problem), "{found}, expected: {problem}"),
    }
}

/// Samples of the first colour beside the others.
const SAMPLINGS: [[usize; 2]; 8] = [FULL, [2, 1], [1, 2], [2, 2], [4, 1], [1, 4], [4, 2], [3, 1]];

#[test]
fn colours_may_be_sampled_and_sent_in_any_usual_way() {
    for first in SAMPLINGS {
        for restart in [0, 1, 3] {
            for jpeg in [new(first), apart(new(first)), progressive(new(first)), progressive(apart(new(first)))] {
                gives(&Jpeg { restart, ..jpeg }, from_ycbcr);
            }
        }
    }
    for sampling in [[[2, 2], [1, 2], [2, 1]], [[2, 2], [2, 2], [1, 1]], [[2, 2]; 3]] {
        gives(&apart(Jpeg::new(SIZE, sampling)), from_ycbcr);
    }
    let grey = Jpeg { colours: vec![(1, [2, 2])], scans: vec![vec![0]], ..new(FULL) };
    gives(&grey, |stored| [stored[0]; 3]);
    gives(&progressive(grey), |stored| [stored[0]; 3]);
}

/// Files say twice how their colours are stored, and may contradict themselves. As libjpeg, JFIF counts most.
#[test]
fn jfif_tells_colours_before_adobe_and_names() {
    let with = |front: Vec<u8>, names: [u8; 3]| {
        let colours = names.into_iter().zip([[2, 2], FULL, FULL]).collect();
        Jpeg { front, colours, ..new(FULL) }
    };
    let numbers = [1, 2, 3];
    for transform in [0, 1, 2] {
        gives(&with([JFIF.to_vec(), adobe(transform)].concat(), numbers), from_ycbcr);
        gives(&with([adobe(transform), JFIF.to_vec()].concat(), numbers), from_ycbcr);
    }
    gives(&with(adobe(0), numbers), as_stored);
    gives(&with(adobe(1), numbers), from_ycbcr);
    gives(&with(vec![], numbers), from_ycbcr);
    gives(&with(JFIF.to_vec(), *b"RGB"), from_ycbcr);
    gives(&with(adobe(1), *b"RGB"), from_ycbcr);
    gives(&with(vec![], *b"RGB"), as_stored);
}

#[test]
fn four_colours_are_shown_as_printed() {
    let samplings = [
        [FULL; 4],
        [[2, 1], FULL, FULL, FULL],
        [[2, 2], FULL, FULL, FULL],
        [[2, 2], FULL, FULL, [2, 2]],
        [[1, 2], FULL, FULL, [1, 2]],
    ];
    for sampling in samplings {
        for (transform, shown) in [(0, from_cmyk as fn(&[u8]) -> _), (2, from_ycck)] {
            let jpeg = of_four(sampling, transform);
            gives(&jpeg, shown);
            gives(&progressive(jpeg.clone()), shown);
            gives(&apart(jpeg), shown);
        }
    }
}

#[test]
fn what_is_cut_off_is_refused_whatever_is_put_behind_it() {
    let rgb = Jpeg { front: adobe(0), ..new(FULL) };
    let grey = Jpeg { colours: vec![(1, FULL)], scans: vec![vec![0]], ..new(FULL) };
    let four = of_four([[2, 2], FULL, FULL, FULL], 0);
    let kinds = [
        new([2, 2]),
        new([4, 1]),
        apart(new([2, 2])),
        apart(new(FULL)),
        rgb,
        grey,
        four,
        Jpeg { restart: 2, ..new(FULL) },
    ];
    for jpeg in kinds.iter().flat_map(|jpeg| [jpeg.clone(), progressive(jpeg.clone())]) {
        let whole = jpeg.bytes();
        assert!(decode(&whole).is_ok());
        // Fewer bits than the last block takes may be missing without its being seen.
        for length in (2..whole.len() - 4).step_by(3) {
            let part = &whole[..length];
            let zeros = vec![0; whole.len() - length];
            for bytes in [part.to_vec(), [part, &[0xff, 0xd9]].concat(), [part, &zeros].concat()] {
                assert!(decode(&bytes).is_err(), "{length} of {} bytes", whole.len());
            }
        }
        refused(&whole[..whole.len() - 2], "it was cut off");
        // Where a scan ends nothing looks wrong, but for what has not come.
        let starts = (0..whole.len()).filter(|&at| whole[at..].starts_with(&[0xff, 0xda]));
        for start in starts {
            refused(&[&whole[..start], &[0xff, 0xd9]].concat(), "its data ends before the image does");
        }
    }
}

#[test]
fn restart_markers_that_are_lost_or_out_of_order_are_refused() {
    for jpeg in [new(FULL), new([2, 2]), apart(new(FULL)), progressive(new(FULL))] {
        let whole = Jpeg { restart: 3, ..jpeg }.bytes();
        let markers: Vec<usize> =
            (0..whole.len() - 1).filter(|&at| whole[at] == 0xff && (0xd0..0xd8).contains(&whole[at + 1])).collect();
        for pair in markers.windows(2).step_by(4) {
            // The number of the last one of a scan does not follow on that of the first one of the next.
            let [at, next] = *pair else { unreachable!() };
            refused(&[&whole[..at], &whole[at + 2..]].concat(), "JPEG");
            refused(&[&whole[..at], &whole[next..]].concat(), "JPEG");
            let mut wrong = whole.clone();
            wrong[at + 1] ^= 4;
            refused(&wrong, "restart marker is out of order");
        }
    }
}

#[test]
fn kinds_that_are_not_read_are_named() {
    // The decoder cannot do these.
    refused(&Jpeg { scans: vec![vec![0], vec![1, 2]], ..new([1, 2]) }.bytes(), "one of some of the colours");
    refused(&Jpeg { scans: vec![vec![2], vec![0, 1]], ..new(FULL) }.bytes(), "one of some of the colours");
    refused(&Jpeg::new(SIZE, [FULL, [2, 2], [2, 2]]).bytes(), "a colour sampled finer than the first");
    refused(&Jpeg::new(SIZE, [FULL, FULL, [2, 2]]).bytes(), "a colour sampled finer than the first");
    let two = Jpeg { colours: vec![(1, FULL), (2, FULL)], scans: vec![vec![0, 1]], ..new(FULL) };
    refused(&two.bytes(), "2 colours");
    // Or it would not see what they lack.
    let whole = new(FULL).bytes();
    let frame = (0..whole.len()).find(|&at| whole[at..].starts_with(&[0xff, 0xc0])).unwrap();
    for (marker, kind) in
        [(0xc9, "arithmetic coding"), (0xca, "arithmetic coding"), (0xc3, "lossless"), (0xc5, "hierarchical")]
    {
        let mut other = whole.clone();
        other[frame + 1] = marker;
        refused(&other, kind);
    }
    let mut deep = whole.clone();
    (deep[frame + 1], deep[frame + 4]) = (0xc1, 12);
    refused(&deep, "12 bits a sample");
}

#[test]
fn what_does_no_harm_is_passed_over() {
    let jpeg = new([2, 2]);
    let whole = jpeg.bytes();
    let expected = decode(&whole).unwrap().pixels;
    // Behind JFIF's segment, and behind the end.
    let (front, rest) = whole.split_at(2 + JFIF.len());
    for between in [&[0xff; 4][..], &[7; 5], b"\xff\xfe\0\x06note"] {
        let odd = [front, between, rest, b"and a film".as_slice()].concat();
        assert!(decode(&odd).unwrap().pixels == expected, "{between:?}");
    }
    let mut extended = whole.clone();
    let frame = (0..whole.len()).find(|&at| whole[at..].starts_with(&[0xff, 0xc0])).unwrap();
    extended[frame + 1] = 0xc1;
    assert!(decode(&extended).unwrap().pixels == expected);
}
