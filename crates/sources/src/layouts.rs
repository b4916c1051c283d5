//! Layouts of folders: where a set has its images to train on, those to hold out, and what tells their classes.
//!
//! A layout is found by a row of [`KNOWN`], else by the names of the folders ([`role`]). What is not clear is refused: a
//! wrong guess would be a wrong task, learned well.

use std::path::{Path, PathBuf};

use super::listing::{Entries, count_images, folders_with_images, has_folders, has_images, is_image, name_of};
use super::lists::Lists;
use super::notes::Notes;
use super::roles::{Role, role};
use super::{ClassesFrom, SourceOptions};
use crate::error::{Error, Result};
use crate::plurals::counted;

/// A layout that is known by its files.
struct Known {
    name: &'static str,
    /// The folder to train on, with a folder for each class.
    train: &'static str,
    /// The folder to hold out, with images only.
    val: &'static str,
    /// The file that tells the classes of those.
    labels: &'static str,
}

/// The layouts that are known by their files, all of which must be there.
const KNOWN: [Known; 4] = [
    Known {
        name: "Kaggle's ILSVRC",
        train: "ILSVRC/Data/CLS-LOC/train",
        val: "ILSVRC/Data/CLS-LOC/val",
        labels: "LOC_val_solution.csv",
    },
    Known {
        name: "Kaggle's ILSVRC",
        train: "Data/CLS-LOC/train",
        val: "Data/CLS-LOC/val",
        labels: "../LOC_val_solution.csv",
    },
    Known { name: "Kaggle's ILSVRC", train: "train", val: "val", labels: "../../../LOC_val_solution.csv" },
    Known { name: "Tiny ImageNet", train: "train", val: "val/images", labels: "val/val_annotations.txt" },
];

/// Where a labels file may lie, from the folder of its images and from that of the set; `{part}` is `train`, `val`, or
/// what the folder is called.
const LABELS_IN_PART: [&str; 5] =
    ["metadata.csv", "metadata.jsonl", "{part}_annotations.txt", "labels.csv", "labels.txt"];
const LABELS_IN_SET: [&str; 10] = [
    "metadata.csv",
    "metadata.jsonl",
    "{part}.csv",
    "{part}.txt",
    "{part}_labels.csv",
    "{part}_labels.txt",
    "{part}_annotations.txt",
    "LOC_{part}_solution.csv",
    "labels.csv",
    "labels.txt",
];

/// Lists of classes by their WordNet numbers, which give them names.
const NAMES: [&str; 3] = ["words.txt", "LOC_synset_mapping.txt", "synset_words.txt"];

/// A folder of images, and the file that tells their classes, if their folders do not.
#[derive(Clone, Debug)]
pub struct Images {
    pub folder: PathBuf,
    /// Folders in it that are not read: another part, masks.
    pub except: Vec<PathBuf>,
    pub labels: Option<PathBuf>,
    /// Other files that tell classes of its images, or seem to; those that do must agree.
    pub others: Vec<PathBuf>,
}

impl Images {
    /// Images in a folder for each class.
    fn by_folders(folder: PathBuf) -> Images {
        Images { folder, except: Vec::new(), labels: None, others: Vec::new() }
    }

    /// The files that tell their classes, or seem to.
    pub fn files(&self) -> Vec<PathBuf> {
        self.labels.iter().chain(&self.others).cloned().collect()
    }

    /// With what may tell their classes: a file, where the folders do not.
    fn with(self, mut files: Vec<PathBuf>) -> Images {
        let labels = (is_flat(&self.folder) && !files.is_empty()).then(|| files.remove(0));
        Images { labels, others: files, ..self }
    }
}

/// Where a set has what.
pub struct Layout {
    /// Its name, if it is a known one.
    pub name: Option<&'static str>,
    pub train: Images,
    /// `None` where the set is in one piece.
    pub val: Option<Images>,
    /// A file that names the classes.
    pub names: Option<PathBuf>,
    /// Lists that tell the parts of a set in one piece.
    pub lists: Option<Lists>,
}

/// A folder of the set in which there are images.
struct Inner {
    path: PathBuf,
    role: Option<Role>,
    /// Whether they lie in folders within it.
    is_deep: bool,
}

impl Inner {
    fn new(path: PathBuf) -> Inner {
        Inner { role: role(&name_of(&path)), is_deep: has_folders(&path), path }
    }

    /// For messages: its path and its images.
    fn seen(&self) -> String {
        format!("{} ({})", self.path.display(), counted(count_images(&self.path), "image[s]"))
    }
}

/// Whether there is a folder of images to train on.
pub fn has_train(path: &Path) -> bool {
    folders_with_images(path).iter().any(|path| role(&name_of(path)) == Some(Role::Train))
}

/// Finds the layout of the set in `path`.
///
/// Fails where it is not clear, with what was seen and the flag that says it.
pub fn find(path: &Path, options: &SourceOptions, notes: &mut Notes) -> Result<Layout> {
    let mut layout = search(path, options, notes)?;
    let of_train = layout.train.labels.clone();
    for part in [Some(&mut layout.train), layout.val.as_mut()].into_iter().flatten() {
        if options.classes_from.is_some() {
            (part.labels, part.others) = (None, Vec::new());
        } else if options.label_column.is_some() && part.labels.is_none() && !part.others.is_empty() {
            // Asked for by the name of its column.
            part.labels = Some(part.others.remove(0));
        } else if let Some(labels) = &part.labels {
            notes.line(format!("{} tells the classes of its images", labels.display()));
            notes.uses(labels.display());
        }
    }
    // The labels of one part say nothing about images of the other that are called alike.
    if let Some(val) = &mut layout.val {
        val.others.retain(|other| Some(other) != of_train.as_ref());
        layout.train.others.retain(|other| Some(other) != val.labels.as_ref());
    }
    if layout.val.is_none() && !is_flat(&layout.train.folder) && options.classes_from != Some(ClassesFrom::Names) {
        layout.lists = Lists::find(&layout.train.folder, notes)?;
    }
    if let Some(lists) = &layout.lists {
        layout.train.others.retain(|other| !lists.files.contains(other));
    }
    if let Some(val) = layout.val.as_ref().filter(|val| !name_of(&val.folder).eq_ignore_ascii_case("val")) {
        notes.line(format!("held out: the images of {}", val.folder.display()));
    }
    Ok(layout)
}

fn search(path: &Path, options: &SourceOptions, notes: &mut Notes) -> Result<Layout> {
    let is_given = options.train.is_some() || options.val.is_some();
    let layout = match KNOWN.iter().find_map(|known| known.at(path)).filter(|_| !is_given) {
        Some(layout) => {
            note_unread(layout.train.folder.parent().unwrap_or(path), &layout, notes);
            layout
        }
        None => by_names(path, options, notes)?,
    };
    Ok(Layout { names: layout.names.or_else(|| names_in(path)), ..layout })
}

/// Notes the folders of images in `set` that are no part of it, in one line.
fn note_unread(set: &Path, layout: &Layout, notes: &mut Notes) {
    let parts = [Some(&layout.train), layout.val.as_ref()].into_iter().flatten();
    let parts: Vec<PathBuf> = parts.filter_map(|part| part.folder.canonicalize().ok()).collect();
    let is_read =
        |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| parts.iter().any(|part| part.starts_with(&folder)));
    let folders = folders_with_images(set).into_iter().filter(|folder| !is_read(folder));
    let inners: Vec<Inner> = folders.map(Inner::new).collect();
    if !inners.is_empty() {
        notes.line(format!("not read, beside the images to train on: {}", seen(&inners.iter().collect::<Vec<_>>())));
    }
}

fn names_in(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

impl Known {
    /// Its layout, if the files are there.
    fn at(&self, path: &Path) -> Option<Layout> {
        let [train, val, labels] = [self.train, self.val, self.labels].map(|inner| path.join(inner));
        let is_there = labels.is_file() && has_images(&val) && has_folders(&train);
        if !is_there {
            return None;
        }
        let names = labels.parent().and_then(names_in);
        let mut others = labels_of(path, &val);
        others.retain(|other| !is_same(other, &labels));
        let val = Images { labels: Some(labels), others, ..Images::by_folders(val) };
        let train = Images::by_folders(train);
        Some(Layout { name: Some(self.name), train, val: Some(val), names, lists: None })
    }
}

/// Finds the parts by the names of the folders, where no flag gives them.
fn by_names(path: &Path, options: &SourceOptions, notes: &mut Notes) -> Result<Layout> {
    let given = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| resolve(path, folder)).transpose();
    let (train, val) = (given(&options.train)?, given(&options.val)?);
    let is_given = |folder: &PathBuf| [&train, &val].into_iter().flatten().any(|given| is_same(given, folder));
    let folders = folders_with_images(path).into_iter().filter(|folder| !is_given(folder));
    let mut rest: Vec<Inner> = folders.map(Inner::new).collect();
    let train = match train {
        Some(train) => train,
        None => match find_train(path, &rest, options)? {
            Some(train) => train,
            None => return in_one_piece(path, rest, val, options, notes),
        },
    };
    if let Some(val) = val.as_ref().filter(|val| is_same(val, &train)) {
        return Err(Error::data(val, "cannot be trained on and held out; give two folders"));
    }
    rest.retain(|inner| inner.path != train);
    let val = match val {
        Some(val) => Some(val),
        None => find_val(path, &rest, options)?,
    };
    let stray = Entries::of(path).filter(|(path, is_folder)| !is_folder && is_image(path));
    stray.for_each(|(path, _)| notes.add("image[s] beside the folders of the parts not read", path.display()));
    let (mut train, mut val) = (part(path, train), val.map(|val| part(path, val)));
    if let Some(val) = &mut val {
        // Of one within the other the inner one is apart.
        train.except.push(val.folder.clone());
        val.except.push(train.folder.clone());
    }
    let layout = Layout { name: None, train, val, names: None, lists: None };
    note_unread(path, &layout, notes);
    Ok(layout)
}

/// The folder to train on, if one is called so.
fn find_train(path: &Path, inners: &[Inner], options: &SourceOptions) -> Result<Option<PathBuf>> {
    let of =
        |is_deep: bool| inners.iter().filter(move |inner| inner.role == Some(Role::Train) && inner.is_deep == is_deep);
    let deep: Vec<&Inner> = of(true).collect();
    let flat: Vec<&Inner> = of(false).collect();
    // A folder of images alone may be a class of vehicles, unless there is no other class.
    let may_be_flat = match options.classes_from {
        Some(ClassesFrom::Folders) => false,
        Some(ClassesFrom::Names) => true,
        None => inners.iter().all(|inner| inner.role.is_some()),
    };
    let trains = if deep.is_empty() && may_be_flat { flat } else { deep };
    match trains[..] {
        [] => {
            let is_part = |inner: &Inner| matches!(inner.role, Some(Role::Val | Role::Test)) && inner.is_deep;
            if options.classes_from.is_none()
                && let Some(inner) = inners.iter().find(|inner| is_part(inner))
            {
                let problem = "has folders of classes to hold out, but there is no folder train beside it; name the \
                               folder to train on with --train DIR";
                return Err(Error::data(&inner.path, problem));
            }
            Ok(None)
        }
        [train] => Ok(Some(train.path.clone())),
        _ => Err(Error::data(path, format!("which is to train on, {}? Give --train DIR", seen(&trains)))),
    }
}

/// The folder to hold out, if one is called so; a test set only if its classes are told, for it has often none.
fn find_val(path: &Path, inners: &[Inner], options: &SourceOptions) -> Result<Option<PathBuf>> {
    let of = |role: Role| inners.iter().filter(move |inner| inner.role == Some(role));
    let mut found: Vec<&Inner> = of(Role::Val).collect();
    if found.is_empty() && options.classes_from != Some(ClassesFrom::Names) {
        let is_labelled = |inner: &&Inner| {
            let part = part(path, inner.path.clone());
            part.labels.is_some() || !is_flat(&part.folder)
        };
        found = of(Role::Test).filter(is_labelled).collect();
    }
    match found[..] {
        [] => Ok(None),
        [val] => Ok(Some(val.path.clone())),
        _ => Err(Error::data(path, format!("which is to be held out, {}? Give --val DIR", seen(&found)))),
    }
}

/// A set without a folder to train on: the classes are here, or the set is in the one folder that there is.
fn in_one_piece(
    path: &Path,
    inners: Vec<Inner>,
    val: Option<PathBuf>,
    options: &SourceOptions,
    notes: &mut Notes,
) -> Result<Layout> {
    let classes_from = options.classes_from;
    let mut except: Vec<PathBuf> = val.clone().into_iter().collect();
    if classes_from == Some(ClassesFrom::Names) {
        // Masks are called like the images that they belong to.
        let masks: Vec<&Inner> = inners.iter().filter(|inner| inner.role == Some(Role::Masks)).collect();
        if !masks.is_empty() && masks.len() < inners.len() {
            notes.line(format!("not read, beside the images to train on: {}", seen(&masks)));
            except.extend(masks.iter().map(|inner| inner.path.clone()));
        }
    }
    let here = Layout {
        name: None,
        train: Images { except, ..Images::by_folders(path.to_owned()) }.with(labels_of(path, path)),
        val: val.clone().map(|val| part(path, val)),
        names: None,
        lists: None,
    };
    if let [only] = &inners[..]
        && !has_images(path)
    {
        let train = part(path, only.path.clone());
        if only.is_deep || train.labels.is_some() || classes_from == Some(ClassesFrom::Names) {
            notes.line(format!("read from {}, the one folder in {} with images", only.path.display(), path.display()));
            if train.labels.is_some() || is_flat(&train.folder) {
                return Ok(Layout { train, ..here });
            }
            return search(&only.path, &SourceOptions { val, ..options.clone() }, notes);
        }
    }
    if classes_from == Some(ClassesFrom::Folders) {
        return Ok(here);
    }
    let is_set = |inner: &&Inner| has_train(&inner.path) || KNOWN.iter().any(|known| known.at(&inner.path).is_some());
    if inners.iter().any(|inner| is_set(&inner)) {
        let all: Vec<&Inner> = inners.iter().collect();
        let problem = format!("holds more than one set: {}; give the folder of one of them", seen(&all));
        return Err(Error::data(path, problem));
    }
    Ok(here)
}

/// The images of a part. Where all that is in its folder is another of such a name (`train/train`, `val/images`), they
/// are in that.
fn part(set: &Path, folder: PathBuf) -> Images {
    let mut inner = folder.clone();
    while !has_images(&inner) {
        match &folders_with_images(&inner)[..] {
            [only] if role(&name_of(only)).is_some() => inner = only.clone(),
            _ => break,
        }
    }
    Images::by_folders(inner).with(labels_of(set, &folder))
}

/// The files that tell the classes of the images in a folder of the set, by their names; the first counts.
fn labels_of(set: &Path, folder: &Path) -> Vec<PathBuf> {
    let name = name_of(folder);
    let part = match role(&name) {
        Some(Role::Train) => "train",
        Some(Role::Val) => "val",
        Some(Role::Test) => "test",
        _ => &*name,
    };
    let in_set = LABELS_IN_SET.iter().map(|file| (set, file)).filter(|_| part != "test");
    let files = LABELS_IN_PART.iter().map(|file| (folder, file)).chain(in_set);
    let mut found = Vec::new();
    for path in files.flat_map(|(folder, file)| [&*name, part].map(|part| folder.join(file.replace("{part}", part)))) {
        if path.is_file() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// Whether a folder has images, and no folders of images.
pub fn is_flat(folder: &Path) -> bool {
    has_images(folder) && !has_folders(folder)
}

/// A folder that a flag gives: as the shell sees it, or within the set.
pub fn resolve(set: &Path, folder: &Path) -> Result<PathBuf> {
    let found = [folder.to_owned(), set.join(folder)].into_iter().find(|path| path.is_dir());
    found.ok_or_else(|| Error::data(folder, format!("no such folder, here or in {}", set.display())))
}

/// Whether two paths lead to one folder.
pub fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Folders and their images for messages: the first few.
fn seen(inners: &[&Inner]) -> String {
    let mut words: Vec<String> = inners.iter().take(5).map(|inner| inner.seen()).collect();
    if inners.len() > 5 {
        words.push(format!("{} more", inners.len() - 5));
    }
    words.join(", ")
}
