//! Sets of image files: a folder for each class, with images anywhere below it, or images with a file of their labels, or
//! with their classes in their names.
//!
//! Where a set has its parts is in `layouts.rs`. Classes are in the order of their names' bytes, images in that of their
//! paths. Links are followed, but not round in circles. What is not read is in the notes, a line for each kind.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::Classes;
use super::labels::Labels;
use super::layouts::{self, Images, Layout, is_flat, is_same};
use super::listing::{Kind, Listing, holds_images, is_image, list, name_of};
use super::lists::Lists;
use super::notes::Notes;
use super::parts::Told;
use super::places::{Place, Places};
use super::{ClassesFrom, Found, Source, SourceOptions};
use super::{agree, beside, doubts, flat, kit};
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
    /// What a column of that file tells about the parts of the images.
    pub told: Option<Told>,
    /// The folders of images, or those of the classes, by where they really are.
    pub folders: HashMap<PathBuf, PathBuf>,
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
    let list = options.classes.as_deref().map(Classes::read).transpose()?;
    let train = read(&train_images, options, list.as_ref(), &mut notes)?;
    doubts::check(&train, &train_images, options, &mut notes)?;
    let is_read = [Some(&train_images), val_images.as_ref()].map(|part| part.map_or(Vec::new(), Images::files));
    beside::note(path, &train_images, &is_read.concat(), list.is_none().then_some(&train.classes), &mut notes);
    let Labelled { classes, labelled, told, mut places, folders: train_folders, .. } = train;
    let known = list.unwrap_or_else(|| Classes::found(classes));
    let wants_parts = val_images.is_none() && lists.is_none() && told.is_none();
    let told = agree::check(&train_images, &places, &known, wants_parts, &mut notes)?.or(told);
    let mut val = match &val_images {
        Some(images) => Some(read(images, options, Some(&known), &mut notes)?),
        None => None,
    };
    if let (Some(val), Some(images)) = (&val, &val_images) {
        agree::check(images, &val.places, &known, false, &mut notes)?;
        apart_by_links(&train_folders, &val.folders)?;
        for (told, places, is_train) in [(&told, &places, true), (&val.told, &val.places, false)] {
            told.as_ref().map_or(Ok(()), |told| told.check(places, is_train))?;
        }
        if let Some(labels) = train_images.labels.as_ref().filter(|labels| images.labels.as_ref() == Some(labels)) {
            one_part_each(labels, &labelled, &val.labelled)?;
        }
    }
    let mut is_listed = false;
    if val.is_none()
        && let Some([train, held_out]) = apart(lists, told, &train_images.folder, &places, &known, &mut notes)?
    {
        (places, val, is_listed) = (train, Some(Labelled { places: held_out, ..Labelled::default() }), true);
    }
    if let Some(val) = &val {
        note_empty_classes(&val.places, &known, &mut notes);
    }
    let form = name.unwrap_or_else(|| form(&train_images, options, val.is_some(), is_listed));
    let classes = match names.filter(|_| known.listed_in.is_none()) {
        Some(names) => display_names(&known, &names, &mut notes),
        None if known.listed_in.is_none() => val.as_mut().and_then(|val| val.names.take()).unwrap_or(known.names),
        None => known.names,
    };
    let val = val.map(|val| Arc::new(val.places) as Arc<dyn Source>);
    Ok(Found { form, train: Arc::new(places), val, classes, notes: notes.say() })
}

/// What a set is called that has no name.
fn form(train: &Images, options: &SourceOptions, has_val: bool, is_listed: bool) -> &'static str {
    match (&train.labels, options.classes_from) {
        (Some(_), _) => "images with a file of labels",
        (_, Some(ClassesFrom::Names)) => "images with their classes in their names",
        _ if is_listed => "a folder a class, with lists of the parts",
        _ if has_val => "train and val with a folder a class",
        _ => "a folder a class",
    }
}

/// The images to train on and to hold out of a set in one piece, where lists or a column tell them apart.
fn apart(
    lists: Option<Lists>,
    told: Option<Told>,
    folder: &Path,
    places: &Places,
    known: &Classes,
    notes: &mut Notes,
) -> Result<Option<[Places; 2]>> {
    if let Some(lists) = lists
        && let Some(parts) = lists.apply(folder, places, &known.keys, notes)?
    {
        return Ok(Some(parts));
    }
    told.map_or(Ok(None), |told| told.split(places, notes))
}

/// Fails where a folder to hold out is one to train on by a link.
fn apart_by_links(train: &HashMap<PathBuf, PathBuf>, val: &HashMap<PathBuf, PathBuf>) -> Result<()> {
    let both = val.iter().filter_map(|(real, val)| Some((val, train.get(real)?))).min();
    let Some((val, train)) = both else { return Ok(()) };
    let problem = format!(
        "is {} by a link: it would be trained on and held out; give another folder with --val DIR, or one part alone",
        train.display()
    );
    Err(Error::data(val, problem))
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
    let list = list.display();
    notes.line(match known.keys.iter().find(|key| !listed.has(key)) {
        Some(without) => format!("no names of classes taken from {list}: it has none for {without:?}"),
        None => format!("the names of the classes are those of {list}"),
    });
    names.unwrap_or_else(|| known.keys.clone())
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
    let mut found = if let Some(labels) = &images.labels {
        flat::by_labels(images, Labels::read(labels, options.label_column.as_deref(), known)?, notes)?
    } else if options.classes_from == Some(ClassesFrom::Names) {
        flat::by_names(images, known, notes)?
    } else if !is_flat(folder) {
        return by_folders(images, known, notes);
    } else {
        match (kit::beside(folder)?, known) {
            (Some(kit), Some(known)) => flat::by_kit(images, &kit, known, notes)?,
            _ => return Err(doubts::flat(folder)),
        }
    };
    found.folders = real(std::slice::from_ref(folder))?;
    Ok(found)
}

/// Folders by where they really are.
///
/// Fails where two of them are one.
fn real(folders: &[PathBuf]) -> Result<HashMap<PathBuf, PathBuf>> {
    let mut all = HashMap::new();
    for folder in folders {
        let place = folder.canonicalize().map_err(Error::io("read", folder))?;
        if let Some(other) = all.insert(place, folder.clone()) {
            let link = if folder.is_symlink() { folder } else { &other };
            let problem = format!(
                "is a link, and {} and {} are one folder: its images would be of two classes; move the link elsewhere",
                other.display(),
                folder.display()
            );
            return Err(Error::data(link, problem));
        }
    }
    Ok(all)
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
    let real = real(&folders)?;
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
        let shape = collect(folder, class, &images.except, &mut HashSet::new(), &mut places, notes)?;
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
    Ok(Labelled {
        classes: found.keys,
        places,
        is_deep: !is_direct && is_branched,
        folders: real,
        ..Labelled::default()
    })
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
