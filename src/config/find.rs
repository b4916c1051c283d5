//! Recipes by name, from files, and on the base of others.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::named::{CHANGES, RECIPES};
use super::{ABLATIONS, NAMES, Recipe};
use crate::error::{Error, Result};
use crate::net::plan::Plan;
use crate::net::spec::Net;
use crate::text::nearest;

/// The most recipes that may build on each other; more must be a circle.
const MOST_BASES: usize = 8;

impl Recipe {
    /// A built-in recipe by name, or a file: a name with a slash or ending in `.toml`. A file may begin with
    /// `base = "quick"` (or another name, or a file beside it) and then need only say what differs.
    pub fn find(name: &str) -> Result<Recipe> {
        Recipe::find_in(Path::new(""), name, 0)
    }

    /// The same, with files as seen from `folder`; `bases` counts the recipes that referred to this one.
    fn find_in(folder: &Path, name: &str, bases: usize) -> Result<Recipe> {
        if bases > MOST_BASES {
            return Err(Error::recipe(
                "base",
                format!("\"{name}\" refers back to itself; the last base must be one of {}", NAMES.join(", ")),
            ));
        }
        if let Some((name, text)) = RECIPES.iter().chain(&CHANGES).find(|(known, _)| *known == name) {
            return Recipe::from_text(text, name, Path::new(""), bases);
        }
        if name.contains('/') || name.ends_with(".toml") {
            return Recipe::load_in(&folder.join(name), bases);
        }
        let meant = nearest(name, NAMES.into_iter().chain(ABLATIONS))
            .map(|meant| format!(" (did you mean {meant}?)"))
            .unwrap_or_default();
        Err(Error::recipe(name, format!("no such recipe{meant}; use one of {}, or a .toml file", NAMES.join(", "))))
    }

    /// Reads a recipe file.
    pub fn load(path: &Path) -> Result<Recipe> {
        Recipe::load_in(path, 0)
    }

    fn load_in(path: &Path, bases: usize) -> Result<Recipe> {
        let text = read_text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let recipe = Recipe::from_text(&text, &path.display().to_string(), folder, bases)?;
        // An impossible network is reported with the file's name.
        match Net::from_options(&recipe.net).and_then(|net| Plan::all(&net)) {
            Ok(_) => Ok(recipe),
            Err(error) => Err(Error::recipe(path.display().to_string(), error.to_string())),
        }
    }

    /// From the text of a file called `name` in `folder`.
    pub(super) fn from_text(text: &str, name: &str, folder: &Path, bases: usize) -> Result<Recipe> {
        let wrong = |error: toml::de::Error| Error::recipe(name, error.to_string().trim().to_owned());
        let mut table: toml::Table = toml::from_str(text).map_err(wrong)?;
        if let Some(base) = table.remove("base") {
            let base = base.as_str().ok_or_else(|| Error::recipe("base", "expected the name of a recipe"))?.to_owned();
            let mut whole = Recipe::find_in(folder, &base, bases + 1)?.to_table();
            overlay(&mut whole, table);
            table = whole;
        }
        Recipe::from_table(table, name)
    }

    /// With what an ablation changes of its own base changed in this recipe instead; `name` is one of [`ABLATIONS`].
    pub fn ablated(&self, name: &str) -> Result<Recipe> {
        let change = CHANGES.iter().find(|(known, _)| *known == name).and_then(|(_, text)| toml::from_str(text).ok());
        let mut change: toml::Table = change.ok_or_else(|| Error::recipe(name, "no such ablation"))?;
        change.remove("base");
        let mut whole = self.to_table();
        overlay(&mut whole, change);
        whole.insert("name".into(), format!("{}-{name}", self.name).into());
        Recipe::from_table(whole, name)
    }
}

/// A recipe's text, of a file or a pipe.
///
/// Fails where the file is too long, or has no end, as a device may.
fn read_text(path: &Path) -> Result<String> {
    const MOST_BYTES: u64 = 1 << 20;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
    match read.map_err(Error::io("read", path))? as u64 {
        ..=MOST_BYTES => Ok(text),
        _ => Err(Error::recipe(path.display().to_string(), format!("over {MOST_BYTES} bytes; expected a recipe"))),
    }
}

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
