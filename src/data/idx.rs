//! IDX, the format of MNIST and Fashion-MNIST: a big-endian header (magic, sizes), then bytes; plain or gzipped.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::ImageSet;
use crate::error::{Error, Result};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;

/// Whether a folder has files of this form.
pub fn is_there(folder: &Path) -> bool {
    find(folder, "train-images-idx3-ubyte").is_ok()
}

/// Reads `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte` of `folder`, each plain or with `.gz`.
///
/// Fails, naming the file, where one is missing, has another magic, is shorter or longer than its header says, or
/// the two have different counts.
pub fn load_images(folder: &Path, prefix: &str) -> Result<ImageSet> {
    let images = find(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels = find(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let ([count, height, width], pixels) = read_idx::<3>(&images, IMAGES_MAGIC)?;
    let ([label_count], label_bytes) = read_idx::<1>(&labels, LABELS_MAGIC)?;
    if count != label_count {
        return Err(Error::data(
            labels,
            format!("{label_count} labels for the {count} images of {}", images.display()),
        ));
    }
    if count == 0 || height == 0 || width == 0 {
        return Err(Error::data(images, format!("no pixels: {count} images of {height}x{width}")));
    }
    Ok(ImageSet::in_memory([1, height, width], pixels, label_bytes.into_iter().map(u32::from).collect()))
}

fn find(folder: &Path, stem: &str) -> Result<PathBuf> {
    // Some distributions of MNIST write a dot before "idx".
    let names =
        [stem.to_owned(), format!("{stem}.gz"), stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"];
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::data(folder.join(stem), "no such file, nor with .gz; the folder must hold the four IDX files")
    })
}

/// The sizes and the bytes of a file with `N` dimensions.
fn read_idx<const N: usize>(path: &Path, magic: u32) -> Result<([usize; N], Vec<u8>)> {
    let file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    let mut reader: Box<dyn Read> = if path.extension().is_some_and(|ext| ext == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut word = |what: &str| -> Result<u32> {
        let mut bytes = [0; 4];
        reader
            .read_exact(&mut bytes)
            .map_err(|error| Error::data(path, format!("truncated or damaged in the {what}: {error}")))?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word("magic number")?;
    if found != magic {
        return Err(Error::data(
            path,
            format!("wrong magic number {found:#010x}, expected {magic:#010x}: not an IDX file of this kind"),
        ));
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = word("sizes")? as usize;
    }
    let bytes = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let Some(expected) = bytes.filter(|&bytes| bytes <= 1 << 36) else {
        return Err(Error::data(path, format!("its header claims {sizes:?} bytes; the file is damaged")));
    };
    // One byte more than is due, to notice a file that goes on.
    let mut values = Vec::new();
    let read = reader.take(expected as u64 + 1).read_to_end(&mut values);
    match read {
        Err(error) => Err(Error::data(path, format!("damaged after {} of {expected} bytes: {error}", values.len()))),
        Ok(found) if found < expected => {
            Err(Error::data(path, format!("truncated: {found} of the {expected} bytes that its header announces")))
        }
        Ok(found) if found > expected => {
            Err(Error::data(path, format!("longer than the {expected} bytes that its header announces")))
        }
        Ok(_) => Ok((sizes, values)),
    }
}
