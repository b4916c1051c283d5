//! Parquet shards as Hugging Face keeps them: a column of images, structs of `bytes` and `path` or the bytes alone, and a
//! column of labels: integers, whose names are in the file's own metadata, or names.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use parquet::basic::{ConvertedType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use super::class_lists::{ClassLists, FileLabels};
use super::columns::{self, Chosen, Column, Kind};
use super::notes::Notes;
use super::shard_files::ShardFiles;
use super::webdataset::{class_names, names_beside};
use super::{Found, Item, Picture, Source, SourceOptions};
use crate::error::{Error, Result};
use crate::known::signature_of;
use alexnet_split_images::caught::caught;

/// Where an image is.
struct RowPlace {
    file: usize,
    group: usize,
    row: usize,
}

/// One file, and the number of its column of image bytes.
struct Shard {
    path: PathBuf,
    reader: Mutex<SerializedFileReader<File>>,
    images: usize,
    /// The bytes of its images as they are stored, and a hash of its labels: equal in files that hold the same.
    seal: (i64, u64),
}

#[derive(Default)]
struct Shards {
    shards: Vec<Shard>,
    items: Vec<Item>,
    places: Vec<RowPlace>,
    /// Rows without a label.
    unlabelled: usize,
}

/// What all shards of a set have in common.
struct Set<'a> {
    options: &'a SourceOptions,
    /// The columns of the first shard, and its path.
    columns: Option<(Chosen, PathBuf)>,
    classes: ClassLists,
    lines: Vec<String>,
    notes: Notes,
}

/// Opens a set of shards.
pub fn open(folder: &Path, files: ShardFiles, options: &SourceOptions) -> Result<Found> {
    let (classes, notes) = (ClassLists::default(), Notes::default());
    let mut set = Set { options, columns: None, classes, lines: files.notes, notes };
    let mut train = set.read(&files.train)?;
    if train.items.is_empty() && train.unlabelled > 0 {
        let problem =
            format!("its {} rows have no labels (all are -1 or null); it cannot be trained on", train.unlabelled);
        return Err(Error::data(files.train.first().map_or(folder, PathBuf::as_path), problem));
    }
    if let Some(places) = set.classes.close() {
        train.items.iter_mut().for_each(|item| item.class = places[item.class as usize]);
    }
    let val = if files.val.is_empty() { None } else { Some(set.read(&files.val)?) };
    for part in [Some(&train), val.as_ref()].into_iter().flatten().filter(|part| part.unlabelled > 0) {
        let first = part.shards.first().map_or(folder, |shard| &shard.path).display();
        set.notes.add_many("rows without a label (-1 or null) not read", part.unlabelled, format!("those of {first}"));
    }
    // A test set without labels: what is held out comes from the training set.
    let val = val.filter(|val| !val.items.is_empty() || val.unlabelled == 0);
    let items = train.items.iter().chain(val.iter().flat_map(|val| &val.items));
    let highest = items.map(|item| item.class).max().unwrap_or(0);
    let Set { classes, mut lines, mut notes, .. } = set;
    let classes = match classes.finish(highest, &mut notes)? {
        Some(names) => names,
        None => class_names(folder, names_beside(folder)?, highest as usize)?,
    };
    lines.extend(notes.say());
    let val = val.map(|val| Arc::new(val) as Arc<dyn Source>);
    Ok(Found { form: "Hugging Face parquet shards", train: Arc::new(train), val, classes, notes: lines })
}

fn damaged(path: &Path) -> impl Fn(ParquetError) -> Error {
    move |error| {
        let text = error.to_string();
        let problem = match text.split_once("Disabled feature at compile time: ") {
            Some((_, codec)) => format!(
                "compressed with {codec}, which is not read; write it again with snappy, as this Python does: import \
                 pyarrow.parquet as pq; pq.write_table(pq.read_table(\"a.parquet\"), \"b.parquet\", compression=\"snappy\")"
            ),
            None => format!("damaged or truncated parquet: {text}"),
        };
        Error::data(path, problem)
    }
}

/// What the library's reader gives; a panic of it, which damaged files cause, is an error like others.
fn read<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).unwrap_or_else(|| Err(Error::data(path, "damaged parquet: its reader failed on it; fetch it again")))
}

/// The values of so many rows; `None` for null.
fn read_all<T: DataType>(column: &mut ColumnReaderImpl<T>, count: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (mut values, mut levels, mut rows) = (Vec::new(), Vec::new(), 0);
    while rows < count {
        let (records, _, _) = column.read_records(count - rows, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::General(format!("{rows} labels for {count} rows")));
        }
        rows += records;
    }
    // A column that may not be null has no levels.
    let highest = levels.iter().copied().max().unwrap_or(0).max(1);
    let mut values = values.into_iter();
    Ok((0..count)
        .map(|row| if levels.get(row).is_none_or(|&level| level == highest) { values.next() } else { None })
        .collect())
}

/// The columns of a file.
fn columns_of(file: &FileMetaData) -> Vec<Column> {
    let kind = |column: &ColumnDescriptor| match (column.physical_type(), column.converted_type()) {
        _ if column.max_rep_level() > 0 => Kind::Other,
        (Type::BYTE_ARRAY, ConvertedType::NONE) => Kind::Bytes,
        (Type::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM) => Kind::Text,
        (Type::INT32 | Type::INT64, ConvertedType::NONE) => Kind::Integers,
        (Type::INT32, ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32) => Kind::Integers,
        (Type::INT32, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32) => Kind::Integers,
        (Type::INT64, ConvertedType::INT_64 | ConvertedType::UINT_64) => Kind::Integers,
        _ => Kind::Other,
    };
    let columns = file.schema_descr().columns().iter();
    columns.map(|column| Column { path: column.path().string(), kind: kind(column) }).collect()
}

impl Set<'_> {
    fn read(&mut self, paths: &[PathBuf]) -> Result<Shards> {
        let mut part = Shards::default();
        for path in paths {
            read(path, || self.add(&mut part, path))?;
        }
        Ok(part)
    }

    /// Takes in a file.
    fn add(&mut self, part: &mut Shards, path: &Path) -> Result<()> {
        let reader = open_file(path)?;
        let metadata = reader.metadata().file_metadata();
        let pairs = metadata.key_value_metadata();
        let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref());
        let features = columns::features(text.unwrap_or_default());
        let columns = columns_of(metadata);
        if self.columns.is_none() {
            let chosen = columns::choose(&columns, &features, self.options);
            let (chosen, others) = chosen.map_err(|problem| Error::data(path, problem))?;
            if !others.is_empty() {
                let read = format!("columns {} and {} are read", chosen.image, chosen.label);
                self.lines.push(format!("{read}, not {}", others.join(", ")));
            }
            self.columns = Some((chosen, path.to_owned()));
        }
        let Some((chosen, first)) = &self.columns else { return Ok(()) };
        let find = |name: &str| {
            let problem = || format!("has no column {name}, which {} has", first.display());
            columns.iter().position(|column| column.path == name).ok_or_else(|| Error::data(path, problem()))
        };
        let (images, labels) = (find(&chosen.image)?, find(&chosen.label)?);
        let names = columns::class_names(&features, &chosen.label);
        let labels = read_labels(path, &reader, labels, names)?;
        let numbers = self.classes.number(path, labels)?;
        let groups = reader.metadata().row_groups();
        let counts: Vec<usize> = groups.iter().map(|group| group.num_rows().max(0) as usize).collect();
        let bytes = groups.iter().map(|group| group.column(images).compressed_size()).sum();
        let seal = (bytes, BuildHasherDefault::<DefaultHasher>::default().hash_one(&numbers));
        let shard = Shard { path: path.to_owned(), reader: Mutex::new(reader), images, seal };
        if let Some(twin) = part.twin(&shard) {
            let example = format!("{} and {}", path.display(), twin.display());
            self.notes.add("files that hold the same as others, read once", example);
            return Ok(());
        }
        let mut numbers = numbers.into_iter();
        for (group, count) in counts.into_iter().enumerate() {
            for (row, class) in numbers.by_ref().take(count).enumerate() {
                let Some(class) = class else {
                    part.unlabelled += 1;
                    continue;
                };
                part.items.push(Item { name: format!("{} row {row} of group {group}", path.display()), class });
                part.places.push(RowPlace { file: part.shards.len(), group, row });
            }
        }
        part.shards.push(shard);
        Ok(())
    }
}

/// Opens a file, and looks at what it claims.
fn open_file(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let reader = SerializedFileReader::new(file).map_err(|error| match signature_of(path) {
        Some(found) if !found.name.contains("parquet") => {
            Error::data(path, format!("{}, not a parquet file; {}", found.name, found.advice))
        }
        _ => damaged(path)(error),
    })?;
    // An image has a byte at least, so it cannot be; memory would be taken for all of them.
    let rows = reader.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64);
    if let Some(rows) = rows.max().filter(|rows| *rows > bytes) {
        return Err(Error::data(path, format!("damaged parquet: {rows} rows in {bytes} bytes")));
    }
    Ok(reader)
}

/// The labels of all rows of a file.
fn read_labels(
    path: &Path,
    reader: &SerializedFileReader<File>,
    column: usize,
    names: Option<Vec<String>>,
) -> Result<FileLabels> {
    let damaged = damaged(path);
    let (mut numbers, mut found) = (Vec::new(), BTreeMap::new());
    let mut are_names = false;
    for group in 0..reader.num_row_groups() {
        let rows = reader.get_row_group(group).map_err(&damaged)?;
        let count = rows.metadata().num_rows().max(0) as usize;
        let values: Vec<Option<i64>> = match rows.get_column_reader(column).map_err(&damaged)? {
            ColumnReader::Int64ColumnReader(mut column) => read_all(&mut column, count).map_err(&damaged)?,
            ColumnReader::Int32ColumnReader(mut column) => {
                let values = read_all(&mut column, count).map_err(&damaged)?;
                values.into_iter().map(|value| value.map(i64::from)).collect()
            }
            ColumnReader::ByteArrayColumnReader(mut column) => {
                are_names = true;
                let mut number = |name: String| {
                    let next = found.len() as i64;
                    *found.entry(name).or_insert(next)
                };
                let texts = read_all(&mut column, count).map_err(&damaged)?;
                let texts = texts.into_iter().map(|text| Some(String::from_utf8_lossy(text?.data()).into_owned()));
                texts.map(|text| text.filter(|text| !text.is_empty()).map(&mut number)).collect()
            }
            _ => return Err(Error::data(path, "its labels are neither whole numbers nor names")),
        };
        for (row, value) in values.into_iter().enumerate() {
            let class = value.filter(|value| *value != -1).map(u32::try_from).transpose();
            let Ok(class) = class else {
                let name = format!("{} row {row} of group {group}", path.display());
                return Err(Error::data(name, format!("label {} is no class", value.unwrap_or_default())));
            };
            numbers.push(class);
        }
    }
    if are_names {
        let mut names = vec![String::new(); found.len()];
        found.into_iter().for_each(|(name, number)| names[number as usize] = name);
        return Ok(FileLabels { numbers, names: Some(names), are_names });
    }
    Ok(FileLabels { numbers, names, are_names })
}

impl Shards {
    /// The file that holds the same as another, whatever it is called.
    fn twin(&self, shard: &Shard) -> Option<&Path> {
        let first = |shard: &Shard| shard.read(0, &[0]).ok();
        let is_twin =
            |other: &&Shard| other.seal == shard.seal && first(other).is_some_and(|it| Some(it) == first(shard));
        self.shards.iter().find(is_twin).map(|shard| &*shard.path)
    }
}

impl Shard {
    /// The images of some rows of a group, which must rise; `None` where a row has none.
    fn read(&self, group: usize, rows: &[usize]) -> Result<Vec<Option<Vec<u8>>>, ParquetError> {
        let reader = self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ColumnReader::ByteArrayColumnReader(mut column) =
            reader.get_row_group(group)?.get_column_reader(self.images)?
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
            let images = read(&shard.path, || shard.read(first.group, &rows).map_err(damaged(&shard.path)));
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
