//! IDX, the format of MNIST and its relatives: a big-endian header (magic, sizes), then values; plain or gzipped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::known::signature_of;
use super::names;
use super::small::{Contents, SmallImages};
use crate::error::{Error, Result};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
/// QMNIST's labels: a row of 32-bit numbers for each image, of which the first is the class.
const LABEL_ROWS_MAGIC: u32 = 0x0000_0c02;

const IMAGES: &str = "images-idx3-ubyte";
const LABELS: [&str; 2] = ["labels-idx1-ubyte", "labels-idx2-int"];

/// What the held-out part is called.
const TEST: [&str; 2] = ["t10k", "test"];

/// The files of a set.
pub struct Files {
    folder: PathBuf,
    /// What stands before `train-images-idx3-ubyte`: nothing, `qmnist-`, `emnist-letters-`.
    prefix: String,
}

/// The set in a folder, or where torchvision and EMNIST's archive put it: in `raw`, `MNIST/raw` or `gzip`. `None` where
/// there is none.
///
/// Fails where there are several.
pub fn find(folder: &Path) -> Result<Option<Files>> {
    let mut places = vec![folder.to_owned(), folder.join("raw"), folder.join("gzip")];
    let mut below: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    below.sort();
    places.extend(below.iter().map(|path| path.join("raw")));
    let mut sets: Vec<Files> = places.iter().flat_map(|folder| sets_in(folder)).collect();
    if let [first, second, ..] = &sets[..] {
        let names: Vec<String> = sets.iter().map(|set| set.path("train", IMAGES).display().to_string()).collect();
        let advice = match first.folder == second.folder {
            true => "move the files of the others elsewhere",
            false => "give the folder of one",
        };
        return Err(Error::data(folder, format!("holds several sets: {}; {advice}", names.join(", "))));
    }
    Ok(sets.pop())
}

/// The sets whose training images lie in a folder.
fn sets_in(folder: &Path) -> Vec<Files> {
    let mut prefixes = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().replace(".idx", "-idx");
        let prefix = name.trim_end_matches(".gz").strip_suffix(IMAGES).and_then(|name| name.strip_suffix("train-"));
        prefixes.extend(prefix.map(str::to_owned));
    }
    prefixes.into_iter().map(|prefix| Files { folder: folder.to_owned(), prefix }).collect()
}

impl Files {
    /// A file's name without what may vary.
    fn path(&self, part: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{}{part}-{kind}", self.prefix))
    }

    /// The file of one of these parts and kinds.
    fn file(&self, parts: &[&str], kinds: &[&str]) -> Result<PathBuf> {
        for (part, kind) in parts.iter().flat_map(|part| kinds.iter().map(move |kind| (part, kind))) {
            let path = self.path(part, kind);
            let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Some distributions of MNIST write a dot before "idx"; Kaggle's puts each file into a folder of its name.
            for name in [stem.clone(), stem.replace("-idx", ".idx")] {
                let names = [name.clone(), format!("{name}.gz"), format!("{name}/{name}")];
                if let Some(path) = names.iter().map(|name| self.folder.join(name)).find(|path| path.is_file()) {
                    return Ok(path);
                }
            }
        }
        let problem = "no such file, nor with .gz; a set of this form has four: images and labels to train on (train-) and \
                       to hold out (t10k- or test-)";
        Err(Error::data(self.path(parts[0], kinds[0]), problem))
    }

    /// Reads the four files.
    ///
    /// Fails, naming the file, where one is missing, has another magic, is shorter or longer than its header says, or
    /// images and labels have different counts.
    pub fn load(&self) -> Result<Contents> {
        let (train, test) = (self.part(&["train"])?, self.part(&TEST)?);
        let listed = Some(self.folder.join("classes.txt")).filter(|path| path.is_file());
        let listed = || listed.map(|path| names::read(&path).map(|names| (path, names))).transpose();
        let names = match self.mapping()? {
            Some(names) => Some(names),
            None => listed()?,
        };
        let form = if self.is_turned() { "IDX of EMNIST, turned upright" } else { "IDX" };
        Ok(Contents { form, train, held_out: test, names })
    }

    /// Whether rows and columns are exchanged, as in all files of EMNIST.
    fn is_turned(&self) -> bool {
        self.prefix.starts_with("emnist-")
    }

    /// The names of EMNIST's classes: a line has a label and the codes of its letters.
    fn mapping(&self) -> Result<Option<(PathBuf, Vec<String>)>> {
        let path = self.folder.join(format!("{}mapping.txt", self.prefix));
        if !self.is_turned() || !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let mut names = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let numbers: Option<Vec<u8>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
            let Some([label, codes @ ..]) = numbers.as_deref() else {
                return Err(Error::data(path, format!("{line:?}: expected a label and the codes of its letters")));
            };
            // Labels of EMNIST's letters begin at 1.
            names.resize(names.len().max(usize::from(*label) + 1), "no class".to_owned());
            names[usize::from(*label)] = codes.iter().map(|code| char::from(*code)).collect();
        }
        Ok(Some((path, names)))
    }

    fn part(&self, parts: &[&str]) -> Result<SmallImages> {
        let (images, labels) = (self.file(parts, &[IMAGES])?, self.file(parts, &LABELS)?);
        let ([count, height, width], mut pixels) = read_idx::<3>(&images, IMAGES_MAGIC, 1)?;
        let classes = if labels.to_string_lossy().contains(LABELS[1]) {
            let ([_, columns], bytes) = read_idx::<2>(&labels, LABEL_ROWS_MAGIC, 4)?;
            let rows = bytes.chunks_exact((columns * 4).max(4));
            rows.map(|row| u32::from_be_bytes([row[0], row[1], row[2], row[3]])).collect()
        } else {
            read_idx::<1>(&labels, LABELS_MAGIC, 1)?.1.into_iter().map(u32::from).collect::<Vec<u32>>()
        };
        if count != classes.len() {
            let problem = format!("{} labels for the {count} images of {}", classes.len(), images.display());
            return Err(Error::data(labels, problem));
        }
        if count == 0 || height == 0 || width == 0 {
            return Err(Error::data(images, format!("no pixels: {count} images of {height}x{width}")));
        }
        if !self.is_turned() {
            return Ok(SmallImages::new([1, height, width], pixels, classes));
        }
        for image in pixels.chunks_exact_mut(height * width) {
            let stored = image.to_vec();
            image.iter_mut().enumerate().for_each(|(at, pixel)| *pixel = stored[at % height * width + at / height]);
        }
        Ok(SmallImages::new([1, width, height], pixels, classes))
    }
}

/// The sizes and the bytes of a file with `N` dimensions, whose values have so many bytes.
fn read_idx<const N: usize>(path: &Path, magic: u32, value_bytes: usize) -> Result<([usize; N], Vec<u8>)> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    // The bytes tell, not the name: browsers unpack what they fetch, or give it another name.
    let is_gzip = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut word = |what: &str| -> Result<u32> {
        let mut bytes = [0; 4];
        reader
            .read_exact(&mut bytes)
            .map_err(|error| Error::data(path, format!("truncated or damaged in the {what}: {error}")))?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word("magic number")?;
    if found != magic {
        let problem = match signature_of(path).filter(|_| !is_gzip) {
            Some(found) => format!("{}, not an IDX file; {}", found.name, found.advice),
            None => format!("wrong magic number {found:#010x}, expected {magic:#010x}: not an IDX file of this kind"),
        };
        return Err(Error::data(path, problem));
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = word("sizes")? as usize;
    }
    let bytes = sizes.iter().try_fold(value_bytes, |product, &size| product.checked_mul(size));
    let Some(expected) = bytes.filter(|&bytes| bytes <= 1 << 36) else {
        return Err(Error::data(path, format!("its header claims {sizes:?} values; the file is damaged")));
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
