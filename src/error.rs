//! All failures of the library, with messages that a user can act on, and the exit code of each kind.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use alexnet_split_gpu::GpuTrouble;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of the library. The message names the thing, what was expected and found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that does not exist.
    #[error("{0}")]
    Usage(String),
    /// A recipe's key or value is wrong.
    #[error("recipe key `{key}`: {problem}")]
    Recipe {
        /// The dotted key, or the recipe's name.
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
    /// A data file is missing or malformed.
    #[error("data: {}: {problem}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
    },
    /// Some of several things failed; each failure was reported when it happened.
    #[error("{failed} of {of} {what} failed; the first: {first}")]
    Several {
        /// The number that failed.
        failed: usize,
        /// The number of all.
        of: usize,
        /// Their kind, in the plural.
        what: &'static str,
        /// The first failure; it decides the exit code.
        first: Box<Error>,
    },
    /// A run directory or checkpoint cannot be used.
    #[error("run: {}: {problem}", path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
    },
    /// A checkpoint is not as it was written.
    #[error("checkpoint {}: damaged: {problem}", path.display())]
    DamagedCheckpoint {
        /// Its folder.
        path: PathBuf,
        /// The problem, and the file.
        problem: String,
    },
    /// The disk has no room for a run's checkpoints.
    #[error("run: {}: {problem}", path.display())]
    NoSpace {
        /// The run's folder.
        path: PathBuf,
        /// The free space, the needed space, and what to do.
        problem: String,
    },
    /// The user or the system ended the run, which has been saved.
    #[error("ended by {signal}: saved {} after step {step}; continue with --resume {}", checkpoint.display(), run.display())]
    Interrupted {
        /// The signal.
        signal: Signal,
        /// Steps done.
        step: u64,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The run.
        run: PathBuf,
    },
    /// The operating system refused a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write", "create"...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The CPU cannot be used as asked.
    #[error("{0}")]
    Device(String),
    /// A GPU, or what it takes to use it, is missing or failed.
    #[error("{message}")]
    Gpu {
        /// The kind of trouble; decides the exit code.
        trouble: GpuTrouble,
        /// The failure, the thing that it happened to, and what to do.
        message: String,
    },
    /// The loss is not finite, far too large, or jumped: the step was not applied, or not saved.
    #[error("step {step}: {why}, {advice}")]
    Diverged {
        /// The step.
        step: u64,
        /// The problem with the loss.
        why: String,
        /// The places of the details and of the last good weights, and what to do.
        advice: String,
    },
    /// The other stream ended in the middle of a step.
    #[error("stream {stream}: {what}: the other stream has ended")]
    ExchangeClosed {
        /// The stream whose peer has ended.
        stream: usize,
        /// The exchange in progress.
        what: String,
    },
    /// The other stream sent something other than expected: the two do not run the same network.
    #[error("stream {stream}: expected {expected} from the other stream, got {found}")]
    ExchangeMismatch {
        /// The stream that noticed.
        stream: usize,
        /// The expected swap.
        expected: String,
        /// The swap that arrived.
        found: String,
    },
    /// A stream's thread panicked: a defect of this program.
    #[error("stream {stream} stopped at an internal error: {message}; please report it")]
    StreamPanicked {
        /// The stream.
        stream: usize,
        /// The panic's message.
        message: String,
    },
    /// The gradients do not agree with finite differences.
    #[error("check-grads: {failed} of {checked} checks are out of tolerance")]
    GradientCheck {
        /// Checks out of tolerance.
        failed: usize,
        /// Checks made.
        checked: usize,
    },
    /// A peer program (PyTorch) could not be run.
    #[error("{0}")]
    Peer(String),
}

/// Exit code of a full disk.
pub const NO_SPACE: u8 = 20;

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A signal that ends a run with everything saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Int = 2,
    /// `kill`, and what batch systems send before the end.
    Term = 15,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Signal::Int => "SIGINT",
            Signal::Term => "SIGTERM",
        })
    }
}

impl From<alexnet_split_sources::Error> for Error {
    fn from(error: alexnet_split_sources::Error) -> Error {
        match error {
            alexnet_split_sources::Error::Data { path, problem } => Error::Data { path, problem },
            alexnet_split_sources::Error::Io { action, path, source } => Error::Io { action, path, source },
        }
    }
}

impl From<alexnet_split_net::Error> for Error {
    fn from(error: alexnet_split_net::Error) -> Error {
        match error {
            alexnet_split_net::Error::Recipe { key, problem } => Error::Recipe { key, problem },
            alexnet_split_net::Error::Net { layer, problem } => Error::Net { layer, problem },
        }
    }
}

impl From<alexnet_split_gpu::Error> for Error {
    fn from(error: alexnet_split_gpu::Error) -> Error {
        Error::gpu(error.trouble, error.message)
    }
}

impl Error {
    /// A [`Error::Gpu`].
    pub fn gpu(trouble: GpuTrouble, message: impl Into<String>) -> Error {
        Error::Gpu { trouble, message: message.into() }
    }

    /// A [`Error::Recipe`].
    pub fn recipe(key: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Recipe { key: key.into(), problem: problem.into() }
    }

    /// A [`Error::Net`].
    pub fn net(layer: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Net { layer: layer.into(), problem: problem.into() }
    }

    /// A [`Error::Data`].
    pub fn data(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Data { path: path.into(), problem: problem.into() }
    }

    /// A [`Error::Run`].
    pub fn run(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::Run { path: path.into(), problem: problem.into() }
    }

    /// A [`Error::DamagedCheckpoint`].
    pub fn damaged(path: impl Into<PathBuf>, problem: impl Into<String>) -> Error {
        Error::DamagedCheckpoint { path: path.into(), problem: problem.into() }
    }

    /// Wraps an [`std::io::Error`] with what was being done to which file; for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// The problem, without the file's name.
    pub fn problem(&self) -> String {
        match self {
            Error::Data { problem, .. } | Error::Run { problem, .. } => problem.clone(),
            Error::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// The cause among the failures of both streams: an exchange fails too when the other stream or its GPU does.
    pub fn cause(failures: impl IntoIterator<Item = Error>) -> Option<Error> {
        failures.into_iter().min_by_key(|error| match error {
            Error::ExchangeClosed { .. } => 2,
            Error::Gpu { trouble: GpuTrouble::Exchange, .. } => 1,
            _ => 0,
        })
    }

    /// The program's exit code for this failure; `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Recipe { .. } | Error::Net { .. } => 2,
            Error::Data { .. } => 3,
            Error::Several { first, .. } => first.exit_code(),
            Error::Run { .. } | Error::DamagedCheckpoint { .. } => 4,
            Error::Device(_) => 5,
            Error::Gpu { trouble, .. } => *trouble as u8,
            Error::Diverged { .. } => 6,
            Error::GradientCheck { .. } => 7,
            Error::ExchangeClosed { .. } | Error::ExchangeMismatch { .. } | Error::StreamPanicked { .. } => 8,
            Error::NoSpace { .. } => NO_SPACE,
            Error::Io { source, .. } if is_full(source.kind()) => NO_SPACE,
            Error::Io { .. } | Error::Peer(_) => 1,
            // As shells say it.
            Error::Interrupted { signal, .. } => 128 + *signal as u8,
        }
    }
}
