//! From a data set as people have it to shards of small squares (paper, section 2), once.
//!
//! Images are made in parallel, shards in order; after each, what has been done is written down, so that an interrupted
//! preparation goes on where it was. Memory holds one shard.

use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::caught::caught;
use super::colours::Sums;
use super::decode::{Rgb, decode};
use super::shards::{self, Bad, Description, Entry, Shard, Store};
use super::sources::{self, Part, Picture, Sources};
use crate::disk::tensors::{self, NamedTensor};
use crate::disk::{Lock, write_whole};
use crate::error::{Error, Result};
use crate::text::counted;

/// Images a shard: 20 MB of JPEG at 256x256, or 200 MB of raw pixels.
const SHARD_IMAGES: usize = 1024;

/// What has been done so far is written to it.
const PROGRESS: &str = "prepare.json";

/// The mean training image's file.
pub const MEAN: &str = "mean.safetensors";

/// How to prepare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Rows and columns of the squares.
    pub size: usize,
    /// How they are stored.
    pub store: Store,
    /// Of JPEG.
    pub quality: u8,
    /// How many images may be left out because they are damaged; the next one is an error.
    pub max_bad_images: usize,
}

/// Who watches.
pub trait Observer: Sync {
    /// So many of all images are done, at first those of an earlier run; threads call it, and not in order.
    fn prepared(&self, done: usize, total: usize);
}

/// What an interrupted preparation leaves behind.
#[derive(Serialize, Deserialize)]
struct Progress {
    /// Of what: another set or other options cannot go on with it.
    source: String,
    /// SHA-256 of the names and classes of all images.
    images: String,
    options: Options,
    shards: [Vec<Shard>; 2],
    sums: Sums,
    bad: Vec<Bad>,
}

impl Progress {
    fn save(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(PROGRESS), &serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Prepares `sources`, which came from `source`, into `folder`.
///
/// Fails where the folder holds something else, an image is damaged and may not be left out, or the disk is full.
pub fn prepare(
    source: &Path,
    sources: &Sources,
    folder: &Path,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Description> {
    outside(sources, folder)?;
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let _claim = claim(folder)?;
    let mut progress = begin(source, sources, folder, options)?;
    let parts = [("train", &sources.train), ("val", &sources.val)];
    let total = sources.train.len() + sources.val.len();
    let of_shards = |part: &Part, shards: &[Shard]| part.len().min(shards.len() * SHARD_IMAGES);
    let earlier = of_shards(&sources.train, &progress.shards[0]) + of_shards(&sources.val, &progress.shards[1]);
    let done = AtomicUsize::new(earlier);
    observer.prepared(earlier, total);
    for (number, (name, part)) in parts.into_iter().enumerate() {
        for (shard, first) in (0..part.len()).step_by(SHARD_IMAGES).enumerate() {
            if shard < progress.shards[number].len() {
                continue;
            }
            let count = SHARD_IMAGES.min(part.len() - first);
            let made = Made::new(count);
            part.read(first..first + count, &|place, picture| {
                let name = &part.item(first + place).name;
                made.add(place, make(picture, name, options, number == 0, &made.sums));
                observer.prepared(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            });
            let entries = made.finish(part, first, options, &mut progress)?;
            let shard = format!("{name}-{shard:06}");
            let shard = shards::write_shard(folder, &shard, first, options.store, &entries)?;
            progress.shards[number].push(shard);
            progress.save(folder)?;
        }
    }
    finish(source, sources, folder, options, progress)
}

/// Fails where [`prepare`] would fail before it reads an image, and writes nothing.
pub fn check(source: &Path, sources: &Sources, folder: &Path, options: &Options) -> Result<()> {
    outside(sources, folder)?;
    if folder.exists() {
        let _claim = claim(folder)?;
        earlier(source, sources, folder, options)?;
    }
    // A file without a name, in the folder or in that in which it would be made.
    let absolute = std::path::absolute(folder).map_err(Error::io("find", folder))?;
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(folder);
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let made = match rustix::fs::open(there, flags, Mode::RUSR | Mode::WUSR) {
        // Some file systems have no such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = there.join(format!(".alexnet-split-{}", std::process::id()));
            File::create_new(&path).and_then(|_| std::fs::remove_file(path))
        }
        made => made.map(drop).map_err(std::io::Error::from),
    };
    made.map_err(Error::io("write into", there))
}

/// Fails where the folder lies within the source, of which it would be taken for a part.
fn outside(sources: &Sources, folder: &Path) -> Result<()> {
    // Files of the forms that are in one folder are not looked for below it.
    for searched in &sources.searched {
        if real(folder)?.starts_with(real(searched)?) {
            let problem = "lies within the source, and would be taken for a part of it; give one beside it";
            return Err(Error::data(folder, problem));
        }
    }
    Ok(())
}

/// The path without links; of what is not there, the part that is.
fn real(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
    let found = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut real)) = found else { return Ok(absolute) };
    for part in absolute.strip_prefix(above).unwrap_or(Path::new("")).components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            part => real.push(part),
        }
    }
    Ok(real)
}

/// Keeps other processes from preparing into the folder until it is dropped.
fn claim(folder: &Path) -> Result<Option<Lock>> {
    match Lock::wait(File::open(folder).map_err(Error::io("open", folder))?) {
        Ok(None) => Err(Error::data(folder, "is being prepared by another process")),
        // Where folders cannot be locked nobody is kept out.
        claim => Ok(claim.ok().flatten()),
    }
}

/// Whether a preparation into a folder was begun and not finished.
pub fn is_unfinished(folder: &Path) -> bool {
    folder.join(PROGRESS).is_file()
}

/// What tells a set from others: its classes, and names and classes of its images, wherever it lies.
fn identity(source: &Path, sources: &Sources) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str, class: u32| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
        hash.update(class.to_le_bytes());
    };
    sources.classes.iter().for_each(|class| add(class, 0));
    let source = source.display().to_string();
    for part in [&sources.train, &sources.val] {
        add("part", 0);
        for item in (0..part.len()).map(|index| part.item(index)) {
            let name = item.name.strip_prefix(&source).unwrap_or(&item.name);
            add(name.trim_start_matches('/'), item.class);
        }
    }
    tensors::hex(&hash.finalize())
}

/// The progress of an earlier run, or a new one.
fn begin(source: &Path, sources: &Sources, folder: &Path, options: &Options) -> Result<Progress> {
    if let Some(progress) = earlier(source, sources, folder, options)? {
        return Ok(progress);
    }
    let (options, shards) = (options.clone(), Default::default());
    let (images, source) = (identity(source, sources), source.display().to_string());
    let progress = Progress { source, images, options, shards, sums: Sums::default(), bad: Vec::new() };
    progress.save(folder)?;
    Ok(progress)
}

/// The progress of an earlier run in a folder; `None` where the folder is empty.
///
/// Fails where it holds something else.
fn earlier(source: &Path, sources: &Sources, folder: &Path, options: &Options) -> Result<Option<Progress>> {
    if shards::is_prepared(folder) {
        return Err(Error::data(folder, "holds a prepared set already; give another folder"));
    }
    let path = folder.join(PROGRESS);
    if !path.is_file() {
        let mut entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
        return match entries.next() {
            Some(_) => Err(Error::data(folder, "is not empty; give a new folder")),
            None => Ok(None),
        };
    }
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let progress: Progress = serde_json::from_slice(&bytes)
        .map_err(|error| Error::data(&path, format!("damaged ({error}); give another folder")))?;
    let Options { size, store, quality, max_bad_images } = progress.options;
    let options = Options { max_bad_images, ..options.clone() };
    if progress.options != options {
        let store = format!("{store:?}").to_lowercase();
        let problem = format!(
            "holds the beginning of {} with --size {size} --store {store} --quality {quality}; go on with the same, or \
             give another folder",
            progress.source
        );
        return Err(Error::data(folder, problem));
    }
    if progress.images != identity(source, sources) {
        let problem = format!(
            "holds the beginning of {}, whose classes or images were others; give it as it was, or another folder",
            progress.source
        );
        return Err(Error::data(folder, problem));
    }
    Ok(Some(progress))
}

/// A picture to the bytes that are stored.
fn make(
    picture: Result<Picture, sources::Error>,
    name: &str,
    options: &Options,
    counts: bool,
    sums: &Mutex<Vec<Sums>>,
) -> Result<Vec<u8>> {
    let bad = |problem: String| Error::data(name, problem);
    let picture = picture?;
    let compressed = caught(|| compress(&picture, options, counts));
    let defect = || Err("reading it failed at an internal error (a defect of the decoder)".into());
    let (stored, square) = compressed.unwrap_or_else(defect).map_err(bad)?;
    if let Some(square) = square {
        // Each thread takes one of the sums and gives it back.
        let lock = || sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut own = lock().pop().unwrap_or_default();
        own.add(&square);
        lock().push(own);
    }
    Ok(stored)
}

/// A picture to the bytes that are stored, and if they are wanted its pixels: rows of red, green, blue.
pub fn compress(
    picture: &Picture,
    options: &Options,
    pixels: bool,
) -> std::result::Result<(Vec<u8>, Option<Vec<u8>>), String> {
    let image = match picture {
        Picture::File(bytes) => decode(bytes)?,
        Picture::Planes { channels, height, width, values } => Rgb::from_planes(*channels, *height, *width, values),
    };
    let square = image.square(options.size)?;
    let stored = shards::encode(&square, options.size, options.store, options.quality)?;
    Ok((stored, pixels.then_some(square)))
}

/// The images of a shard while they are made.
struct Made {
    images: Vec<Mutex<Option<Result<Vec<u8>>>>>,
    sums: Mutex<Vec<Sums>>,
}

impl Made {
    fn new(count: usize) -> Self {
        Made { images: (0..count).map(|_| Mutex::new(None)).collect(), sums: Mutex::default() }
    }

    fn add(&self, place: usize, image: Result<Vec<u8>>) {
        *self.images[place].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(image);
    }

    /// The entries in order; damaged images go to the list of bad ones, or are an error.
    fn finish(self, part: &Part, first: usize, options: &Options, progress: &mut Progress) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (place, image) in self.images.into_iter().enumerate() {
            let item = part.item(first + place);
            let image = image.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            match image.unwrap_or_else(|| Err(Error::data(&item.name, "was not read"))) {
                Ok(bytes) => entries.push(Entry { name: item.name.clone(), class: item.class, bytes }),
                Err(error) if progress.bad.len() < options.max_bad_images => {
                    progress.bad.push(Bad { name: item.name.clone(), problem: error.problem() });
                }
                Err(error) => return Err(refuse(error, progress.bad.len())),
            }
        }
        let sums = self.sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        sums.iter().for_each(|sums| progress.sums.merge(sums));
        Ok(entries)
    }
}

/// Says what to do about a damaged image.
fn refuse(error: Error, skipped: usize) -> Error {
    let advice = match skipped {
        0 => "--bad-images skip leaves such images out".to_owned(),
        _ => {
            let skipped = counted(skipped, "image[s] [was|were]");
            format!("{skipped} skipped before; give a higher --max-bad-images to skip more")
        }
    };
    match error {
        Error::Data { path, problem } => Error::Data { path, problem: format!("{problem}; {advice}") },
        Error::Io { action, path, source } => {
            let source = std::io::Error::new(source.kind(), format!("{source}; {advice}"));
            Error::Io { action, path, source }
        }
        other => other,
    }
}

/// Writes what makes the set whole.
fn finish(
    source: &Path,
    sources: &Sources,
    folder: &Path,
    options: &Options,
    progress: Progress,
) -> Result<Description> {
    let Progress { shards: [train, val], sums, bad, .. } = progress;
    for (name, part, shards) in [("train", &sources.train, &train), ("val", &sources.val, &val)] {
        if !part.is_empty() && shards.iter().all(|shard| shard.images == 0) {
            return Err(Error::data(folder, format!("not one image of {name} could be used")));
        }
    }
    let shape = vec![3, options.size, options.size];
    let mean = NamedTensor { name: "mean".into(), shape, values: sums.mean_image() };
    let mean = Some(tensors::write(&folder.join(MEAN), &[mean], None)?);
    let (format, version) = Description::header();
    let description = Description {
        format,
        version,
        classes: sources.classes.clone(),
        size: options.size,
        store: options.store,
        quality: options.quality,
        train,
        val,
        colours: sums.colours(),
        mean,
        source: source.display().to_string(),
        form: sources.form.to_owned(),
        bad_images: bad,
    };
    description.save(folder)?;
    let progress = folder.join(PROGRESS);
    std::fs::remove_file(&progress).map_err(Error::io("remove", &progress))?;
    Ok(description)
}
