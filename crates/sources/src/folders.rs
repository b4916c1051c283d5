//! Sets of image files: a folder for each class, with images anywhere below it, or images with a file of their labels, or
//! with their classes in their names.
//!
//! Where a set has its parts is in `layouts.rs`. Classes are in the order of their names' bytes, images in that of their
//! paths. Links are followed, but not round in circles. What is not read is in the notes, a line for each kind.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::{self, Classes};
use super::labels::Labels;
use super::layouts::{self, Images, Layout, is_flat, is_same};
use super::listing::{Kind, Listing, holds_images, is_image, list, name_of};
use super::notes::Notes;
use super::places::{Place, Places};
use super::{ClassesFrom, Found, Source, SourceOptions};
use super::{agree, doubts, flat, kit};
use crate::error::{Error, Result};
use crate::known::signature_of;
use crate::plurals::{counted, with_example};

/// What image files are called; what they are is told by their bytes.
pub const ENDINGS: [&str; 13] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pnm"];

/// Whether a file's name is that of an image.
pub fn is_called_an_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}

/// Images by class.
#[derive(Default)]
pub struct Labelled {
    /// What folders and labels call the classes.
    pub classes: Vec<String>,
    pub places: Places,
    /// Whether no image lies directly in the folder of its class, and those of a class lie in several folders.
    pub is_deep: bool,
    /// For each label of a file the image that has it.
    pub labelled: Vec<Option<String>>,
    /// What people call the classes, if what tells the classes tells that, too.
    pub names: Option<Vec<String>>,
}

/// Opens a set of image files.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Found> {
    if !path.is_dir() {
        let found = signature_of(path);
        let what = found.map_or("is a file".into(), |found| format!("is {}: {}", found.name, found.advice));
        let problem = format!("{what}; `prepare` takes a folder with a data set, and its --help lists the forms");
        return Err(Error::data(path, problem));
    }
    let mut notes = Notes::default();
    let Layout { name, train: train_images, val: val_images, names, lists } = layouts::find(path, options, &mut notes)?;
    if let Some(val) = val_images.as_ref().filter(|val| is_same(&val.folder, &train_images.folder)) {
        let problem = format!(
            "is {} by a link: it would be trained on and held out; give another folder with --val DIR, or one part alone",
            train_images.folder.display()
        );
        return Err(Error::data(&val.folder, problem));
    }
    let list = options.classes.as_deref().map(Classes::read).transpose()?;
    let train = read(&train_images, options, list.as_ref(), &mut notes)?;
    doubts::check(&train, &train_images, options, &mut notes)?;
    classes::note_alike(&train.classes, &mut notes);
    let (labelled, mut places) = (train.labelled, train.places);
    let known = list.unwrap_or_else(|| Classes::found(train.classes));
    agree::check(&train_images, &places, &known, &mut notes)?;
    let mut val = match &val_images {
        Some(images) => Some(read(images, options, Some(&known), &mut notes)?),
        None => None,
    };
    if let (Some(val), Some(images)) = (&val, &val_images) {
        agree::check(images, &val.places, &known, &mut notes)?;
        if let Some(labels) = train_images.labels.as_ref().filter(|labels| images.labels.as_ref() == Some(labels)) {
            one_part_each(labels, &labelled, &val.labelled)?;
        }
    }
    let mut is_listed = false;
    if let Some(lists) = lists
        && let Some([train, held_out]) = lists.apply(&train_images.folder, &places, &known.keys, &mut notes)?
    {
        (places, val, is_listed) = (train, Some(Labelled { places: held_out, ..Labelled::default() }), true);
    }
    if let Some(val) = &val {
        note_empty_classes(&val.places, &known, &mut notes);
    }
    let form = name.unwrap_or(match (&train_images.labels, options.classes_from, &val) {
        (Some(_), ..) => "images with a file of labels",
        (_, Some(ClassesFrom::Names), _) => "images with their classes in their names",
        _ if is_listed => "a folder a class, with lists of the parts",
        (_, _, Some(_)) => "train and val with a folder a class",
        _ => "a folder a class",
    });
    let classes = match names.filter(|_| known.listed_in.is_none()) {
        Some(names) => display_names(&known, &names, &mut notes),
        None if known.listed_in.is_none() => val.as_mut().and_then(|val| val.names.take()).unwrap_or(known.names),
        None => known.names,
    };
    let val = val.map(|val| Arc::new(val.places) as Arc<dyn Source>);
    Ok(Found { form, train: Arc::new(places), val, classes, notes: notes.say() })
}

/// Fails where one label is that of an image to train on and of another to hold out: their names are alike.
fn one_part_each(labels: &Path, train: &[Option<String>], val: &[Option<String>]) -> Result<()> {
    let both = train.iter().zip(val).find_map(|(train, val)| Some((train.as_ref()?, val.as_ref()?)));
    let Some((train, val)) = both else { return Ok(()) };
    let problem = format!(
        "has one label for {train} and {val}; give each part a file of labels (train.csv, val.csv), or write the folders \
         before the names"
    );
    Err(Error::data(labels, problem))
}

/// The classes by the names that a list has for all of them.
fn display_names(known: &Classes, list: &Path, notes: &mut Notes) -> Vec<String> {
    let listed = match Classes::read(list) {
        Ok(listed) => listed,
        // The names are for people alone.
        Err(error) => {
            notes.line(format!("no names of classes taken from {}: {}", list.display(), error.problem()));
            return known.names.clone();
        }
    };
    let name = |key: &String| Some(listed.names[listed.keys.iter().position(|known| known == key)?].clone());
    let names: Option<Vec<String>> = known.keys.iter().map(name).collect();
    names.map_or_else(
        || known.keys.clone(),
        |names| {
            notes.line(format!("the names of the classes are those of {}", list.display()));
            names
        },
    )
}

/// Notes the classes that have no image to hold out.
fn note_empty_classes(places: &Places, known: &Classes, notes: &mut Notes) {
    let with: HashSet<u32> = places.items.iter().map(|item| item.class).collect();
    let mut without = (0..known.keys.len()).filter(|class| !with.contains(&(*class as u32)));
    if let Some(first) = without.next() {
        let what = "class[es] without a held-out image";
        notes.line(with_example(1 + without.count(), what, &format!("{:?}", known.keys[first])));
    }
}

/// The images of a part. `known` are the classes that there may be.
fn read(images: &Images, options: &SourceOptions, known: Option<&Classes>, notes: &mut Notes) -> Result<Labelled> {
    let folder = &images.folder;
    if let Some(labels) = &images.labels {
        return flat::by_labels(images, Labels::read(labels, options.label_column.as_deref(), known)?, notes);
    }
    if options.classes_from == Some(ClassesFrom::Names) {
        return flat::by_names(images, known, notes);
    }
    if !is_flat(folder) {
        return by_folders(images, known, notes);
    }
    match (kit::beside(folder)?, known) {
        (Some(kit), Some(known)) => flat::by_kit(images, &kit, known, notes),
        _ => Err(doubts::flat(folder)),
    }
}

/// The images of a folder of classes.
fn by_folders(images: &Images, known: Option<&Classes>, notes: &mut Notes) -> Result<Labelled> {
    let path = &*images.folder;
    let Listing { mut folders, files } = list(path, notes)?;
    folders.retain(|folder| !images.except.iter().any(|except| is_same(folder, except)));
    files
        .iter()
        .filter(|file| is_image(file))
        .for_each(|file| notes.add("image[s] beside the folders of classes not read", file.display()));
    let folders = folders_of(path, folders, known, notes)?;
    let found = Classes::found(folders.iter().map(|folder| name_of(folder)).collect());
    let known = known.unwrap_or(&found);
    let mut places = Places::default();
    let mut taken: Vec<Option<&Path>> = vec![None; known.keys.len()];
    let (mut is_direct, mut is_branched, mut below) = (false, false, Vec::new());
    for folder in &folders {
        let class = known.index(&name_of(folder)).unwrap_or_default();
        if let Some(other) = taken[class as usize].replace(folder) {
            let problem = format!("is a second folder of the class of {}; rename one of them", other.display());
            return Err(Error::data(folder, problem));
        }
        let before = places.items.len();
        let shape = collect(folder, class, &[], &mut HashSet::new(), &mut places, notes)?;
        if places.items.len() == before {
            return Err(doubts::empty(folder));
        }
        is_direct |= shape.direct > 0;
        is_branched |= shape.branches > 1;
        below.extend(
            (shape.direct > 0 && shape.branches > 0).then(|| (folder, places.items.len() - before - shape.direct)),
        );
    }
    if let Some(class) = taken.iter().position(Option::is_none) {
        let whose = if known.listed_in.is_some() { "is listed" } else { "is trained on" };
        let problem = format!("class {:?} {whose}, but has no folder here", known.keys[class]);
        return Err(Error::data(path, problem));
    }
    if let Some((first, _)) = below.first() {
        let count = below.iter().map(|(_, count)| count).sum();
        let seen = counted(count, "image[s]");
        notes.line(format!(
            "{seen} in folders below those of their classes, as in {}, read as of these",
            first.display()
        ));
    }
    Ok(Labelled { classes: found.keys, places, is_deep: !is_direct && is_branched, ..Labelled::default() })
}

/// The folders of classes among those in `path`.
fn folders_of(path: &Path, folders: Vec<PathBuf>, known: Option<&Classes>, notes: &mut Notes) -> Result<Vec<PathBuf>> {
    let (mut classes, mut names) = (Vec::new(), HashSet::new());
    let all: Vec<String> = folders.iter().take(3).map(|folder| format!("{:?}", name_of(folder))).collect();
    for folder in folders {
        let name = name_of(&folder);
        match known {
            Some(known) if known.index(&name).is_none() => match &known.listed_in {
                Some(list) => {
                    notes.add_about("folder[s] that {} does not list not read", list.display(), 1, folder.display())
                }
                None if !holds_images(&folder) => {
                    notes.add("folder[s] without images that [is no class|are no classes] not read", folder.display())
                }
                None => {
                    let problem = format!("class {name:?} is not among {}", known.origin());
                    return Err(Error::data(path, problem));
                }
            },
            _ if !names.insert(name.clone()) => {
                return Err(Error::data(&folder, format!("a second class called {name:?}; rename one of the folders")));
            }
            _ => classes.push(folder),
        }
    }
    if let (true, false, Some(known)) =
        (classes.is_empty(), all.is_empty(), known.filter(|all| all.listed_in.is_some()))
    {
        let seen = all.join(", ");
        let problem = format!(
            "none of its folders, {seen} among them, is one of {}, {:?} among them; the list has a folder's name a line",
            known.origin(),
            known.keys.first().map_or("", String::as_str)
        );
        return Err(Error::data(path, problem));
    }
    if classes.is_empty() {
        let problem = "no folders of classes in it; see `prepare --help` for the forms that are known";
        return Err(Error::data(path, problem));
    }
    Ok(classes)
}

/// How images lie below a folder.
#[derive(Default)]
pub struct Shape {
    /// Images directly in it.
    direct: usize,
    /// Folders in it that hold images.
    branches: usize,
}

/// All images below a folder, without those in some folders.
pub fn collect(
    folder: &Path,
    class: u32,
    except: &[PathBuf],
    above: &mut HashSet<PathBuf>,
    places: &mut Places,
    notes: &mut Notes,
) -> Result<Shape> {
    let real = folder.canonicalize().map_err(Error::io("read", folder))?;
    if !above.insert(real.clone()) {
        let link = folder.ancestors().find(|path| path.is_symlink()).unwrap_or(folder);
        return Err(Error::data(
            link,
            "is a link to a folder above it: it would be read for ever; remove the link alone",
        ));
    }
    let mut shape = Shape::default();
    let Listing { folders, files } = list(folder, notes)?;
    for path in folders.into_iter().filter(|path| !except.iter().any(|except| is_same(path, except))) {
        let before = places.items.len();
        collect(&path, class, except, above, places, notes)?;
        shape.branches += usize::from(places.items.len() > before);
    }
    for path in files {
        match Kind::of(&path) {
            Kind::Image => {
                shape.direct += 1;
                places.push(path.display().to_string(), class, Place::File(path));
            }
            other => other.note(&path, notes),
        }
    }
    above.remove(&real);
    Ok(shape)
}
