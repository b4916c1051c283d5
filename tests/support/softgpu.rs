//! Building and using the software CUDA device (tests/softgpu), once for all test programs.

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alexnet_split::backend::Precision;
use alexnet_split::backend::cuda::CudaBackend;
use alexnet_split::backend::cuda::device::Gpu;
use alexnet_split::backend::cuda::kernels::Kernels;
use alexnet_split::backend::cuda::libraries;
use alexnet_split::backend::cuda::sources;
use alexnet_split::backend::cuda::watch::Watch;

/// The compiler's flags.
const COMPILE: [&str; 8] = ["-std=c++20", "-O2", "-g1", "-march=native", "-fPIC", "-shared", "-pthread", "-Wall"];

/// The folder with libcuda.so, libnvrtc.so and libnccl.so of the software device; `None`, with a printed note, where
/// there is no C++20 compiler to make them.
pub fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(build);
    if folder.is_none() {
        eprintln!("skipped: no C++ compiler");
    }
    folder.as_deref()
}

/// The folder that keeps compiled kernels between test programs and runs: with the device that they were compiled for.
pub fn cache() -> Option<PathBuf> {
    Some(folder()?.join("kernels"))
}

/// The compiler: what CXX says, or g++.
fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".into())
}

fn build() -> Option<PathBuf> {
    let version = Command::new(compiler()).arg("--version").output().ok().filter(|output| output.status.success())?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/softgpu");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&sources).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cpp" || extension == "h"));
    files.sort();
    let mut hasher = DefaultHasher::new();
    (version.stdout, COMPILE, &sources).hash(&mut hasher);
    files.iter().for_each(|file| std::fs::read(file).unwrap().hash(&mut hasher));
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tmp.join(format!("softgpu-{:016x}", hasher.finish()));

    // Test programs run one after another or, with other runners, at once.
    let lock: File =
        OpenOptions::new().create(true).truncate(false).write(true).open(tmp.join("softgpu.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.exists() {
        let unfinished = tmp.join("softgpu-unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        std::fs::create_dir_all(&unfinished).unwrap();
        let library = unfinished.join("libsoftgpu.so");
        // Kernels are compiled with the header that the device was built with, whatever becomes of the source.
        let include = format!("-DSOFTGPU_INCLUDE_DIR=\"{}\"", folder.display());
        std::fs::copy(sources.join("softgpu.h"), unfinished.join("softgpu.h")).unwrap();
        let cpp = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cpp"));
        let built = Command::new(compiler())
            .args(COMPILE)
            .args([&include, "-Wl,-soname,libcuda.so", "-o"])
            .arg(&library)
            .args(cpp)
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "the software CUDA device: {}", String::from_utf8_lossy(&built.stderr));
        for name in ["libcuda.so", "libnvrtc.so", "libnccl.so"] {
            std::os::unix::fs::symlink("libsoftgpu.so", unfinished.join(name)).unwrap();
        }
        std::fs::rename(&unfinished, &folder).unwrap();
    }
    Some(folder)
}

/// Whether the dynamic loader finds a library of this machine.
pub fn has_library(name: &str) -> bool {
    // SAFETY: the libraries asked for are CUDA's, which may be loaded anywhere.
    unsafe { libloading::Library::new(name) }.is_ok()
}

/// Environment variable: 1 lets the tests of operations run on this machine's first GPU, not on the software device.
const REAL: &str = "ALEXNET_SPLIT_TEST_GPU";

/// A GPU of the software device in this process, or the machine's own where the environment says so.
pub fn gpu() -> Option<Gpu> {
    if std::env::var(REAL).is_ok_and(|value| value == "1") {
        return Some(Gpu::open(0).unwrap());
    }
    let folder = folder()?;
    libraries::search_first(folder);
    sources::keep_compiled_in(&cache()?);
    Some(Gpu::open(0).unwrap())
}

/// A stream on it.
pub fn backend(precision: Precision) -> Option<CudaBackend> {
    let gpu = gpu()?;
    let kernels = Arc::new(Kernels::load(&gpu, precision).unwrap());
    let watch = Watch::new(0, Duration::from_secs(60));
    Some(CudaBackend::new(gpu, kernels, watch).unwrap())
}

/// `command` with the software device as its CUDA.
pub fn with_gpus(command: &mut Command, gpus: usize) -> Option<&mut Command> {
    let folder = folder()?;
    Some(
        command
            .env(libraries::FOLDERS, folder)
            .env(alexnet_split::disk::CACHE, cache()?)
            .env("SOFTGPU_DEVICES", gpus.to_string()),
    )
}
