//! GPUs as the program needs them, whatever it computes: the driver, NVRTC and NCCL, found at run time; a GPU, its memory
//! and page-locked memory of the host; machine code of kernels, made once for each kind of GPU.

pub mod compiler;
pub mod device;
pub mod libraries;

/// The result of what may fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A GPU, or what it takes to use it, is missing or failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of trouble.
    pub trouble: GpuTrouble,
    /// The failure, the thing that it happened to, and what to do.
    pub message: String,
}

impl Error {
    fn new(trouble: GpuTrouble, message: impl Into<String>) -> Error {
        Error { trouble, message: message.into() }
    }
}

/// The kinds of trouble with GPUs, each with an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuTrouble {
    /// No NVIDIA driver, or one that does not answer.
    NoDriver = 10,
    /// Fewer GPUs than asked for.
    TooFewGpus = 11,
    /// A GPU older than the kernels are written for.
    TooOld = 12,
    /// NVRTC is missing, or does not compile the kernels.
    NoCompiler = 13,
    /// NCCL is missing or too old.
    NoNccl = 14,
    /// The GPU's memory is too small.
    OutOfMemory = 15,
    /// One GPU cannot read the other's memory, and device copies were asked for.
    NoPeerAccess = 16,
    /// A CUDA call or a kernel failed.
    Failed = 17,
    /// An exchange failed or passed its deadline.
    Exchange = 18,
    /// The process of the other stream cannot be reached or ended.
    Process = 19,
}
