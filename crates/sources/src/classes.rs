//! The classes of a set, by the names that folders and labels have for them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::notes::Notes;
use crate::error::{Error, Result};
use crate::names;
use crate::plurals::counted;

/// Classes in the order of their numbers.
pub struct Classes {
    /// What folders and labels call them.
    pub keys: Vec<String>,
    /// What people call them.
    pub names: Vec<String>,
    /// The file that lists them, if one does.
    pub listed_in: Option<PathBuf>,
    by_key: HashMap<String, u32>,
}

impl Classes {
    /// Classes that were found.
    pub fn found(keys: Vec<String>) -> Classes {
        let by_key = keys.iter().zip(0..).map(|(key, class)| (key.clone(), class)).collect();
        Classes { names: keys.clone(), keys, listed_in: None, by_key }
    }

    /// Reads a list: a name a line, or a WordNet number and the names (`n01440764 tench, Tinca tinca`).
    ///
    /// Fails as [`names::read`], and where a class is listed twice.
    pub fn read(path: &Path) -> Result<Classes> {
        let (keys, names): (Vec<String>, Vec<String>) = names::read(path)?
            .into_iter()
            .map(|line| match line.split_once(char::is_whitespace) {
                Some((first, names)) if is_wordnet_number(first) => (first.to_owned(), names.trim().to_owned()),
                _ => (line.clone(), line),
            })
            .unzip();
        let mut classes = Classes::found(keys);
        if let Some(twice) = classes.keys.iter().zip(0..).find(|(key, class)| classes.by_key[*key] != *class) {
            return Err(Error::data(path, format!("lists {:?} twice; a class has one line", twice.0)));
        }
        (classes.names, classes.listed_in) = (names, Some(path.to_owned()));
        Ok(classes)
    }

    /// Whether a class is called so.
    pub fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// The class that a folder or a label means. Numbers mean lines of a list that has names, from 0.
    pub fn index(&self, key: &str) -> Option<u32> {
        let number = || key.parse().ok().filter(|&number: &u32| (number as usize) < self.keys.len());
        let found = self.by_key.get(key).copied();
        found.or_else(|| number().filter(|_| self.listed_in.is_some() && !self.are_numbers()))
    }

    /// Whether all are called by numbers.
    pub fn are_numbers(&self) -> bool {
        self.keys.iter().all(|key| key.parse::<u32>().is_ok())
    }

    /// Where they come from, for messages.
    pub fn origin(&self) -> String {
        match &self.listed_in {
            Some(path) => format!("the {} of {}", counted(self.keys.len(), "class[es]"), path.display()),
            None => format!("the {} to train on", counted(self.keys.len(), "class[es]")),
        }
    }
}

/// Says which classes are called alike, if any: they may be one class.
pub fn alike(classes: &[String]) -> Vec<String> {
    let (mut first_by_name, mut notes) = (HashMap::new(), Notes::default());
    for class in classes {
        match first_by_name.insert(plain(class), class) {
            // Several classes of ImageNet have one name.
            Some(other) if other != class => notes.add(
                "class[es] called as another but for capitals, spaces, signs or zeros, read as [one of its|ones of their] own",
                format!("{class:?} beside {other:?}"),
            ),
            _ => {}
        }
    }
    notes.say()
}

/// A name without what is easily written in several ways: capitals, signs between words, zeros before and behind numbers.
fn plain(name: &str) -> String {
    if let Some(number) = name.trim().parse::<f64>().ok().filter(|number| number.is_finite()) {
        return number.to_string();
    }
    let words = name.split(|c: char| c.is_whitespace() || ['_', '-'].contains(&c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Whether a word is a WordNet number, such as n01440764.
pub fn is_wordnet_number(word: &str) -> bool {
    word.len() == 9 && word.starts_with('n') && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}
