//! The files of `kernels/`, and how they are compiled.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use alexnet_split_gpu::compiler::{KernelFile, Program};

use crate::backend::Precision;
use crate::disk;

/// Block tile of the matrix products: rows and columns of the result and depth of one step. The kernels are compiled
/// with them (kernels/gemm.cuh) and the host computes grids from them.
pub const TILE_ROWS: usize = 64;
/// See [`TILE_ROWS`].
pub const TILE_COLS: usize = 128;
/// See [`TILE_ROWS`].
pub const TILE_DEPTH: usize = 16;

/// Threads per block of the matrix products; the kernels' `__launch_bounds__` are these constants, too.
pub const GEMM_THREADS: u32 = 128;
/// Threads per block of the softmax.
pub const SOFTMAX_THREADS: u32 = 128;
/// Threads per block of local response normalization.
pub const LRN_THREADS: u32 = 128;
/// Threads per block of the kernels with a thread for each element, and of sums over one channel.
pub const ELEMENT_THREADS: u32 = 256;

/// The file of this name in `kernels/`.
macro_rules! source {
    ($name:literal) => {
        $crate::backend::cuda::compiler::KernelFile {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/", $name)),
        }
    };
}
pub(super) use source;

/// The headers that kernels include, by their names alone.
const HEADERS: [KernelFile; 7] = [
    source!("gemm.cuh"),
    source!("philox.cuh"),
    source!("ptx.cuh"),
    source!("shapes.cuh"),
    KernelFile { name: "layouts.cuh", ..source!("bf16/layouts.cuh") },
    KernelFile { name: "lrn.cuh", ..source!("bf16/lrn.cuh") },
    KernelFile { name: "tile.cuh", ..source!("bf16/tile.cuh") },
];

/// A file as it is compiled for a precision.
pub fn program(source: KernelFile, precision: Precision) -> Program {
    let options = vec![
        "--std=c++17".into(),
        "-default-device".into(),
        // Costs nothing when it runs; compute-sanitizer and profilers can name lines.
        "-lineinfo".into(),
        format!("-DPRECISION={}", precision as u32),
        // For files that serve both engines.
        format!("-DBF16_MAPS={}", u32::from(precision == Precision::Bf16)),
        format!("-DTILE_ROWS={TILE_ROWS}"),
        format!("-DTILE_COLS={TILE_COLS}"),
        format!("-DTILE_DEPTH={TILE_DEPTH}"),
        format!("-DGEMM_THREADS={GEMM_THREADS}u"),
        format!("-DSOFTMAX_THREADS={SOFTMAX_THREADS}u"),
        format!("-DLRN_THREADS={LRN_THREADS}u"),
        format!("-DELEMENT_THREADS={ELEMENT_THREADS}u"),
    ];
    Program { source, headers: &HEADERS, options }
}

static OWN_CACHE: OnceLock<PathBuf> = OnceLock::new();

/// Keeps compiled kernels in `folder`, whatever the environment says. Only the first call counts.
pub fn keep_compiled_in(folder: &Path) {
    let _ = OWN_CACHE.set(folder.to_owned());
}

/// The folder of compiled kernels.
pub fn cache_folder() -> Option<PathBuf> {
    OWN_CACHE.get().cloned().or_else(disk::cache_folder)
}
