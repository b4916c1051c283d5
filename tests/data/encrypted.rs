//! Parquet files of which some columns are encrypted, and the footer is not.

use std::fs;
use std::path::Path;

use alexnet_split::data::sources::{self, SourceOptions};
use parquet::basic::Compression::SNAPPY;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::TempDir;

use crate::support::prepared::refused;
use crate::support::tables::{images, integers, table, texts};

/// Says in the footer that some columns are encrypted, as files with a plain footer do, and makes their bytes those of
/// nobody. The library writes each description of a column as its offset (field 2, here 0) and then a structure (field 3).
fn encrypt(path: &Path, columns: &[usize]) {
    let ranges: Vec<(u64, u64)> = {
        let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
        columns.iter().map(|column| reader.metadata().row_group(0).column(*column).byte_range()).collect()
    };
    let mut bytes = fs::read(path).unwrap();
    for (start, length) in ranges {
        bytes[start as usize..(start + length) as usize]
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_mul(77) ^ 0xa5);
    }
    let tail = bytes.len() - 8;
    let length = u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize;
    let footer = bytes.split_off(tail - length);
    let (plain, described): (&[u8], &[u8]) = (&[0x26, 0, 0x1c], &[0x0c, 16, 0x1c, 0, 0, 0x06, 4, 0, 0x1c]);
    let (mut written, mut column, mut at) = (Vec::new(), 0, 0);
    while at < length {
        let is_here = footer[at..].starts_with(plain);
        let is_encrypted = is_here && columns.contains(&column);
        written.extend(if is_encrypted { described } else { &footer[at..at + if is_here { 3 } else { 1 }] });
        (column, at) = (column + usize::from(is_here), at + if is_here { 3 } else { 1 });
    }
    assert_eq!(column, 4, "columns with a description");
    bytes.extend(&written);
    bytes.extend((written.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    fs::write(path, bytes).unwrap();
}

#[test]
fn encrypted_columns_are_named_and_others_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("train.parquet");
    let says = "encrypted, which is not read; write it again without encryption, with a program that has its keys";
    for (columns, name) in
        [(&[0][..], "image"), (&[2], "label"), (&[0, 2], "image"), (&[3], "split"), (&[], ""), (&[1], "")]
    {
        let split = texts(&["train", "train", "val", "val"]);
        let values = [("image", images(0, 4)), ("label", integers(&[0, 1, 0, 1])), ("split", split)];
        table(&path, &values, &["x", "y"], SNAPPY);
        encrypt(&path, columns);
        match name {
            "" => {
                let found = sources::open(folder.path(), &SourceOptions::holding_out(0.25)).unwrap();
                assert_eq!((found.train.len(), found.val.len()), (2, 2));
            }
            _ => {
                let column = if name == "image" { "image.bytes" } else { name };
                refused(folder.path(), &["train.parquet", &format!("its column {column} is {says}")]);
            }
        }
    }
    // A file whose columns have no description that is plain.
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.windows(3).rposition(|bytes| bytes == [0x26, 0, 0x1c]).unwrap();
    bytes[start + 2] = 0x6c;
    fs::write(&path, &bytes).unwrap();
    refused(folder.path(), &["train.parquet", says]);
}
