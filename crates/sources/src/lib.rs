//! Data sets as people have them, for `prepare` to read: one file a form. [`open`] tells the forms apart.

mod agree;
mod beside;
mod cifar;
mod class_lists;
mod classes;
mod columns;
mod doubts;
mod encrypted;
pub mod error;
mod flat;
mod folders;
mod foreign;
mod forms;
mod idx;
mod imagenet;
mod kit;
mod known;
mod labels;
mod layouts;
mod listing;
mod lists;
mod matlab;
mod memory;
pub mod names;
mod notes;
mod parquet;
mod parts;
mod pickle;
mod places;
pub mod plurals;
mod roles;
mod rows;
mod shard_files;
pub mod small;
mod table;
mod table_files;
mod tars;
mod webdataset;

pub use error::{Error, Result};
pub use forms::{form_of, torso};
pub use places::read_image_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::forms::{Form, locate};
use self::small::SmallSet;
use crate::plurals::{counted, with_example};
use alexnet_split_cpu::rng::{Philox, Purpose};

/// An image that a source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it comes from, to be named when it is bad.
    pub name: String,
    /// Its class.
    pub class: u32,
}

/// What a source has of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// An image file.
    File(Vec<u8>),
    /// Bytes of the channels, one after another: C H W.
    Planes {
        /// 1 or 3.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// C x H x W.
        values: Vec<u8>,
    },
}

/// Labelled images in an order that never changes.
pub trait Source: Send + Sync {
    /// All of them.
    fn items(&self) -> &[Item];
    /// Reads some, by their numbers; `work` gets the place in `indices` and what was read, in any order, on the threads
    /// of the pool that this is called in.
    fn read(&self, indices: &[u32], work: &(dyn Fn(usize, Result<Picture>) + Sync));
}

/// Some of a source's images, in an order of their own.
#[derive(Clone)]
pub struct Part {
    source: Arc<dyn Source>,
    indices: Vec<u32>,
}

impl Part {
    /// All images of a source.
    pub fn all(source: Arc<dyn Source>) -> Part {
        let indices = (0..source.items().len() as u32).collect();
        Part { source, indices }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// One image's name and class.
    pub fn item(&self, index: usize) -> &Item {
        &self.source.items()[self.indices[index] as usize]
    }

    /// See [`Source::read`].
    pub fn read(&self, range: std::ops::Range<usize>, work: &(dyn Fn(usize, Result<Picture>) + Sync)) {
        self.source.read(&self.indices[range], work);
    }

    /// Parts off `fraction` of every class, rounded down but at least one image of a class that has several (of 0 none),
    /// drawn by the number of the image.
    fn split(self, fraction: f64) -> [Part; 2] {
        let mut by_class: Vec<Vec<u32>> = Vec::new();
        for &index in &self.indices {
            let class = self.source.items()[index as usize].class as usize;
            by_class.resize_with(by_class.len().max(class + 1), Vec::new);
            by_class[class].push(index);
        }
        let [mut train, mut val] = [Vec::new(), Vec::new()];
        for (class, indices) in by_class.iter().enumerate() {
            let least = usize::from(indices.len() > 1 && fraction > 0.);
            let count = ((indices.len() as f64 * fraction) as usize).max(least);
            let order = Philox::new(0, Purpose::Split, class as u32).permutation(indices.len(), 0);
            for (place, index) in order.into_iter().enumerate() {
                let part = if place < count { &mut val } else { &mut train };
                part.push(indices[index as usize]);
            }
        }
        [train, val].map(|mut indices| {
            indices.sort_unstable();
            Part { source: self.source.clone(), indices }
        })
    }
}

/// A data set as it was found.
pub struct Sources {
    /// The name of its form.
    pub form: &'static str,
    /// To train on.
    pub train: Part,
    /// To be held out.
    pub val: Part,
    /// Names by class.
    pub classes: Vec<String>,
    /// What was seen and left alone, for people.
    pub notes: Vec<String>,
    /// Folders that were searched for images, also in folders below them.
    pub searched: Vec<PathBuf>,
}

/// Images and their classes before it is known what is held out.
struct Found {
    form: &'static str,
    train: Arc<dyn Source>,
    /// `None` where the set is in one piece.
    val: Option<Arc<dyn Source>>,
    classes: Vec<String>,
    notes: Vec<String>,
}

/// What the user says about a data set, where its files do not tell or tell it wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceOptions {
    /// Share of each class to hold out where the set is in one piece; 0 holds out none.
    pub val_fraction: f64,
    /// The folder to train on.
    pub train: Option<PathBuf>,
    /// The folder to hold out.
    pub val: Option<PathBuf>,
    /// A file with the class names, one a line, in the order of their numbers.
    pub classes: Option<PathBuf>,
    /// Where the class of an image is written, if not in the name of its folder.
    pub classes_from: Option<ClassesFrom>,
    /// The column of a table that holds the images.
    pub image_column: Option<String>,
    /// The column of a table that holds the labels.
    pub label_column: Option<String>,
}

/// Where the class of an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassesFrom {
    /// In the name of its folder.
    Folders,
    /// In its own name, before the first dot or digit: `cat.12.jpg`, `tabby_cat_7.jpg`.
    Names,
}

impl SourceOptions {
    /// With nothing said but the share to hold out.
    pub fn holding_out(val_fraction: f64) -> SourceOptions {
        SourceOptions { val_fraction, ..SourceOptions::default() }
    }
}

/// Finds the form of a data set and its images.
///
/// Fails, naming the file or folder, where it has no known form, its parts do not fit each other, or it is not clear what
/// they are.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Sources> {
    if !path.exists() {
        return Err(Error::data(path, "there is no such file or folder"));
    }
    let mut notes = Vec::new();
    let (path, form) = locate(path, options, &mut notes)?;
    let is_searched = matches!(form, Form::Folders);
    let found = read(&path, form, options)?;
    notes.extend(found.notes);
    let Found { form: name, train, val, classes, .. } = found;
    let train = Part::all(train);
    let [train, val] = match val {
        Some(val) => [train, Part::all(val)],
        None => train.split(options.val_fraction),
    };
    if train.is_empty() {
        return Err(Error::data(path, format!("{name}: there are no images to train on")));
    }
    if let [only] = &classes[..] {
        let problem = format!("{name}: has one class, {only:?}; training needs two at least");
        return Err(Error::data(path, problem));
    }
    if val.is_empty() && options.val_fraction > 0. {
        let problem = format!("{name}: there are no images to hold out; a class needs two images at least");
        return Err(Error::data(path, problem));
    }
    if let Some(item) = part_items(&train, &val).find(|item| item.class as usize >= classes.len()) {
        return Err(Error::data(&item.name, format!("class {} of {} classes", item.class, classes.len())));
    }
    notes.extend(untrained(&train, &classes));
    notes.extend(classes::alike(&classes));
    let mut searched = Vec::new();
    if is_searched {
        for given in [&options.train, &options.val].into_iter().flatten() {
            searched.push(layouts::resolve(&path, given)?);
        }
        searched.push(path);
    }
    Ok(Sources { form: name, train, val, classes, notes, searched })
}

/// Says which classes have no image to train on, if any: the list of all classes may be too long to show them.
fn untrained(train: &Part, classes: &[String]) -> Option<String> {
    let mut has = vec![false; classes.len()];
    (0..train.len()).for_each(|index| has[train.item(index).class as usize] = true);
    let mut without = classes.iter().zip(has).filter(|(_, has)| !has).map(|(class, _)| class);
    let first = without.next()?;
    Some(with_example(1 + without.count(), "class[es] without an image to train on", &format!("{first:?}")))
}

fn part_items<'a>(train: &'a Part, val: &'a Part) -> impl Iterator<Item = &'a Item> {
    [train, val].into_iter().flat_map(|part| (0..part.len()).map(|index| part.item(index)))
}

/// Reads a set of a known form.
fn read(path: &Path, form: Form, options: &SourceOptions) -> Result<Found> {
    let mut found = match form {
        Form::Folders => {
            let opened = folders::open(path, options);
            // What has images is not foreign, whatever lies beside them.
            let foreign = || if listing::holds_images(path) { None } else { foreign::explain(path) };
            return opened.map_err(|error| foreign().unwrap_or(error));
        }
        Form::Official => imagenet::open(path)?,
        Form::Small => {
            let gone = || Error::data(path, "its files have gone meanwhile");
            let SmallSet { form, train, held_out, classes } = small::load(path)?.ok_or_else(gone)?;
            let [train, val]: [Arc<dyn Source>; 2] = [("training image", train), ("held-out image", held_out)]
                .map(|(name, set)| -> Arc<dyn Source> { Arc::new(memory::Memory::new(name, set)) });
            Found { form, train, val: Some(val), classes, notes: Vec::new() }
        }
        Form::Tables(files) => parquet::open(path, files, options)?,
        Form::Tars(files) => webdataset::open(path, files, options)?,
    };
    if let Some(list) = &options.classes {
        let names = classes::Classes::read(list)?.names;
        if names.len() != found.classes.len() {
            let problem =
                format!("lists {}, but the set has {}", counted(names.len(), "class[es]"), found.classes.len());
            return Err(Error::data(list, problem));
        }
        found.classes = names;
    }
    Ok(found)
}
