//! Images in, batches out: small sets in memory, prepared ones on disk.

pub mod colours;
pub mod input;
pub mod loader;
pub mod prepare;
pub mod shards;

pub use alexnet_split_images::{bitmap, caught, decode, formats, scale, signature};

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub use alexnet_split_sources as sources;

use self::colours::Colours;
use self::shards::{Description, Shards};
use self::sources::small::{self, SmallImages, SmallSet};
use crate::disk::tensors::{self, TensorFile, max_bytes};
use crate::error::{Error, Result};
use crate::shapes::Window;
use crate::text::quoted;

/// Labelled images of one size.
#[derive(Debug)]
pub struct ImageSet {
    /// 1 or 3.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Class of each image.
    pub labels: Vec<u32>,
    store: Store,
}

/// Where images are.
#[derive(Debug)]
enum Store {
    /// N C H W, 0 to 255.
    Memory(Vec<u8>),
    /// Squares on disk.
    Shards(Shards),
}

impl ImageSet {
    /// Images of `shape` (C H W) in memory, one after another.
    pub fn in_memory([channels, height, width]: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>) -> ImageSet {
        assert_eq!(pixels.len(), labels.len() * channels * height * width, "bytes of {} images", labels.len());
        ImageSet { channels, height, width, labels, store: Store::Memory(pixels) }
    }

    /// Squares of `size` on disk.
    fn in_shards(size: usize, labels: Vec<u32>, shards: Shards) -> ImageSet {
        ImageSet { channels: 3, height: size, width: size, labels, store: Store::Shards(shards) }
    }

    /// The image of a file, made like those of the square set `like`; its label is 0.
    ///
    /// Fails, naming the file, where it cannot be decoded.
    pub fn of_file(path: &Path, like: &ImageSet) -> Result<ImageSet> {
        let (bytes, size) = (sources::read_image_file(path)?, like.height);
        if like.width != size {
            let problem =
                format!("the run's images are {size}x{}; files can be looked at by runs on squares", like.width);
            return Err(Error::data(path, problem));
        }
        let square = decode::decode(&bytes).and_then(|image| image.square(size));
        let square = square.map_err(|problem| Error::data(path, problem))?;
        let mut planes = vec![0; 3 * size * size];
        decode::planes(&square, size, [0, 0], size, &mut planes);
        if like.channels == 1 {
            // Luminance, as Pillow's "L" (ITU-R 601).
            planes = square.as_chunks::<3>().0.iter().map(|&[r, g, b]| decode::luminance(r, g, b)).collect();
        }
        Ok(ImageSet::in_memory([like.channels, size, size], planes, vec![0]))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values of one image.
    pub fn elems(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// C H W of one image.
    ///
    /// Fails, naming the file, where it cannot be read or is not what was written.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        match &self.store {
            Store::Memory(pixels) => Ok(Cow::Borrowed(&pixels[index * self.elems()..][..self.elems()])),
            Store::Shards(_) => {
                let mut planes = vec![0; self.elems()];
                self.window(index, self.height, [0, 0], self.height, &mut planes)?;
                Ok(Cow::Owned(planes))
            }
        }
    }

    /// The `side` x `side` window at `corner` of an image, scaled so that its shorter side is `size` and the centre of
    /// the longer one is kept: C x side x side. Fails as [`ImageSet::image`].
    pub fn window(&self, index: usize, size: usize, corner: [usize; 2], side: usize, out: &mut [u8]) -> Result<()> {
        let sides = [self.width, self.height];
        let failed = |problem| Error::data(format!("image {index}"), problem);
        match &self.store {
            Store::Memory(pixels) => {
                let image = &pixels[index * self.elems()..][..self.elems()];
                let planes = image.chunks_exact(self.width * self.height).zip(out.chunks_exact_mut(side * side));
                for (plane, out) in planes {
                    let plane = match sides == [size; 2] {
                        true => Cow::Borrowed(plane),
                        false => Cow::Owned(scale::plane(plane, sides, size).map_err(failed)?),
                    };
                    for (out, row) in out.chunks_exact_mut(side).zip(plane.chunks_exact(size).skip(corner[0])) {
                        out.copy_from_slice(&row[corner[1]..][..side]);
                    }
                }
            }
            Store::Shards(shards) => {
                let mut square = shards.square(index)?;
                if sides != [size; 2] {
                    square = scale::rgb(&square, sides, size).map_err(failed)?;
                }
                decode::planes(&square, size, corner, side, out);
            }
        }
        Ok(())
    }
}

/// A data set: what is trained on and what is held out.
#[derive(Debug)]
pub struct DataSet {
    /// Training images.
    pub train: ImageSet,
    /// Held-out images.
    pub held_out: ImageSet,
    /// Class names by label.
    pub classes: Vec<String>,
    /// The mean training image (C H W) and how colours vary, where preparing has found them.
    pub prepared: Option<(Vec<f32>, Colours)>,
}

impl DataSet {
    /// Reads a prepared set, or a small one as it is: CIFAR's files, or the four IDX files (plain or gzipped) and, if
    /// it is there, `classes.txt` (a name a line).
    ///
    /// Fails, naming the file, where one is missing or malformed, or a label has no class.
    pub fn load(folder: &Path) -> Result<DataSet> {
        if shards::is_prepared(folder) {
            return DataSet::load_prepared(folder);
        }
        if prepare::is_unfinished(folder) {
            return Err(Error::data(folder, "its preparation is not finished; give `prepare` again, and it goes on"));
        }
        let SmallSet { train, held_out, classes, .. } = small::load(folder)?.ok_or_else(|| not_prepared(folder))?;
        let [train, held_out] = [train, held_out].map(|SmallImages { channels, height, width, pixels, labels }| {
            ImageSet::in_memory([channels, height, width], pixels, labels)
        });
        Ok(DataSet { train, held_out, classes, prepared: None })
    }

    /// A set that has no images, only their shape (C H W) and the classes' names: for a network that is to look at files.
    pub fn without_images(shape: [usize; 3], classes: Vec<String>) -> DataSet {
        let [train, held_out] = [(); 2].map(|()| ImageSet::in_memory(shape, Vec::new(), Vec::new()));
        DataSet { train, held_out, classes, prepared: None }
    }

    fn load_prepared(folder: &Path) -> Result<DataSet> {
        let description = Description::load(folder)?;
        let [train, held_out] =
            [&description.train, &description.val].map(|shards| Shards::open(folder, &description, shards));
        let (train, held_out) = (train?, held_out?);
        if held_out.is_empty() {
            let problem = "has no held-out images, which training measures itself on; prepare the set again with \
                           --val DIR, or with a --val-fraction above 0";
            return Err(Error::data(folder, problem));
        }
        let path = folder.join(prepare::MEAN);
        if let Some(seal) = &description.mean
            && tensors::seal_of(&path).map_err(Error::io("read", &path))? != *seal
        {
            return Err(Error::data(path, shards::CHANGED));
        }
        let mean = TensorFile::open(&path, max_bytes(train.elems())).and_then(|file| file.values("mean", None));
        let mean = mean.map_err(|error| Error::data(&path, error.problem()))?;
        if mean.len() != train.elems() {
            return Err(Error::data(&path, format!("{} values, expected {}", mean.len(), train.elems())));
        }
        Ok(DataSet { train, held_out, classes: description.classes, prepared: Some((mean, description.colours)) })
    }
}

/// Says what a folder has that is no prepared set, and what to do with it.
fn not_prepared(folder: &Path) -> Error {
    const TAKES: &str = "--data takes a set that `prepare` has made, or a folder with the files of MNIST or CIFAR";
    if !folder.is_dir() {
        let what = if folder.exists() { "is a file" } else { "no such folder" };
        return Error::data(folder, format!("{what}; {TAKES}"));
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let inner: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| shards::is_prepared(path)).collect();
    if let Some(prepared) = inner.iter().min() {
        return Error::data(folder, format!("holds a prepared set; give --data {}", shell(prepared)));
    }
    if let Some(torso) = sources::torso(folder) {
        return torso.into();
    }
    let Some(form) = sources::form_of(folder) else {
        return Error::data(folder, format!("holds no data set of a known form; {TAKES}"));
    };
    let mut out = folder.components().as_path().as_os_str().to_owned();
    out.push("-prepared");
    let [from, to] = [folder, Path::new(&out)].map(shell);
    Error::data(folder, format!("not prepared yet: {form}. First alexnet-split prepare {from} {to}, then --data {to}"))
}

fn shell(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Images for the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Images {
    /// As the network reads them: N C H W.
    Ready(Vec<f32>),
    /// Scaled, N C H W bytes, and the window that the network sees of each; the device does the rest.
    Bytes(Vec<u8>, Vec<Window>),
}

/// Images and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// As many as labels.
    pub images: Images,
    /// Class of each.
    pub labels: Vec<u32>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}
