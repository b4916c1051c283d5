//! What was seen in a data set and left alone, counted by kind: a line each.

use std::fmt::Display;

/// Kinds in the order in which they were met, how often each was, and the first example.
#[derive(Default)]
pub struct Notes(Vec<(&'static str, usize, String)>);

impl Notes {
    /// Counts one more of a kind, whose name ends the sentence "3 ...".
    pub fn add(&mut self, kind: &'static str, example: impl Display) {
        self.add_many(kind, 1, example);
    }

    /// Counts several of a kind.
    pub fn add_many(&mut self, kind: &'static str, count: usize, example: impl Display) {
        match self.0.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, before, _)) => *before += count,
            None => self.0.push((kind, count, example.to_string())),
        }
    }

    /// A line a kind.
    pub fn say(&self) -> Vec<String> {
        self.0.iter().map(|(kind, count, first)| format!("{count} {kind}, {first} among them")).collect()
    }
}
