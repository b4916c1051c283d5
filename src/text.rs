//! Text for people: printing to a standard output that may be closed (`| head -1`) or full, which does not end a run,
//! and numbers as they are read.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::sync::{Mutex, PoisonError};

/// The first failure other than a closed pipe.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints; what [`outln`](crate::outln) and [`out`](crate::out) expand to.
pub fn print(text: Arguments<'_>) {
    let mut stdout = stdout().lock();
    let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Prints to standard error; what [`errln`](crate::errln) expands to.
pub fn print_error(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// A loss as text for people.
pub fn loss_text(loss: f64) -> String {
    if loss.abs() < 1e6 || !loss.is_finite() { format!("{loss:.3}") } else { format!("{loss:.3e}") }
}

/// The candidate that is most similar to a misspelled word, if one is similar.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    alike.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The reason why something was not printed, if anything was not.
pub fn failure() -> Option<std::io::Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// As `println!`, without the panic where the reader has closed the pipe.
#[macro_export]
macro_rules! outln {
    () => { $crate::text::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::text::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, without the panic where the reader has closed the pipe.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::text::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `print!`, without the panic where the reader has closed the pipe.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::text::print(format_args!($($text)*)) };
}
