//! Where the shards of tables lie: as those of other forms, or as in Hugging Face's repositories and caches, in the folder
//! of a configuration or a revision: `plain_text/train-*.parquet`, `default/train/0000.parquet`, `snapshots/HASH/data/...`.

use std::fs;
use std::path::{Path, PathBuf};

use super::folders::is_called_an_image;
use super::forms::TABLE;
use super::shard_files::{self, ShardFiles, is_part, part_of};
use crate::error::{Error, Result};
use crate::plurals::with_example;

/// Folders one in another that are looked into: the cache of a set, `snapshots`, one of these, `default`.
const DEPTH: usize = 4;

/// The shards of the only set in a folder, or `None` where there is none.
///
/// Fails where there are several, or files of tables and none to train on.
pub fn find(path: &Path) -> Result<Option<ShardFiles>> {
    let mut found = Found::default();
    found.search(path, DEPTH)?;
    if found.sets.len() > 1 {
        let paths: Vec<String> = found.sets.iter().map(|(path, _)| path.display().to_string()).collect();
        let problem = format!("has shards of several sets: {}; give the folder of one", paths.join(", "));
        return Err(Error::data(path, problem));
    }
    let Some((_, mut files)) = found.sets.pop() else {
        let problem = "is to be held out by its name, and there are no shards to train on beside it";
        return found.others.map_or(Ok(None), |path| Err(Error::data(path, problem)));
    };
    if let Some(path) = found.others {
        files.notes.push(format!("files of tables that belong to no set not read, {} among them", path.display()));
    }
    let names =
        |path: &PathBuf| [Some(path.as_path()), path.parent()].map(|it| it?.file_name()?.to_str().and_then(part_of));
    let unclear: Vec<&PathBuf> = files.train.iter().filter(|path| names(path) == [None, None]).collect();
    if let Some(first) = unclear.first().filter(|_| unclear.len() < files.train.len()) {
        let what = "file[s] called neither train, validation nor test trained on";
        files.notes.push(with_example(unclear.len(), what, &first.display().to_string()));
    }
    if let Some(path) = files.train.iter().find(|path| path.to_string_lossy().contains("partial-train")) {
        let what = "Hugging Face makes parquet of the first 5 GB of large sets only";
        files.notes.push(format!("{} is not the whole set: {what}", path.parent().unwrap_or(path).display()));
    }
    Ok(Some(files))
}

#[derive(Default)]
struct Found {
    sets: Vec<(PathBuf, ShardFiles)>,
    /// A file of a table where none is to be trained on.
    others: Option<PathBuf>,
}

impl Found {
    /// Looks into a folder, and into those in it unless a set is there. A folder with images has no tables, and is left at
    /// the first one.
    fn search(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        // A part without the others is no set, unless it is what was asked for.
        let found = if depth < DEPTH && is_part(&name) { None } else { shard_files::find(folder, TABLE)? };
        if let Some(files) = found {
            self.sets.push((folder.to_owned(), files));
            return Ok(());
        }
        let mut below = Vec::new();
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if is_called_an_image(&path) {
                return Ok(());
            }
            if path.is_dir() {
                // Hidden ones, and the cache's files, to which its snapshots have links.
                below.extend((!name.starts_with('.') && name != "blobs").then(|| path.clone()));
            } else if name.ends_with(TABLE) && !name.starts_with('.') {
                self.others = self.others.take().or_else(|| Some(path.clone()));
            }
        }
        below.sort();
        match depth.checked_sub(1) {
            Some(depth) => below.iter().try_for_each(|folder| self.search(folder, depth)),
            None => Ok(()),
        }
    }
}
