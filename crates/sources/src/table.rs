//! What is in one file of parquet: its columns, its labels, its images.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use parquet::basic::{ConvertedType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::class_lists::FileLabels;
use super::columns::{Column, Kind};
use super::encrypted;
use super::labels::is_missing;
use crate::error::{Error, Result};
use crate::known::signature_of;
use alexnet_split_images::caught::caught;

/// Says why a file cannot be read.
pub fn damaged(path: &Path) -> impl Fn(ParquetError) -> Error {
    move |error| {
        let text = error.to_string();
        let problem = match text.split_once("Disabled feature at compile time: ") {
            Some((_, codec)) => format!(
                "compressed with {codec}, which is not read; write it again with snappy, as this Python does: import \
                 pyarrow.parquet as pq; pq.write_table(pq.read_table(\"a.parquet\"), \"b.parquet\", compression=\"snappy\")"
            ),
            None if text.contains("encrypt") => encrypted::ADVICE.into(),
            None => format!("damaged or truncated parquet: {text}"),
        };
        Error::data(path, problem)
    }
}

/// What the library's reader gives; a panic of it, which damaged files cause, is an error like others.
pub fn read<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
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
pub fn columns_of(file: &FileMetaData) -> Vec<Column> {
    let kind = |column: &ColumnDescriptor| match (column.physical_type(), column.converted_type()) {
        _ if column.max_rep_level() > 0 => Kind::Other,
        (Type::BYTE_ARRAY, ConvertedType::NONE) => Kind::Bytes,
        (Type::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM) => Kind::Text,
        (Type::INT32 | Type::INT64, ConvertedType::NONE) => Kind::Integers,
        (Type::INT32, ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32) => Kind::Integers,
        (Type::INT32, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32) => Kind::Integers,
        (Type::INT64, ConvertedType::INT_64 | ConvertedType::UINT_64) => Kind::Integers,
        (Type::FLOAT | Type::DOUBLE, _) => Kind::Fractions,
        _ => Kind::Other,
    };
    let columns = file.schema_descr().columns().iter();
    columns.map(|column| Column { path: column.path().string(), kind: kind(column) }).collect()
}

/// Opens a file, and looks at what it claims.
pub fn open_file(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let reader = SerializedFileReader::new(file).map_err(|error| match signature_of(path) {
        Some(found) if !found.name.contains("parquet") => {
            Error::data(path, format!("{}, not a parquet file; {}", found.name, found.advice))
        }
        _ if !encrypted::columns_of(path).is_empty() => Error::data(path, encrypted::ADVICE),
        _ => damaged(path)(error),
    })?;
    // An image has a byte at least, so it cannot be; memory would be taken for all of them.
    let rows = reader.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64);
    if let Some(rows) = rows.max().filter(|rows| *rows > bytes) {
        return Err(Error::data(path, format!("damaged parquet: {rows} rows in {bytes} bytes")));
    }
    Ok(reader)
}

/// The texts of so many rows; `None` for null and for none.
fn texts(column: &mut ColumnReaderImpl<ByteArrayType>, count: usize) -> Result<Vec<Option<String>>, ParquetError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = read_all(column, count)?.into_iter();
    Ok(all.map(|value| value.map(|value| text(value.data())).filter(|text| !text.is_empty())).collect())
}

/// The texts of all rows of a file.
pub fn read_texts(path: &Path, reader: &SerializedFileReader<File>, column: usize) -> Result<Vec<Option<String>>> {
    let mut all = Vec::new();
    for group in 0..reader.num_row_groups() {
        let rows = reader.get_row_group(group).map_err(damaged(path))?;
        let count = rows.metadata().num_rows().max(0) as usize;
        if let ColumnReader::ByteArrayColumnReader(mut column) =
            rows.get_column_reader(column).map_err(damaged(path))?
        {
            all.extend(texts(&mut column, count).map_err(damaged(path))?);
        }
    }
    Ok(all)
}

/// A label that is written as a fraction, as pandas does where some are missing (NaN): 1.0 is 1.
fn whole(path: &Path, value: f64) -> Result<Option<i64>> {
    if value.is_nan() {
        return Ok(None);
    }
    let is_whole = value.fract() == 0. && value.abs() <= f64::from(u32::MAX);
    let problem = || format!("label {value} is no class, expected a whole number; --label-column names another column");
    if is_whole { Ok(Some(value as i64)) } else { Err(Error::data(path, problem())) }
}

/// The labels of all rows of a file.
pub fn read_labels(
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
            ColumnReader::FloatColumnReader(mut column) => {
                let values = read_all(&mut column, count).map_err(&damaged)?;
                values
                    .into_iter()
                    .map(|value| value.map_or(Ok(None), |value| whole(path, value.into())))
                    .collect::<Result<_>>()?
            }
            ColumnReader::DoubleColumnReader(mut column) => {
                let values = read_all(&mut column, count).map_err(&damaged)?;
                values
                    .into_iter()
                    .map(|value| value.map_or(Ok(None), |value| whole(path, value)))
                    .collect::<Result<_>>()?
            }
            ColumnReader::ByteArrayColumnReader(mut column) => {
                are_names = true;
                let mut number = |name: String| {
                    let next = found.len() as i64;
                    *found.entry(name).or_insert(next)
                };
                let texts = texts(&mut column, count).map_err(&damaged)?;
                texts.into_iter().map(|text| text.filter(|text| !is_missing(text)).map(&mut number)).collect()
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

pub fn read_bytes(column: &mut ColumnReaderImpl<ByteArrayType>) -> Result<Option<Vec<u8>>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    match column.read_records(1, Some(&mut levels), None, &mut values)? {
        (0, ..) => Err(ParquetError::General("it ends before its rows do".into())),
        _ => Ok(values.pop().map(|bytes| bytes.data().to_vec())),
    }
}
