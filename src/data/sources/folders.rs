//! A folder for each class, with images anywhere below it: in `train` and `val` (or `validation`, `valid`, `test`, in
//! capitals or not), or in one set.
//!
//! Classes are in the order of their names' bytes, images in that of their paths. Links are followed, but not round in
//! circles. Hidden files and folders (`.ipynb_checkpoints`) and files whose names are not those of images are not read;
//! the notes say how many there were.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::places::{Place, Places};
use super::{Found, Source, SourceOptions};
use crate::error::{Error, Result};

/// What image files are called; what they are is told by their bytes.
pub const ENDINGS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// The names of these forms.
pub const FORMS: [&str; 2] = ["a folder a class", "train and val with a folder a class"];

const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 5] = ["val", "validation", "valid", "test", "testing"];

/// Opens a set of folders.
pub fn open(path: &Path, _options: &SourceOptions) -> Result<Found> {
    if !path.is_dir() {
        return Err(Error::data(path, "not a data set of a known form; see `prepare --help` for those"));
    }
    let mut notes = Notes::default();
    let (train_path, val_path) = (part(path, &TRAIN), part(path, &VAL));
    let Some(train_path) = train_path else {
        if let Some(val) = val_path {
            let problem = "has folders of classes to hold out, but there is no folder train beside it";
            return Err(Error::data(val, problem));
        }
        let (source, classes) = read_classes(path, None, &mut notes)?;
        return Ok(Found { form: FORMS[0], train: source, val: None, classes, notes: notes.say() });
    };
    let (train, classes) = read_classes(&train_path, None, &mut notes)?;
    let val = val_path.map(|path| read_classes(&path, Some(&classes), &mut notes)).transpose()?.map(|(val, _)| val);
    Ok(Found { form: FORMS[1], train, val, classes, notes: notes.say() })
}

/// Whether there are folders of classes to train on.
pub fn has_train(path: &Path) -> bool {
    part(path, &TRAIN).is_some()
}

/// The first of these folders that has folders in it: one that has none may be a class that is called so.
fn part(path: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let has_folders = |path: &Path| {
        fs::read_dir(path).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir() && !is_hidden(&entry.path())))
        })
    };
    let is = |path: &Path, name: &str| path.file_name().is_some_and(|found| found.eq_ignore_ascii_case(name));
    names.iter().find_map(|name| folders.iter().find(|path| is(path, name) && has_folders(path)).cloned())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The things left alone.
#[derive(Default)]
struct Notes {
    hidden: Vec<PathBuf>,
    no_images: Vec<PathBuf>,
}

impl Notes {
    fn say(self) -> Vec<String> {
        let some = |paths: Vec<PathBuf>, what: &str| {
            let first = paths.first()?;
            Some(format!("{} {what} not read, {} among them", paths.len(), first.display()))
        };
        let lists = [(self.hidden, "hidden files and folders"), (self.no_images, "files that no image is called like")];
        lists.into_iter().filter_map(|(paths, what)| some(paths, what)).collect()
    }
}

/// The images of a folder of classes. `expected` are the classes that there may be.
fn read_classes(path: &Path, expected: Option<&[String]>, notes: &mut Notes) -> Result<(Arc<dyn Source>, Vec<String>)> {
    let folders: Vec<PathBuf> = entries(path, notes)?.into_iter().filter(|path| path.is_dir()).collect();
    let mut classes: Vec<String> = Vec::new();
    for folder in &folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if classes.contains(&name) {
            return Err(Error::data(folder, format!("a second class called {name:?}; rename one of the folders")));
        }
        classes.push(name);
    }
    if classes.is_empty() {
        return Err(Error::data(
            path,
            "no folders of classes in it; see `prepare --help` for the forms that are known",
        ));
    }
    if let Some(expected) = expected {
        if let Some(strange) = classes.iter().find(|class| !expected.contains(class)) {
            let problem = format!("class {strange:?} is not among the {} classes to train on", expected.len());
            return Err(Error::data(path, problem));
        }
        if let Some(missing) = expected.iter().find(|class| !classes.contains(class)) {
            let problem = format!("class {missing:?} is trained on, but has no folder here");
            return Err(Error::data(path, problem));
        }
    }
    let names = expected.unwrap_or(&classes);
    let mut places = Places::default();
    for (folder, name) in folders.iter().zip(&classes) {
        let class = names.iter().position(|known| known == name).unwrap_or_default() as u32;
        let before = places.items.len();
        collect(folder, class, &mut HashSet::new(), &mut places, notes)?;
        if places.items.len() == before {
            return Err(Error::data(folder, "a class without images; remove the folder, or put some in"));
        }
    }
    Ok((Arc::new(places), classes))
}

/// All images below a folder.
fn collect(
    folder: &Path,
    class: u32,
    above: &mut HashSet<PathBuf>,
    places: &mut Places,
    notes: &mut Notes,
) -> Result<()> {
    let real = folder.canonicalize().map_err(Error::io("read", folder))?;
    if !above.insert(real.clone()) {
        return Err(Error::data(folder, "a link to a folder above it: it would be read for ever; remove the link"));
    }
    for path in entries(folder, notes)? {
        if path.is_dir() {
            collect(&path, class, above, places, notes)?;
        } else if is_called_an_image(&path) {
            places.push(path.display().to_string(), class, Place::File(path));
        } else {
            notes.no_images.push(path);
        }
    }
    above.remove(&real);
    Ok(())
}

/// Whether a file's name is that of an image.
pub fn is_called_an_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}

/// What is in a folder, in the order of the names' bytes, without what is hidden.
fn entries(folder: &Path, notes: &mut Notes) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if is_hidden(&path) {
            notes.hidden.push(path);
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
