//! Failures, told so that a user can act on them.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a data set. The message names the file or folder, what was expected and found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A data file is missing or malformed.
    #[error("data: {}: {problem}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
    },
    /// The operating system refused a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "open"...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// [`Error::Data`].
    pub fn data(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Data { path: path.into(), problem: problem.into() }
    }

    /// [`Error::Io`] with the system's reason, which is given last.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// The problem without the path.
    pub fn problem(&self) -> String {
        match self {
            Error::Data { problem, .. } => problem.clone(),
            Error::Io { source, .. } => source.to_string(),
        }
    }
}
