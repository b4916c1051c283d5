//! Parquet files of any columns, for tests.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};

use super::forms::{jpeg, picture, write};

/// A column, which may have nulls.
pub enum Values {
    /// Structs of `bytes` and `path`, as Hugging Face keeps images.
    Images(Vec<Option<Vec<u8>>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Texts(Vec<Option<&'static str>>),
    Integers(Vec<Option<i64>>),
    Fractions(Vec<f64>),
    Truths(Vec<bool>),
}

/// So many images, of which each has another picture.
pub fn images(first: u32, count: u32) -> Values {
    Values::Images((first..first + count).map(|number| Some(jpeg(&picture(number)))).collect())
}

pub fn integers(labels: &[i64]) -> Values {
    Values::Integers(labels.iter().copied().map(Some).collect())
}

pub fn texts(labels: &[&'static str]) -> Values {
    Values::Texts(labels.iter().copied().map(Some).collect())
}

/// Writes a column; `level` is that of a value that is there.
fn write_bytes(group: &mut SerializedRowGroupWriter<'_, fs::File>, values: Vec<Option<ByteArray>>, level: i16) {
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = values.iter().map(|value| level - i16::from(value.is_none())).collect();
    let values: Vec<ByteArray> = values.into_iter().flatten().collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
}

/// Writes a file; `names` are the classes of column `label`, as the `datasets` library describes them.
pub fn table(path: &Path, columns: &[(&str, Values)], names: &[&str], compression: Compression) {
    let field = |(name, values): &(&str, Values)| match values {
        Values::Images(_) => format!("optional group {name} {{ optional binary bytes; optional binary path (UTF8); }}"),
        Values::Bytes(_) => format!("optional binary {name};"),
        Values::Texts(_) => format!("optional binary {name} (UTF8);"),
        Values::Integers(_) => format!("optional int64 {name};"),
        Values::Fractions(_) => format!("required double {name};"),
        Values::Truths(_) => format!("required boolean {name};"),
    };
    let fields: String = columns.iter().map(field).collect();
    let schema = parquet::schema::parser::parse_message_type(&format!("message schema {{ {fields} }}")).unwrap();
    let text = serde_json::json!({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}});
    let pair = KeyValue::new("huggingface".into(), text.to_string());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_key_value_metadata((!names.is_empty()).then(|| vec![pair]));
    write(path.to_owned(), b"");
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, values) in columns {
        match values {
            Values::Images(images) => {
                write_bytes(&mut group, images.iter().map(|image| image.clone().map(Into::into)).collect(), 2);
                write_bytes(&mut group, vec![None; images.len()], 2);
            }
            Values::Bytes(values) => {
                write_bytes(&mut group, values.iter().map(|value| value.clone().map(Into::into)).collect(), 1);
            }
            Values::Texts(values) => {
                write_bytes(&mut group, values.iter().map(|value| value.map(Into::into)).collect(), 1);
            }
            Values::Integers(values) => {
                let mut column = group.next_column().unwrap().unwrap();
                let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                let values: Vec<i64> = values.iter().flatten().copied().collect();
                column.typed::<Int64Type>().write_batch(&values, Some(&levels), None).unwrap();
                column.close().unwrap();
            }
            Values::Fractions(values) => {
                let mut column = group.next_column().unwrap().unwrap();
                column.typed::<DoubleType>().write_batch(values, None, None).unwrap();
                column.close().unwrap();
            }
            Values::Truths(values) => {
                let mut column = group.next_column().unwrap().unwrap();
                column.typed::<BoolType>().write_batch(values, None, None).unwrap();
                column.close().unwrap();
            }
        }
    }
    group.close().unwrap();
    writer.close().unwrap();
}
