//! Single images: what is read, how, and what is refused.

use alexnet_split::data::prepare::Options;
use image::{DynamicImage, ImageFormat};
use tempfile::TempDir;

use crate::support::forms::*;
use crate::support::prepared::{options, prepared, refused};

#[test]
fn bad_images_are_named_and_skipped_on_request() {
    let good = jpeg(&picture(1));
    let mut bomb = encoded(&picture(1).into(), ImageFormat::Bmp);
    bomb[18..26].copy_from_slice(&[60_000u32.to_le_bytes(), 60_000u32.to_le_bytes()].concat());
    let png = encoded(&picture(1).into(), ImageFormat::Png);
    let mut flipped = png.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty.jpg", vec![], "empty"),
        ("text.jpg", b"this is no image".to_vec(), "not an image of a known format"),
        (
            "pointer.jpg",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n".to_vec(),
            "is a Git LFS pointer",
        ),
        ("page.jpg", b"<!DOCTYPE html><html><body>404 not found".to_vec(), "is an HTML page"),
        ("avif.jpg", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf".to_vec(), "is an AVIF image"),
        ("heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec(), "is an HEIC image"),
        ("icon.jpg", b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0".to_vec(), "is an icon"),
        ("truncated.jpg", good[..good.len() * 2 / 3].to_vec(), "damaged JPEG"),
        ("ended.jpg", [&good[..good.len() * 2 / 3], &[0xff, 0xd9]].concat(), "truncated JPEG"),
        ("header.jpg", good[..30].to_vec(), "damaged JPEG"),
        ("truncated.png", png[..png.len() / 2].to_vec(), "damaged PNG"),
        ("flipped.png", flipped, "damaged PNG"),
        ("bomb.bmp", bomb, "60000x60000 pixels; at most"),
    ];
    for (name, bytes, problem) in &cases {
        let folder = TempDir::new().unwrap();
        as_folders(folder.path());
        write(folder.path().join("train/n01000002").join(name), bytes);
        refused(folder.path(), &[name, problem, "--bad-images skip"]);
        let skip = Options { max_bad_images: 1, ..options() };
        let (data, description) = prepared(folder.path(), &skip).unwrap();
        assert_eq!(data.train.len(), 9, "{name}");
        let [bad] = &description.bad_images[..] else { panic!("{:?}", description.bad_images) };
        assert!(bad.name.ends_with(name) && bad.problem.contains(problem), "{bad:?}");
        write(folder.path().join("train/n01000002/another.jpg"), b"bad too");
        let Err(error) = prepared(folder.path(), &skip) else { panic!("two bad images passed where one may") };
        assert!(error.to_string().contains("1 image was skipped before"), "{error}");
    }
}

/// The square of the first image of a set all of whose files have these bytes.
fn square_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    for class in ["train/a", "train/b", "val/a", "val/b"] {
        write(folder.path().join(class).join(name), bytes);
    }
    let (data, _) = prepared(folder.path(), &options()).unwrap();
    data.train.image(0).unwrap().into_owned()
}

/// The mean difference of two squares.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn odd_images_are_read_by_one_policy() {
    let colours = DynamicImage::from(picture(2));
    let png = encoded(&colours, ImageFormat::Png);
    let expected = square_of("a.png", &png);
    // The format is told by the bytes: ImageNet has a PNG called JPEG.
    assert_eq!(square_of("a.JPEG", &png), expected);
    for format in [ImageFormat::Bmp, ImageFormat::WebP] {
        assert_eq!(square_of("a.png", &encoded(&colours, format)), expected, "{format:?}");
    }
    let mut tiff = std::io::Cursor::new(Vec::new());
    let (width, height) = (colours.width(), colours.height());
    let encoder = tiff::encoder::TiffEncoder::new(&mut tiff).unwrap();
    { encoder }.write_image::<tiff::encoder::colortype::RGB8>(width, height, &colours.to_rgb8()).unwrap();
    // By its own ending and by others'.
    for name in ["a.tif", "a.TIFF", "a.jfif"] {
        assert_eq!(square_of(name, tiff.get_ref()), expected);
    }
    // An animation's first picture; GIF has 256 colours.
    let mut gif = Vec::new();
    let frames = [picture(2), picture(3)].map(|frame| image::Frame::new(DynamicImage::from(frame).to_rgba8()));
    image::codecs::gif::GifEncoder::new(&mut gif).encode_frames(frames).unwrap();
    assert!(difference(&square_of("a.gif", &gif), &expected) < 8.);
    // Transparency is dropped, whatever it hides.
    let mut transparent = colours.to_rgba8();
    transparent.pixels_mut().for_each(|pixel| pixel.0[3] = 7);
    assert_eq!(square_of("a.png", &encoded(&transparent.into(), ImageFormat::Png)), expected);
    // 16 bits lose the lower ones.
    let mut deep = colours.to_rgb16();
    deep.pixels_mut().for_each(|pixel| pixel.0.iter_mut().for_each(|v| *v = *v & 0xff00 | 0xff));
    let deep = DynamicImage::from(deep);
    for deep in [deep.clone(), deep.to_rgba16().into()] {
        assert_eq!(square_of("a.png", &encoded(&deep, ImageFormat::Png)), expected);
    }
    // Grey has three equal channels.
    let grey = square_of("a.png", &encoded(&colours.to_luma8().into(), ImageFormat::Png));
    assert!(grey[..576] == grey[576..1152] && grey[..576] == grey[1152..]);
    let mut grey_jpeg = Vec::new();
    let (width, height) = (colours.width() as u16, colours.height() as u16);
    let encode = |bytes: &mut Vec<u8>, data: &[u8], kind| {
        jpeg_encoder::Encoder::new(bytes, 100).encode(data, width, height, kind).unwrap()
    };
    encode(&mut grey_jpeg, &colours.to_luma8(), jpeg_encoder::ColorType::Luma);
    assert!(difference(&square_of("a.jpg", &grey_jpeg), &grey) < 1.);
    // Junk between the headers of a JPEG does no harm, but no end does.
    let whole = jpeg(&colours.to_rgb8());
    let junk = [&whole[..20], &[7; 5], &whole[20..]].concat();
    assert_eq!(square_of("a.jpg", &junk), square_of("a.jpg", &whole));
    assert!(alexnet_split::data::decode::decode(&junk[..junk.len() / 2]).is_err());
    // CMYK, as Adobe's programs write it.
    let cmyk: Vec<u8> =
        colours.to_rgb8().pixels().flat_map(|p| [255 - p.0[0], 255 - p.0[1], 255 - p.0[2], 0]).collect();
    let mut cmyk_jpeg = Vec::new();
    encode(&mut cmyk_jpeg, &cmyk, jpeg_encoder::ColorType::Cmyk);
    assert!(difference(&square_of("a.jpg", &cmyk_jpeg), &expected) < 4.);
}

#[test]
fn photographs_are_turned_upright() {
    let upright = DynamicImage::from(picture(2));
    // How a camera stores it, and the number that says so.
    let stored = [
        (1, upright.clone()),
        (2, upright.fliph()),
        (3, upright.rotate180()),
        (4, upright.flipv()),
        (5, upright.rotate90().fliph()),
        (6, upright.rotate270()),
        (7, upright.rotate270().fliph()),
        (8, upright.rotate90()),
    ];
    let expected = square_of("a.jpg", &jpeg(&upright.to_rgb8()));
    let exact = square_of("a.png", &encoded(&upright, ImageFormat::Png));
    for (orientation, image) in stored {
        let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let (mut bytes, image) = (Vec::new(), image.to_rgb8());
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
        encoder.add_exif_metadata(&exif).unwrap();
        encoder.encode(&image, image.width() as u16, image.height() as u16, jpeg_encoder::ColorType::Rgb).unwrap();
        let difference = difference(&square_of("a.jpg", &bytes), &expected);
        assert!(difference < 2.5, "orientation {orientation}: {difference}");
        // WebP by some programs has the prefix that belongs to JPEG.
        for prefix in [&b""[..], b"Exif\0\0"] {
            let exif = [prefix, &exif].concat();
            let mut bytes = Vec::new();
            let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut bytes);
            image::ImageEncoder::set_exif_metadata(&mut encoder, exif).unwrap();
            encoder.encode(&image, image.width(), image.height(), image::ExtendedColorType::Rgb8).unwrap();
            assert!(self::difference(&square_of("a.webp", &bytes), &exact) < 0.5, "WebP, orientation {orientation}");
        }
    }
}
