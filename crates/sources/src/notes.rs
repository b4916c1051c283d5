//! What was seen in a data set and left alone, counted by kind: a line each.

use std::fmt::Display;

/// Kinds in the order in which they were met, how often each was, and the first example; before them lines of their own.
#[derive(Default)]
pub struct Notes {
    lines: Vec<String>,
    kinds: Vec<(String, usize, String)>,
    used: Vec<String>,
}

impl Notes {
    /// Counts one more of a kind, whose name ends the sentence "3 ...".
    pub fn add(&mut self, kind: &str, example: impl Display) {
        self.add_many(kind, 1, example);
    }

    /// Counts several of a kind.
    pub fn add_many(&mut self, kind: &str, count: usize, example: impl Display) {
        if !self.used.is_empty() && self.used.contains(&example.to_string()) {
            return;
        }
        match self.kinds.iter_mut().find(|(known, ..)| known == kind) {
            Some((_, before, _)) => *before += count,
            None => self.kinds.push((kind.to_owned(), count, example.to_string())),
        }
    }

    /// Adds a line that counts nothing.
    pub fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Keeps what is used after all, such as a file of labels, from being counted.
    pub fn uses(&mut self, example: impl Display) {
        self.used.push(example.to_string());
    }

    /// A line a kind.
    pub fn say(&self) -> Vec<String> {
        let kind = |(kind, count, first): &(String, usize, String)| format!("{count} {kind}, {first} among them");
        self.lines.iter().cloned().chain(self.kinds.iter().map(kind)).collect()
    }
}
