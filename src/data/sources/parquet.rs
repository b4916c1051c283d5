//! Parquet shards as Hugging Face keeps them: a column of images, structs of `bytes` and `path` or the bytes alone, and a
//! column of labels, integers, whose names are in the file's own metadata.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;

use super::shard_files::ShardFiles;
use super::webdataset::{class_names, names_beside};
use super::{Found, Item, Picture, Source, SourceOptions};
use crate::data::caught::caught;
use crate::error::{Error, Result};

/// Where an image is.
struct Place {
    file: usize,
    group: usize,
    row: usize,
}

/// One file, and the number of its column of image bytes.
struct Shard {
    path: PathBuf,
    reader: Mutex<SerializedFileReader<File>>,
    images: usize,
}

struct Shards {
    shards: Vec<Shard>,
    items: Vec<Item>,
    places: Vec<Place>,
}

/// Opens a folder of shards.
pub fn open(folder: &Path, ShardFiles { train, val, notes }: ShardFiles, _options: &SourceOptions) -> Result<Found> {
    let (train, names) = read_shards(&train)?;
    let val = if val.is_empty() { None } else { Some(read_shards(&val)?.0) };
    let items = train.items.iter().chain(val.iter().flat_map(|val| &val.items));
    let highest = items.map(|item| item.class).max().unwrap_or(0) as usize;
    let classes = match names {
        Some(names) if highest < names.len() => names,
        Some(names) => {
            let problem = format!("the shards name {} classes, but there is a label {highest}", names.len());
            return Err(Error::data(folder, problem));
        }
        None => class_names(folder, names_beside(folder)?, highest)?,
    };
    let val = val.map(|val| Arc::new(val) as Arc<dyn Source>);
    Ok(Found { form: "Hugging Face parquet shards", train: Arc::new(train), val, classes, notes })
}

fn damaged(path: &Path) -> impl Fn(ParquetError) -> Error {
    move |error| {
        let text = error.to_string();
        let problem = match text.split_once("Disabled feature at compile time: ") {
            Some((_, codec)) => format!("compressed with {codec}, which is not read; write it with snappy or gzip"),
            None => format!("damaged or truncated parquet: {text}"),
        };
        Error::data(path, problem)
    }
}

/// What the library's reader gives; a panic of it, which damaged files cause, is an error like others.
fn read<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).unwrap_or_else(|| Err(Error::data(path, "damaged parquet: its reader failed on it; fetch it again")))
}

fn read_shards(paths: &[PathBuf]) -> Result<(Shards, Option<Vec<String>>)> {
    let mut all = Shards { shards: Vec::new(), items: Vec::new(), places: Vec::new() };
    let mut names = None;
    for (file, path) in paths.iter().enumerate() {
        let of_file = read(path, || all.add(file, path))?;
        names = names.or(of_file);
    }
    Ok((all, names))
}

/// Class names from what the `datasets` library writes into its files.
fn label_names(text: &str, column: &str) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = json["info"]["features"][column]["names"].as_array()?;
    names.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}

fn read_all<T: DataType>(column: &mut ColumnReaderImpl<T>, count: usize) -> Result<Vec<T::T>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    while values.len() < count {
        let (records, _, _) = column.read_records(count - values.len(), Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::General(format!("{} labels for {count} rows", values.len())));
        }
    }
    Ok(values)
}

impl Shards {
    /// Takes in a file; returns the names of the classes that it gives.
    fn add(&mut self, file: usize, path: &Path) -> Result<Option<Vec<String>>> {
        let damaged = damaged(path);
        let opened = File::open(path).map_err(Error::io("open", path))?;
        let bytes = opened.metadata().map_err(Error::io("read", path))?.len();
        let reader = SerializedFileReader::new(opened).map_err(&damaged)?;
        let metadata = reader.metadata().file_metadata();
        // An image has a byte at least, so it cannot be; memory would be taken for all of them.
        let rows = reader.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64);
        if let Some(rows) = rows.max().filter(|rows| *rows > bytes) {
            return Err(Error::data(path, format!("damaged parquet: {rows} rows in {bytes} bytes")));
        }
        let columns: Vec<String> =
            metadata.schema_descr().columns().iter().map(|column| column.path().string()).collect();
        let column = |wanted: &dyn Fn(&str) -> bool| columns.iter().position(|name| wanted(name));
        let images = column(&|name| name == "image.bytes" || name == "img.bytes")
            .or_else(|| column(&|name| name.ends_with(".bytes")))
            .or_else(|| column(&|name| name == "image" || name == "img"));
        let labels = column(&|name| ["label", "fine_label", "labels"].contains(&name));
        let (Some(images), Some(labels)) = (images, labels) else {
            let problem = format!("expected columns image.bytes and label, found {}", columns.join(", "));
            return Err(Error::data(path, problem));
        };
        let pairs = metadata.key_value_metadata();
        let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref());
        let names = text.and_then(|text| label_names(text, &columns[labels]));
        for group in 0..reader.num_row_groups() {
            let rows = reader.get_row_group(group).map_err(&damaged)?;
            let count = rows.metadata().num_rows().max(0) as usize;
            let classes: Vec<i64> = match rows.get_column_reader(labels).map_err(&damaged)? {
                ColumnReader::Int64ColumnReader(mut column) => read_all(&mut column, count).map_err(&damaged)?,
                ColumnReader::Int32ColumnReader(mut column) => {
                    read_all(&mut column, count).map_err(&damaged)?.into_iter().map(i64::from).collect()
                }
                _ => {
                    return Err(Error::data(path, format!("the labels of column {} are no integers", columns[labels])));
                }
            };
            for (row, class) in classes.into_iter().enumerate() {
                let name = format!("{} row {row} of group {group}", path.display());
                let Ok(class) = u32::try_from(class) else {
                    let problem = format!("label {class} is no class; sets without labels cannot be trained on");
                    return Err(Error::data(name, problem));
                };
                self.items.push(Item { name, class });
                self.places.push(Place { file, group, row });
            }
        }
        self.shards.push(Shard { path: path.to_owned(), reader: Mutex::new(reader), images });
        Ok(names)
    }

    /// The images of some rows of a group, which must rise; `None` where a row has none.
    fn images(&self, shard: &Shard, group: usize, rows: &[usize]) -> Result<Vec<Option<Vec<u8>>>, ParquetError> {
        let reader = shard.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ColumnReader::ByteArrayColumnReader(mut column) =
            reader.get_row_group(group)?.get_column_reader(shard.images)?
        else {
            return Err(ParquetError::General("the images are not byte arrays".into()));
        };
        let (mut images, mut at) = (Vec::new(), 0);
        for &row in rows {
            column.skip_records(row - at)?;
            images.push(read_bytes(&mut column)?);
            at = row + 1;
        }
        Ok(images)
    }
}

fn read_bytes(column: &mut ColumnReaderImpl<ByteArrayType>) -> Result<Option<Vec<u8>>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    match column.read_records(1, Some(&mut levels), None, &mut values)? {
        (0, ..) => Err(ParquetError::General("it ends before its rows do".into())),
        _ => Ok(values.pop().map(|bytes| bytes.data().to_vec())),
    }
}

impl Source for Shards {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, indices: &[u32], work: &(dyn Fn(usize, Result<Picture>) + Sync)) {
        // Runs of rows of one group are read together, then given to the threads.
        let mut from = 0;
        while from < indices.len() {
            let place = |at: usize| &self.places[indices[at] as usize];
            let first = place(from);
            let follows = |at: usize| {
                let (before, here) = (place(at - 1), place(at));
                (here.file, here.group) == (before.file, before.group) && here.row > before.row
            };
            let end = (from + 1..indices.len()).find(|&at| !follows(at)).unwrap_or(indices.len());
            let rows: Vec<usize> = (from..end).map(|at| place(at).row).collect();
            let shard = &self.shards[first.file];
            let images = read(&shard.path, || self.images(shard, first.group, &rows).map_err(damaged(&shard.path)));
            match images {
                Ok(images) => images.into_par_iter().enumerate().for_each(|(at, bytes)| {
                    let name = &self.items[indices[from + at] as usize].name;
                    work(from + at, bytes.map(Picture::File).ok_or_else(|| Error::data(name, "has no image")));
                }),
                Err(error) => {
                    (from..end).for_each(|at| work(at, Err(Error::data(&shard.path, error.problem()))));
                }
            }
            from = end;
        }
    }
}
