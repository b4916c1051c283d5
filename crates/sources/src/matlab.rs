//! As much of MATLAB's format (version 5) as the development kit of ILSVRC 2012 takes: an array of structs, whose fields
//! are numbers and texts. "MAT-File Format", MathWorks.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// The contents of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers, whatever their type.
    Numbers(Vec<f64>),
    /// Characters.
    Text(String),
    /// Something else.
    Other,
}

impl Value {
    /// The first number.
    pub fn number(&self) -> Option<f64> {
        if let Value::Numbers(numbers) = self { numbers.first().copied() } else { None }
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
}

/// Bytes of the largest variable that is unpacked.
const MAX_BYTES: u64 = 1 << 28;

const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;

const CLASS_STRUCT: u8 = 2;
const CLASS_CHAR: u8 = 4;

/// The array of structs called `name`: for each its fields.
///
/// Fails with the reason where the file is not of the format, damaged, or has no such array.
pub fn structs(file: &[u8], name: &str) -> Result<Vec<HashMap<String, Value>>, String> {
    let header = file.get(..128).ok_or("too short for a MAT-file")?;
    if header[126..] != *b"IM" {
        return Err("not a MAT-file of version 5, little-endian".into());
    }
    let mut rest = Elements(&file[128..]);
    while let Some((kind, data)) = rest.next()? {
        let unpacked;
        let data = match kind {
            COMPRESSED => {
                let mut bytes = Vec::new();
                let read = ZlibDecoder::new(data).take(MAX_BYTES).read_to_end(&mut bytes);
                read.map_err(|error| format!("damaged: {error}"))?;
                unpacked = bytes;
                match Elements(&unpacked).next()? {
                    Some((MATRIX, data)) => data,
                    _ => continue,
                }
            }
            MATRIX => data,
            _ => continue,
        };
        if let Some(rows) = struct_array(data, name)? {
            return Ok(rows);
        }
    }
    Err(format!("it has no array of structs {name:?}"))
}

/// A list of elements: a kind and a size, or both in one word with up to four bytes.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, String> {
        const SHORT: &str = "truncated";
        if self.0.len() < 8 {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        let (kind, small) = (word(0) & 0xffff, (word(0) >> 16) as usize);
        if small > 0 {
            let data = self.0.get(4..4 + small).filter(|_| small <= 4).ok_or(SHORT)?;
            self.0 = &self.0[8..];
            return Ok(Some((kind, data)));
        }
        let size = word(4) as usize;
        let data = self.0[8..].get(..size).ok_or(SHORT)?;
        // All but compressed elements are filled up to eight bytes.
        let padded = if kind == COMPRESSED { size } else { size.next_multiple_of(8) };
        self.0 = self.0[8..].get(padded..).unwrap_or_default();
        Ok(Some((kind, data)))
    }

    fn expect(&mut self) -> Result<(u32, &'a [u8]), String> {
        self.next()?.ok_or_else(|| "truncated".into())
    }
}

/// The fields of every struct, where the array is one and has that name.
fn struct_array(data: &[u8], wanted: &str) -> Result<Option<Vec<HashMap<String, Value>>>, String> {
    let mut parts = Elements(data);
    let (_, flags) = parts.expect()?;
    let (_, dimensions) = parts.expect()?;
    let (_, name) = parts.expect()?;
    if flags.first() != Some(&CLASS_STRUCT) || name != wanted.as_bytes() {
        return Ok(None);
    }
    let count = numbers(INT32, dimensions).iter().product::<f64>();
    let (_, length) = parts.expect()?;
    let length = numbers(INT32, length).first().copied().unwrap_or(0.) as usize;
    let (_, names) = parts.expect()?;
    if length == 0 || !(0. ..1e7).contains(&count) {
        return Err("damaged: an array of structs without fields, or without end".into());
    }
    let names = names
        .chunks_exact(length)
        .map(|name| String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned());
    let names: Vec<String> = names.collect();
    let mut rows = Vec::new();
    for _ in 0..count as usize {
        let mut row = HashMap::new();
        for name in &names {
            let (_, data) = parts.expect()?;
            row.insert(name.clone(), value(data)?);
        }
        rows.push(row);
    }
    Ok(Some(rows))
}

fn value(data: &[u8]) -> Result<Value, String> {
    let mut parts = Elements(data);
    // An empty array may have nothing at all.
    let Some((_, flags)) = parts.next()? else { return Ok(Value::Other) };
    parts.expect()?;
    parts.expect()?;
    let class = flags.first().copied().unwrap_or(0);
    let Some((kind, data)) = parts.next()? else { return Ok(Value::Other) };
    Ok(match class {
        CLASS_CHAR if kind == UTF8 => Value::Text(String::from_utf8_lossy(data).into_owned()),
        CLASS_CHAR => {
            let kind = if kind == UTF16 { UINT16 } else { kind };
            Value::Text(numbers(kind, data).iter().filter_map(|&code| char::from_u32(code as u32)).collect())
        }
        6..=15 => Value::Numbers(numbers(kind, data)),
        _ => Value::Other,
    })
}

fn numbers(kind: u32, data: &[u8]) -> Vec<f64> {
    match kind {
        INT8 => data.iter().map(|&v| f64::from(v as i8)).collect(),
        UINT8 => data.iter().map(|&v| f64::from(v)).collect(),
        INT16 => data.as_chunks().0.iter().map(|v| f64::from(i16::from_le_bytes(*v))).collect(),
        UINT16 => data.as_chunks().0.iter().map(|v| f64::from(u16::from_le_bytes(*v))).collect(),
        INT32 => data.as_chunks().0.iter().map(|v| f64::from(i32::from_le_bytes(*v))).collect(),
        UINT32 => data.as_chunks().0.iter().map(|v| f64::from(u32::from_le_bytes(*v))).collect(),
        SINGLE => data.as_chunks().0.iter().map(|v| f64::from(f32::from_le_bytes(*v))).collect(),
        DOUBLE => data.as_chunks().0.iter().map(|v| f64::from_le_bytes(*v)).collect(),
        _ => Vec::new(),
    }
}
