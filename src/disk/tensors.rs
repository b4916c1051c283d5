//! Files of named f32 tensors, in the safetensors format: 8 bytes of the header's length, a JSON header, the values.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::FileWriter;
use crate::error::{Error, Result};

/// Headers that are longer are refused before they are parsed; ours take about 100 bytes per tensor.
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

/// A file's digest: length and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Writes a file, flushed to disk, and returns its digest. Without metadata, the same tensors give the same
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

    let (mut writer, mut hash, mut bytes) = (FileWriter::create(path)?, Sha256::new(), 0);
    let mut add = |part: &[u8]| {
        hash.update(part);
        bytes += part.len() as u64;
        writer.write(part)
    };
    add(&(header.len() as u64).to_le_bytes())?;
    add(&header)?;
    for tensor in tensors {
        add(bytemuck::cast_slice(&tensor.values))?;
    }
    writer.finish()?;
    Ok(Seal { bytes, sha256: hex(&hash.finalize()) })
}

/// The digest of a file that is there, read in pieces.
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

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file whose header has been read; tensors are read when they are asked for.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// The offset of the values.
    start: u64,
    header: Metadata,
}

impl TensorFile {
    /// Opens a file of at most `max_bytes`.
    ///
    /// Fails, before memory is taken, where it is longer or its header is; and where the header is not that of the
    /// bytes that follow.
    pub fn open(path: &Path, max_bytes: u64) -> Result<TensorFile> {
        let damaged = |problem: String| Error::run(path, format!("damaged: {problem}"));
        let file = File::open(path).map_err(Error::io("read", path))?;
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        if found > max_bytes {
            return Err(Error::run(path, format!("has {found} bytes, expected at most {max_bytes}")));
        }
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0)
            .map_err(|_| damaged(format!("{found} bytes, too short for a safetensors file")))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(damaged(format!("its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).map_err(|_| damaged("it ends within its header".into()))?;
        // Checks that the tensors follow one another without gaps, and that shapes and lengths agree.
        let header: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        let (start, end) = (8 + length, header.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0));
        if start.checked_add(end as u64) != Some(found) {
            return Err(damaged(format!("{found} bytes, its header says {start} + {end}")));
        }
        Ok(TensorFile { path: path.to_owned(), file, start, header })
    }

    /// The values of a tensor, which must have the shape if one is given.
    pub fn values(&self, name: &str, shape: Option<&[usize]>) -> Result<Vec<f32>> {
        let another =
            |found: String| Error::run(&self.path, format!("is of another network than the recipe's: {found}"));
        let info = self.header.info(name).ok_or_else(|| another(format!("it has no tensor {name}")))?;
        if info.dtype != Dtype::F32 || shape.is_some_and(|shape| shape != info.shape) {
            let expected = shape.map(|shape| format!(" {shape:?}")).unwrap_or_default();
            let found = format!("found {:?} {:?}", info.dtype, info.shape);
            return Err(another(format!("tensor {name}: expected F32{expected}, {found}")));
        }
        let mut values = vec![0f32; (info.data_offsets.1 - info.data_offsets.0) / size_of::<f32>()];
        let from = self.start + info.data_offsets.0 as u64;
        let read = self.file.read_exact_at(bytemuck::cast_slice_mut(&mut values), from);
        read.map_err(Error::io("read", &self.path))?;
        // The format is little-endian.
        values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
        Ok(values)
    }
}

/// Bytes that a file of tensors with so many values in all may have.
pub fn max_bytes(values: usize) -> u64 {
    8 + MAX_HEADER_BYTES + 4 * values as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Purpose};

    fn tensors() -> Vec<NamedTensor> {
        let tensor = |name: &str, shape: &[usize]| {
            let values = (0..shape.iter().product::<usize>()).map(|i| i as f32 - 0.5).collect();
            NamedTensor { name: name.into(), shape: shape.to_vec(), values }
        };
        vec![tensor("w", &[3, 5]), tensor("momentum.w", &[3, 5]), tensor("b", &[3])]
    }

    #[test]
    fn what_is_written_is_read_and_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let seal = write(&path, &tensors(), None).unwrap();
        assert_eq!(seal_of(&path).unwrap(), seal);
        let file = TensorFile::open(&path, max_bytes(33)).unwrap();
        for tensor in tensors() {
            assert_eq!(file.values(&tensor.name, Some(&tensor.shape)).unwrap(), tensor.values);
        }
        let bytes = std::fs::read(&path).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("b").unwrap().data(), bytemuck::cast_slice::<f32, u8>(&tensors()[2].values));
        let message = |name: &str, shape: &[usize]| file.values(name, Some(shape)).unwrap_err().to_string();
        assert!(message("w", &[5, 3]).contains("tensor w: expected F32 [5, 3], found F32 [3, 5]"));
        assert!(message("v", &[3]).contains("no tensor v"));
        assert!(TensorFile::open(&path, bytes.len() as u64 - 1).is_err(), "longer than expected");
    }

    #[test]
    fn hostile_files_are_refused_without_memory_or_panics() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        write(&path, &tensors(), None).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let header = |json: &str| [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let huge = r#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
        let far = r#"{"w":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,16000000000]}}"#;
        let back = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#;
        let long = [&(1u64 << 40).to_le_bytes()[..], &whole[8..]].concat();
        let cases = [&whole[..4], &whole[..100], &whole[..whole.len() - 1], &long];
        for bytes in cases.into_iter().map(<[u8]>::to_vec).chain([huge, far, back, "{", "[]"].map(header)) {
            std::fs::write(&path, &bytes).unwrap();
            let Err(error) = TensorFile::open(&path, max_bytes(33)) else { panic!("{bytes:?} is taken") };
            assert!(error.to_string().contains("damaged"), "{error}");
        }
        let rng = Philox::new(1, Purpose::Check, 0);
        for round in 0..3000 {
            let mut bytes = whole.clone();
            for change in 0..1 + rng.below([round, 0, 0, 0], 4) {
                let at = rng.below([round, 1, change, 0], bytes.len() as u32) as usize;
                bytes[at] = rng.below([round, 2, change, 0], 256) as u8;
            }
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(file) = TensorFile::open(&path, max_bytes(33)) {
                let _ = ["w", "momentum.w", "b"].map(|name| file.values(name, None).map(|values| values.len()));
            }
        }
    }
}
