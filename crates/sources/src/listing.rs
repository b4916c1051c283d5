//! What is in folders, and which files are images.

use std::fs;
use std::path::{Path, PathBuf};

use super::folders::is_called_an_image;
use super::notes::Notes;
use super::roles::is_junk;
use crate::error::{Error, Result};
use crate::known;
use alexnet_split_images::signature::{self, Signature};

/// How deep below a folder images are looked for before a set is read: links may lead round in circles.
const DEPTH: usize = 8;

/// Endings of files that often lie beside images; these files are not opened to see whether they are images.
const NO_IMAGES: [&str; 17] = [
    "txt", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "md", "html", "db", "ini", "mat", "npy", "pkl", "py",
    "parquet",
];

/// The formats of images that are read, as their first bytes tell them.
const READ: [&str; 6] = ["a JPEG image", "a TIFF image", "a PNG image", "a GIF image", "a WebP image", "a BMP image"];

/// What is in a folder, in the order of the names' bytes.
pub struct Listing {
    /// Folders, also by links.
    pub folders: Vec<PathBuf>,
    /// All others.
    pub files: Vec<PathBuf>,
}

/// What becomes of an entry.
enum Entry {
    Folder,
    File,
    Hidden,
    Junk,
}

fn kind_of(entry: &fs::DirEntry) -> Entry {
    let (name, kind) = (entry.file_name(), entry.file_type());
    // Only links need another look at the disk.
    let is_folder = kind.is_ok_and(|kind| kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()));
    match is_folder {
        _ if name.as_encoded_bytes().starts_with(b".") => Entry::Hidden,
        true if is_junk(&name.to_string_lossy()) => Entry::Junk,
        true => Entry::Folder,
        false => Entry::File,
    }
}

/// Lists a folder without what is hidden and what systems leave behind; the notes count that.
pub fn list(folder: &Path, notes: &mut Notes) -> Result<Listing> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let entry = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| (entry.path(), kind_of(&entry)));
    let mut entries: Vec<_> = entries.map(entry).collect::<Result<_, _>>().map_err(Error::io("read", folder))?;
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut listing = Listing { folders: Vec::new(), files: Vec::new() };
    for (path, kind) in entries {
        match kind {
            Entry::Hidden => notes.add("hidden file[s] [or|and] folder[s] not read", path.display()),
            Entry::Junk => notes.add("folder[s] of thumbnails, or that systems leave behind, not read", path.display()),
            Entry::Folder => listing.folders.push(path),
            Entry::File => listing.files.push(path),
        }
    }
    Ok(listing)
}

/// The entries of a folder as they come, and whether each is a folder; none where it cannot be read, which its reader
/// will say.
pub struct Entries(Option<fs::ReadDir>);

impl Entries {
    /// Those of a folder.
    pub fn of(folder: &Path) -> Entries {
        Entries(fs::read_dir(folder).ok())
    }
}

impl Iterator for Entries {
    type Item = (PathBuf, bool);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Ok(entry) = self.0.as_mut()?.next()? else { continue };
            match kind_of(&entry) {
                Entry::Folder => return Some((entry.path(), true)),
                Entry::File => return Some((entry.path(), false)),
                Entry::Hidden | Entry::Junk => {}
            }
        }
    }
}

/// What a file is, as far as its name and its first bytes tell.
pub enum Kind {
    /// An image that is read.
    Image,
    /// Something else.
    Other(Option<Signature>),
}

impl Kind {
    /// The kind of a file: by its ending, or by its first bytes where the ending says nothing.
    pub fn of(path: &Path) -> Kind {
        if is_called_an_image(path) {
            return Kind::Image;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        // A pipe would be waited for.
        if NO_IMAGES.contains(&&*ending) || !path.is_file() {
            return Kind::Other(None);
        }
        // One that cannot be read is named when it is to be read.
        known::head(path).map_or(Kind::Image, |bytes| match signature::recognize(&bytes) {
            Some(found) if READ.contains(&found.name) => Kind::Image,
            None if matches!(bytes[..], [b'P', b'5' | b'6', space, ..] if space.is_ascii_whitespace()) => Kind::Image,
            found => Kind::Other(found),
        })
    }

    /// Counts a file of this kind that is not read.
    pub fn note(&self, path: &Path, notes: &mut Notes) {
        match self {
            Kind::Other(Some(Signature { name, advice })) => {
                notes.add_about("file[s], [|each ]{}, not read", format!("{name} ({advice})"), 1, path.display())
            }
            _ => notes.add("file[s] that [is no image|are no images] not read", path.display()),
        }
    }
}

/// Whether a file is an image that is read.
pub fn is_image(path: &Path) -> bool {
    matches!(Kind::of(path), Kind::Image)
}

/// Whether there is an image in a folder or below it; looks no further than the first.
pub fn holds_images(folder: &Path) -> bool {
    holds_images_to(folder, DEPTH)
}

fn holds_images_to(folder: &Path, depth: usize) -> bool {
    let (mut folders, mut entries) = (Vec::new(), Entries::of(folder));
    let has_image = entries.any(|(path, is_folder)| {
        if is_folder {
            folders.push(path);
            return false;
        }
        is_image(&path)
    });
    has_image || (depth > 0 && folders.iter().any(|path| holds_images_to(path, depth - 1)))
}

/// Number of images in a folder and below it.
pub fn count_images(folder: &Path) -> usize {
    Entries::of(folder)
        .map(|(path, is_folder)| match is_folder {
            // Links may lead round in circles.
            true if path.is_symlink() => 0,
            true => count_images(&path),
            false => usize::from(is_image(&path)),
        })
        .sum()
}

/// Whether images lie directly in a folder.
pub fn has_images(folder: &Path) -> bool {
    Entries::of(folder).any(|(path, is_folder)| !is_folder && is_image(&path))
}

/// Whether folders in a folder hold images.
pub fn has_folders(folder: &Path) -> bool {
    Entries::of(folder).any(|(path, is_folder)| is_folder && holds_images(&path))
}

/// The folders in a folder that hold images, in the order of their names' bytes.
pub fn folders_with_images(folder: &Path) -> Vec<PathBuf> {
    let folders = Entries::of(folder).filter(|(path, is_folder)| *is_folder && holds_images(path));
    let mut folders: Vec<PathBuf> = folders.map(|(path, _)| path).collect();
    folders.sort();
    folders
}

/// A folder's name.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
