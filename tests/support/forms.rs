//! Data sets in every form that people have them in, made from the same images.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, RgbImage};
use parquet::data_type::{ByteArrayType, DataType, Int64Type};

pub const CLASSES: [&str; 3] = ["n01000001", "n01000002", "n01000003"];
pub const NAMES: [&str; 3] = ["tench, Tinca tinca", "goldfish", "café au lait"];

/// A picture that no other number gives.
pub fn picture(number: u32) -> RgbImage {
    let (width, height) = (30 + number % 4 * 9, 26 + number % 3 * 11);
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 5 + number * 17) as u8, (y * 6 + number * 5) as u8, ((x + y) * 3 + number * 29) as u8])
    })
}

pub fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder.encode(image, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// Images as a set has them: class and file, of both parts.
pub fn images() -> [Vec<(usize, Vec<u8>)>; 2] {
    let file = |number| match number % 3 {
        0 => encoded(&picture(number).into(), ImageFormat::Png),
        _ => jpeg(&picture(number)),
    };
    [(0..9).map(|i| (i as usize / 3, file(i))).collect(), (20..26).map(|i| (i as usize % 3, file(i))).collect()]
}

pub fn ending(file: &[u8]) -> &'static str {
    if file.starts_with(b"\x89PNG") { "png" } else { "jpg" }
}

pub fn write(path: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn as_folders(to: &Path) {
    for (part, images) in ["train", "val"].iter().zip(images()) {
        for (number, (class, file)) in images.iter().enumerate() {
            let name = format!("{part}/{}/deeper/{number}.{}", CLASSES[*class], ending(file).to_uppercase());
            write(to.join(name), file);
        }
    }
}

pub fn as_webdataset(to: &Path) {
    for (part, images) in ["train", "val"].iter().zip(images()) {
        let file = |(number, (class, file)): (usize, &(usize, Vec<u8>))| {
            let label = match number % 2 {
                0 => (format!("x/{number:04}.cls"), class.to_string().into_bytes()),
                _ => (format!("x/{number:04}.json"), format!("{{\"label\": {class}}}").into_bytes()),
            };
            [(format!("x/{number:04}.{}", ending(file)), file.clone()), label]
        };
        let files: Vec<_> = images.iter().enumerate().flat_map(file).collect();
        let (first, second) = files.split_at(6);
        write(to.join(format!("{part}-0.tar")), &tar_of(first));
        write(to.join(format!("{part}-1.tar")), &tar_of(second));
    }
    write(to.join("classes.txt"), CLASSES.join("\n").as_bytes());
}

/// The development kit's `meta.mat`: the kit counts classes in another order than their WordNet numbers.
pub fn meta_mat() -> Vec<u8> {
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        if !data.is_empty() && data.len() <= 4 {
            let word = kind | (data.len() as u32) << 16;
            return [&word.to_le_bytes()[..], data, &vec![0; 4 - data.len()]].concat();
        }
        let padding = vec![0; data.len().next_multiple_of(8) - data.len()];
        [&kind.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), data, &padding].concat()
    }
    fn matrix(class: u8, size: [u32; 2], name: &[u8], parts: &[Vec<u8>]) -> Vec<u8> {
        let sizes: Vec<u8> = size.iter().flat_map(|size| size.to_le_bytes()).collect();
        let head = [element(6, &[class, 0, 0, 0, 0, 0, 0, 0]), element(5, &sizes), element(1, name)].concat();
        element(14, &[head, parts.concat()].concat())
    }
    let text = |text: &str| {
        let codes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        matrix(4, [1, text.chars().count() as u32], b"", &[element(4, &codes)])
    };
    let mut parts = vec![element(5, &16u32.to_le_bytes())];
    let names = ["ILSVRC2012_ID", "WNID", "words", "children"];
    parts.push(element(1, &names.map(|name| format!("{name:\0<16}")).concat().into_bytes()));
    for (id, class) in [(1u8, 2), (2, 0), (3, 1)] {
        parts.push(matrix(6, [1, 1], b"", &[element(2, &[id])]));
        parts.push(text(CLASSES[class]));
        parts.push(text(NAMES[class]));
        parts.push(matrix(6, [0, 0], b"", &[element(9, &[])]));
    }
    let synsets = matrix(2, [3, 1], b"synsets", &parts);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&synsets).unwrap();
    let packed = packed.finish().unwrap();
    let mut file = format!("{:<124}", "MATLAB 5.0 MAT-file").into_bytes();
    file.extend([0, 1, b'I', b'M']);
    file.extend([15u32.to_le_bytes(), (packed.len() as u32).to_le_bytes()].concat());
    file.extend(packed);
    file
}

pub fn as_official_files(to: &Path) {
    let [train, val] = images();
    let class_tar = |class: usize| {
        let of_class = train.iter().filter(|image| image.0 == class);
        let files = of_class.enumerate().map(|(i, image)| (format!("{}_{i}.JPEG", CLASSES[class]), image.1.clone()));
        (format!("{}.tar", CLASSES[class]), tar_of(&files.collect::<Vec<_>>()))
    };
    write(to.join("ILSVRC2012_img_train.tar"), &tar_of(&[2, 0, 1].map(class_tar)));
    let name = |i: usize| format!("ILSVRC2012_val_{:08}.JPEG", i + 1);
    let files: Vec<_> = val.iter().enumerate().map(|(i, image)| (name(i), image.1.clone())).collect();
    write(to.join("ILSVRC2012_img_val.tar"), &tar_of(&files));
    let ids: String = val.iter().map(|image| format!("{}\n", [2, 3, 1][image.0])).collect();
    let kit = tar_of(&[
        ("ILSVRC2012_devkit_t12/data/meta.mat".into(), meta_mat()),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt".into(), ids.into_bytes()),
    ]);
    write(to.join("ILSVRC2012_devkit_t12.tar.gz"), &gzip(&kit));
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub fn as_parquet(to: &Path) {
    for (part, images) in ["train", "validation"].iter().zip(images()) {
        let rows: Vec<_> = images.into_iter().map(|(class, file)| (Some(file), class as i64)).collect();
        parquet_file::<Int64Type>(&to.join(format!("data/{part}-00000-of-00001.parquet")), &rows);
    }
}

/// A shard of images, some of which may be missing, and labels, which are of type `L`.
pub fn parquet_file<L: DataType>(path: &Path, rows: &[(Option<Vec<u8>>, i64)])
where
    L::T: TryFrom<i64, Error: std::fmt::Debug>,
{
    let schema = format!(
        "message schema {{
            optional group image {{ optional binary bytes; optional binary path (UTF8); }}
            optional {} label;
        }}",
        L::get_physical_type().to_string().to_lowercase()
    );
    let schema = Arc::new(parquet::schema::parser::parse_message_type(&schema).unwrap());
    let names = serde_json::json!({"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}});
    let pair = parquet::file::metadata::KeyValue::new("huggingface".into(), names.to_string());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![pair]));
    write(path.to_owned(), b"");
    let file = fs::File::create(path).unwrap();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
    for rows in rows.chunks(4) {
        let mut group = writer.next_row_group().unwrap();
        let bytes: Vec<_> = rows.iter().filter_map(|row| row.0.clone()).map(Into::into).collect();
        let levels: Vec<i16> = rows.iter().map(|row| if row.0.is_some() { 2 } else { 1 }).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<L::T> = rows.iter().map(|row| row.1.try_into().unwrap()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<L>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A small IDX set of so many images.
pub fn as_idx(to: &Path, count: u32) {
    let be = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    for (prefix, count) in [("train", count), ("t10k", 5)] {
        let pixels: Vec<u8> = (0..count * 100).map(|i| (i * 7 + i / 100 * 3) as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 4) as u8).collect();
        write(to.join(format!("{prefix}-images-idx3-ubyte")), &[be(&[0x803, count, 10, 10]), pixels].concat());
        write(to.join(format!("{prefix}-labels-idx1-ubyte")), &[be(&[0x801, count]), labels].concat());
    }
}
