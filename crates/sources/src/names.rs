//! Files of class names: text with a name a line, in the order of the classes' numbers.

use std::path::Path;

use crate::error::{Error, Result};

/// The names in a file: UTF-8, with or without a byte order mark, its lines ended as on any system.
///
/// Fails, naming the file, where it is no such text, has no names, or an empty line before the last name: numbers are
/// counted by lines, and it is not known whether that line counts.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = text(path)?;
    let names: Vec<String> = text.trim_end().split('\n').map(|line| line.trim().to_owned()).collect();
    match names.iter().position(String::is_empty) {
        Some(_) if names.len() == 1 => Err(Error::data(path, "has no names; expected one a line")),
        Some(at) => Err(Error::data(path, format!("line {} is empty; expected a name in each line", at + 1))),
        None => Ok(names),
    }
}

/// A file's text, without a byte order mark and with lines that end in `\n`.
///
/// Fails, naming the file, where it is not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(Error::data(path, "is not UTF-8 (it may be UTF-16 or Latin-1); save it as UTF-8"));
    };
    Ok(text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n"))
}
