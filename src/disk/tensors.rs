//! Files of named f32 tensors, in the safetensors format: 8 bytes of the header's length, a JSON header, the values.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Draft;
use crate::error::{Error, Result};

/// Headers that are longer are refused before they are parsed; ours take about 100 bytes a tensor.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// A name, a shape, and values row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Unique in a file.
    pub name: String,
    /// Its product is the number of values.
    pub shape: Vec<usize>,
    /// Row after row.
    pub values: Vec<f32>,
}

/// A file's length and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Writes a file, flushed to disk, and tells its seal. Without metadata, the same tensors give the same
/// bytes.
pub fn write(path: &Path, tensors: &[NamedTensor], metadata: Option<HashMap<String, String>>) -> Result<Seal> {
    let mut end = 0;
    let infos = tensors.iter().map(|NamedTensor { name, shape, values }| {
        let start = end;
        end += size_of_val(&values[..]);
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) })
    });
    let header = Metadata::new(metadata, infos.collect())
        .map_err(|error| error.to_string())
        .and_then(|header| serde_json::to_vec(&header).map_err(|error| error.to_string()));
    let mut header = header.map_err(|problem| Error::run(path, format!("cannot be written: {problem}")))?;
    header.resize(header.len().next_multiple_of(8), b' '); // so that the values are aligned

    let (mut draft, mut hash, mut bytes) = (Draft::create(path)?, Sha256::new(), 0);
    let mut add = |part: &[u8]| {
        hash.update(part);
        bytes += part.len() as u64;
        draft.write(part)
    };
    add(&(header.len() as u64).to_le_bytes())?;
    add(&header)?;
    for tensor in tensors {
        add(bytemuck::cast_slice(&tensor.values))?;
    }
    draft.finish()?;
    Ok(Seal { bytes, sha256: hex(&hash.finalize()) })
}

/// The seal of a file that is there, read in pieces.
pub fn seal_of(path: &Path) -> std::io::Result<Seal> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(Seal { bytes, sha256: hex(&hash.finalize()) });
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
    }
}

/// SHA-256 of bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that has been read.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the values begin.
    start: usize,
    header: Metadata,
}

impl TensorFile {
    /// Reads a file of at most `max_bytes`.
    ///
    /// Fails, before memory is taken, where it is longer or its header is; and where the header is not that of the
    /// bytes that follow.
    pub fn read(path: &Path, max_bytes: u64) -> Result<TensorFile> {
        let found = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        if found > max_bytes {
            return Err(Error::run(path, format!("has {found} bytes, expected at most {max_bytes}")));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        TensorFile::parse(path, bytes)
    }

    /// The same of bytes, which `path` names in errors.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<TensorFile> {
        let damaged = |problem: String| Error::run(path, format!("damaged: {problem}"));
        let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
        match header {
            None => return Err(damaged(format!("{} bytes are no safetensors file", bytes.len()))),
            Some(length) if length > MAX_HEADER_BYTES => {
                return Err(damaged(format!("its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")));
            }
            _ => {}
        }
        let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(TensorFile { path: path.to_owned(), bytes, start: 8 + length, header })
    }

    /// The values of a tensor, which must have the shape if one is given.
    pub fn values(&self, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>> {
        let another =
            |found: String| Error::run(&self.path, format!("is of another network than the recipe's: {found}"));
        let info = self.header.info(name).ok_or_else(|| another(format!("it has no tensor {name}")))?;
        if info.dtype != Dtype::F32 || shape.is_some_and(|shape| shape != info.shape) {
            let expected = shape.map(|shape| format!(" {shape:?}")).unwrap_or_default();
            return Err(another(format!(
                "tensor {name}: expected F32{expected}, found {:?} {:?}",
                info.dtype, info.shape
            )));
        }
        let (from, to) = info.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to);
        let bytes =
            bytes.ok_or_else(|| Error::run(&self.path, format!("damaged: tensor {name} ends outside the file")))?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

/// Bytes that a file of tensors with so many values in all may have.
pub fn max_bytes(values: usize) -> u64 {
    8 + MAX_HEADER_BYTES + 4 * values as u64
}
