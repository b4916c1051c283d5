//! Data sets in forms that are not read: what they are, and how to make one of a form that is.

use std::fs;
use std::path::{Path, PathBuf};

use super::folders::is_called_an_image;
use crate::error::Error;
use crate::known::signature_of;

/// Folders one in another that are looked into.
const DEPTH: usize = 3;

/// Files that no first bytes tell: the end of the name, and what they are.
const ENDINGS: [(&str, &str); 4] = [
    (".beton", "a file of FFCV"),
    (".rec", "a file of MXNet (RecordIO)"),
    (".csv", "a table of text"),
    (".tfrecord", "a TFRecord file"),
];

/// Names the set in a folder, or the file, where the first thing in it is no image and known to be something else.
pub fn explain(path: &Path) -> Option<Error> {
    if path.is_file() {
        return about(path);
    }
    look(path, DEPTH).err()?
}

/// Goes on where there is nothing that tells; ends with what does, or with nothing where there are images.
fn look(folder: &Path, depth: usize) -> Result<(), Option<Error>> {
    if let Some(error) = arrow(folder) {
        return Err(Some(error));
    }
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| !is_hidden(path));
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| path.is_dir());
    if files.iter().any(|path| is_called_an_image(path)) {
        return Err(None);
    }
    if let Some(error) = files.iter().find_map(|path| about(path)) {
        return Err(Some(error));
    }
    match depth.checked_sub(1) {
        Some(depth) => folders.iter().try_for_each(|folder| look(folder, depth)),
        None => Ok(()),
    }
}

/// What a file is, and what to do.
fn about(path: &Path) -> Option<Error> {
    if let Some(found) = signature_of(path) {
        // What describes a set is not the set.
        let is_description = found.name.contains("JSON") || found.name.contains("XML") || found.name.contains("HTML");
        let advice = match found.name.contains("Arrow") {
            true => format!(
                "make parquet of it and prepare that: mkdir set && python3 -c 'from datasets import Dataset; \
                 Dataset.from_file(\"{}\").to_parquet(\"set/train.parquet\")'",
                path.display()
            ),
            false => found.advice.to_owned(),
        };
        let problem = format!("{}, which is not read as a data set; {advice}", found.name);
        return (!is_description).then(|| Error::data(path, problem));
    }
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let found = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending) || name.contains(&format!("{ending}-")));
    found.map(|(_, what)| {
        let advice = "save its images as files, in a folder for each class";
        Error::data(path, format!("{what}, which is not read as a data set; {advice}"))
    })
}

/// A set that the `datasets` library has saved in Arrow's form.
fn arrow(folder: &Path) -> Option<Error> {
    let has = |name: &str| folder.join(name).is_file();
    let path = folder.display();
    let save = if has("dataset_dict.json") {
        format!("[d.to_parquet(f\"set/{{n}}.parquet\") for n, d in load_from_disk(\"{path}\").items()]")
    } else if has("state.json") && has("dataset_info.json") {
        format!("load_from_disk(\"{path}\").to_parquet(\"set/train.parquet\")")
    } else {
        return None;
    };
    let problem = format!(
        "a set of Hugging Face's `datasets` in Arrow's form, which is not read; make parquet of it and prepare that: mkdir \
         set && python3 -c 'from datasets import load_from_disk; {save}'"
    );
    Some(Error::data(folder, problem))
}
