//! Scaled images against Pillow's.

use alexnet_split_scale::{floats, means, plane, rgb};

fn picture([width, height]: [usize; 2], channel: usize) -> Vec<u8> {
    let value = |x: usize, y: usize| (x * x * 7 + y * 31 * channel + x * y * 11) as u8;
    (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect()
}

fn close(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
    assert!(near, "{found:?}, expected {expected:?}");
}

// Pillow 13, of `picture` as an image, with w, h its sides and s the shorter one:
//   l, t = (w - s) / 2, (h - s) / 2
//   np.asarray(image.resize((size, size), Image.BILINEAR, box=(l, t, l + s, t + s)))
const SMALLER: [u8; 9] = [66, 112, 135, 151, 122, 101, 124, 133, 127];
const TO_A_THIRD: [u8; 25] = [
    140, 135, 119, 113, 125, 133, 137, 104, 115, 105, 132, 133, 121, 141, 127, 138, 137, 137, 149, 130, 138, 129, 109,
    139, 134,
];
const TO_AN_EIGHTH: [u8; 16] = [121, 123, 131, 126, 132, 127, 126, 122, 127, 134, 139, 135, 133, 134, 122, 134];
const LARGER: [u8; 36] = [
    0, 4, 11, 24, 46, 63, 16, 22, 33, 50, 75, 95, 36, 46, 61, 85, 114, 138, 57, 71, 91, 118, 153, 180, 78, 95, 120,
    153, 192, 223, 93, 113, 142, 178, 221, 255,
];
const CUT: [u8; 25] =
    [4, 18, 46, 88, 144, 40, 65, 104, 157, 96, 77, 113, 163, 99, 49, 113, 160, 221, 168, 129, 150, 208, 152, 110, 82];
const COLOURS: [u8; 27] = [
    66, 93, 89, 112, 138, 146, 135, 162, 127, 151, 134, 118, 122, 120, 120, 101, 156, 148, 124, 114, 124, 133, 141,
    114, 127, 147, 130,
];

#[test]
fn squares_are_pillows() {
    let cases: [([usize; 2], usize, &[u8]); 5] = [
        ([9, 7], 3, &SMALLER),
        ([13, 21], 5, &TO_A_THIRD),
        ([30, 31], 4, &TO_AN_EIGHTH),
        ([4, 4], 6, &LARGER),
        ([6, 5], 5, &CUT),
    ];
    for (sides, size, expected) in cases {
        let picture = picture(sides, 1);
        close(&plane(&picture, sides, size).unwrap(), expected);
        let wide: Vec<f32> = picture.iter().map(|&value| f32::from(value)).collect();
        let floats: Vec<u8> = floats(&wide, sides, size).unwrap().iter().map(|value| value.round() as u8).collect();
        close(&floats, expected);
    }
    let planes = [1, 2, 3].map(|channel| picture([9, 7], channel));
    let colours: Vec<u8> = (0..63).flat_map(|at| planes.each_ref().map(|plane| plane[at])).collect();
    close(&rgb(&colours, [9, 7], 3).unwrap(), &COLOURS);
}

#[test]
fn nothing_cannot_be_scaled() {
    assert!(plane(&[1, 2], [2, 2], 1).is_err_and(|problem| problem.contains("cannot be scaled")));
    assert!(rgb(&[], [0, 0], 4).is_err());
}

#[test]
fn a_smaller_one_has_the_means() {
    let pixels = [[10, 20, 30, 40], [30, 40, 50, 60]].concat();
    assert_eq!(means(&pixels, 1, [4, 2], [2, 1]).unwrap(), [25, 45]);
    let colours: Vec<u8> = pixels.iter().flat_map(|&value| [value, value + 100, 255 - value]).collect();
    assert_eq!(means(&colours, 3, [4, 2], [2, 1]).unwrap(), [25, 125, 230, 45, 145, 210]);
}
