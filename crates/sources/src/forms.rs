//! The forms of data sets: which one a folder has, and where the set lies in it.

use std::path::{Path, PathBuf};

use super::shard_files::{self, ShardFiles};
use super::webdataset::PREPARED;
use super::{SourceOptions, imagenet, layouts, listing, notes, small, table_files};
use crate::error::{Error, Result};

/// Endings of the shards of tars and of tables.
pub const TAR: &str = ".tar";
pub const TABLE: &str = ".parquet";

/// The forms of sets, as their files tell them.
pub enum Form {
    Official,
    /// CIFAR or IDX, which training reads as it is.
    Small,
    Tables(ShardFiles),
    Tars(ShardFiles),
    Folders,
}

impl Form {
    /// The form of the set that lies in this folder, if it is not one of folders.
    ///
    /// Fails where there is the rest of a prepared set, or shards of several sets.
    fn at(path: &Path) -> Result<Option<Form>> {
        if let Some(error) = torso(path) {
            return Err(error);
        }
        if imagenet::is_there(path) {
            return Ok(Some(Form::Official));
        }
        if small::is_there(path)? {
            return Ok(Some(Form::Small));
        }
        if layouts::has_train(path) {
            return Ok(None);
        }
        if let Some(files) = table_files::find(path)? {
            return Ok(Some(Form::Tables(files)));
        }
        Ok(shard_files::find(path, TAR)?.map(Form::Tars))
    }

    /// The form of the shards that `--train` and `--val` name, if they do.
    fn given(path: &Path, options: &SourceOptions) -> Result<Option<Form>> {
        Ok(match shard_files::given(path, options, TAR)? {
            Some(files) => Some(Form::Tars(files)),
            None => shard_files::given(path, options, TABLE)?.map(Form::Tables),
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Form::Official => "the official files of ILSVRC 2012",
            Form::Small => "the files of CIFAR or MNIST",
            Form::Tables(_) => "Hugging Face's tables",
            Form::Tars(_) => "WebDataset tars",
            Form::Folders => "folders of images",
        }
    }

    /// Fails where a flag is given that this form has no use for.
    fn check(&self, path: &Path, options: &SourceOptions) -> Result<()> {
        let unused = [
            ("--train", options.train.is_some() && matches!(self, Form::Official | Form::Small)),
            ("--val", options.val.is_some() && matches!(self, Form::Official | Form::Small)),
            ("--classes-from", options.classes_from.is_some() && !matches!(self, Form::Folders)),
            ("--image-column", options.image_column.is_some() && !matches!(self, Form::Tables(_))),
            ("--label-column", options.label_column.is_some() && !matches!(self, Form::Tables(_) | Form::Folders)),
        ];
        match unused.iter().find(|(_, is_unused)| *is_unused) {
            Some((flag, _)) => Err(Error::data(path, format!("here are {}, which {flag} does not fit", self.name()))),
            None => Ok(()),
        }
    }
}

/// Where the set is, and its form: in `path`, or in the one folder there that holds a set.
pub fn locate(path: &Path, options: &SourceOptions, notes: &mut Vec<String>) -> Result<(PathBuf, Form)> {
    let (path, form) = find(path, options, notes)?;
    form.check(&path, options)?;
    Ok((path, form))
}

fn find(path: &Path, options: &SourceOptions, notes: &mut Vec<String>) -> Result<(PathBuf, Form)> {
    if let Some(form) = Form::given(path, options)? {
        return Ok((path.to_owned(), form));
    }
    if let Some(form) = Form::at(path)? {
        if let (Form::Tars(_) | Form::Tables(_), Some(flag)) = (&form, given_flag(options)) {
            let problem = format!(
                "{flag} names a folder without shards, but here are {}; name files or folders of them",
                form.name()
            );
            return Err(Error::data(path, problem));
        }
        return Ok((path.to_owned(), form));
    }
    if listing::holds_images(path) || !path.is_dir() {
        return Ok((path.to_owned(), Form::Folders));
    }
    let mut inner = Vec::new();
    for folder in listing::list(path, &mut notes::Notes::default())?.folders {
        inner.extend(Form::at(&folder)?.map(|form| (folder, form)));
    }
    if inner.len() > 1 {
        let seen: Vec<String> =
            inner.iter().map(|(folder, form)| format!("{} ({})", folder.display(), form.name())).collect();
        let shards = inner.iter().all(|(_, form)| matches!(form, Form::Tars(_) | Form::Tables(_)));
        let or = if shards { ", or name the parts of a set with --train and --val" } else { "" };
        let problem = format!("holds more than one set: {}; give the folder of one of them{or}", seen.join(", "));
        return Err(Error::data(path, problem));
    }
    let Some((folder, form)) = inner.pop() else { return Ok((path.to_owned(), Form::Folders)) };
    notes.push(format!("read from {}, the one folder in {} with a set", folder.display(), path.display()));
    Ok((folder, form))
}

fn given_flag(options: &SourceOptions) -> Option<&'static str> {
    let flags = [("--train", &options.train), ("--val", &options.val)];
    flags.iter().find(|(_, given)| given.is_some()).map(|(flag, _)| *flag)
}

/// The form of the set in a folder, in words, if there is one that `prepare` reads.
pub fn form_of(path: &Path) -> Option<&'static str> {
    let form = locate(path, &SourceOptions::default(), &mut Vec::new()).ok()?.1;
    (!matches!(form, Form::Folders) || listing::holds_images(path)).then(|| form.name())
}

/// Names the rest of a prepared set, which has its shards and not its description: its classes are not known.
pub fn torso(path: &Path) -> Option<Error> {
    let has = |name: &str| path.join(name).is_file();
    let has_shard =
        ["train", "val"].iter().any(|part| has(&format!("{part}-000000.tar")) && has(&format!("{part}-000000.tsv")));
    (has_shard && !has(PREPARED)).then(|| {
        let problem = format!(
            "looks like a prepared set without {PREPARED}, which names its classes and shards; copy that file, too, or \
             prepare the set again from its source"
        );
        Error::data(path, problem)
    })
}
