//! What can be wrong with a network.

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A table that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or value of the options is wrong.
    #[error("recipe key `{key}`: {problem}")]
    Recipe {
        /// The dotted key.
        key: String,
        /// The problem, and what would be right.
        problem: String,
    },
    /// The table cannot be applied to the image, or cannot be split.
    #[error("network: layer {layer}: {problem}")]
    Net {
        /// The layer's name.
        layer: String,
        /// The problem, and what would be right.
        problem: String,
    },
}

impl Error {
    /// An [`Error::Recipe`].
    pub fn recipe(key: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Recipe { key: key.into(), problem: problem.into() }
    }

    /// An [`Error::Net`].
    pub fn net(layer: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Net { layer: layer.into(), problem: problem.into() }
    }
}
