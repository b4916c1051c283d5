//! The compiler of kernels, from source to machine code: NVRTC, and a cache on disk so that it runs once per GPU type.

use std::ffi::{CString, c_char, c_int};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};

use crate::{Error, GpuTrouble, Result, libraries};

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile {
    /// `conv.cu`
    pub name: &'static str,
    /// CUDA C++.
    pub text: &'static str,
}

/// A file with all that its machine code depends on, besides the GPU and NVRTC.
pub struct Program {
    /// The file.
    pub source: KernelFile,
    /// What it includes, by their names alone.
    pub headers: &'static [KernelFile],
    /// The compiler's options, but for the GPU's.
    pub options: Vec<String>,
}

/// The kind of GPU that code is made for: a compute capability such as 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// 9 of 9.0.
    pub major: u32,
    /// 0 of 9.0.
    pub minor: u32,
}

impl Target {
    /// The oldest that the kernels are written for: asynchronous copies and tf32 came with it.
    pub const OLDEST: Target = Target { major: 8, minor: 0 };

    /// Reads `sm_90`, `sm_90a` or `9.0`.
    pub fn parse(text: &str) -> Option<Target> {
        let digits = text.trim_start_matches("sm_").trim_end_matches('a').replace('.', "");
        let number: u32 = digits.parse().ok().filter(|number| (10..1000).contains(number))?;
        Some(Target { major: number / 10, minor: number % 10 })
    }
}

impl fmt::Display for Target {
    /// As an option of the compiler. Its code also runs on newer GPUs of the same major version.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

/// Machine code of a file, and the compiler's log.
pub struct Compiled {
    /// A cubin, or PTX.
    pub code: Vec<u8>,
    /// Warnings and, on request, registers and spills.
    pub log: String,
}

/// NVRTC's version.
pub fn version() -> Result<(i32, i32)> {
    let nvrtc = libraries::nvrtc()?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: two places to write to.
    check("its version", unsafe { (nvrtc.nvrtcVersion)(&mut major, &mut minor) }, String::new)?;
    Ok((major, minor))
}

/// NVRTC's version, which must be one whose machine code the driver takes.
pub fn version_for_driver() -> Result<(i32, i32)> {
    let (major, minor) = version()?;
    match libraries::driver_major() {
        Some(driver) if major > driver => {
            let text = format!(
                "NVRTC {major}.{minor} makes code that a driver for CUDA {driver} does not take; install \
                 NVRTC {driver} (`pip install {}`), or a driver for CUDA {major}",
                libraries::nvrtc_package(driver)
            );
            Err(Error::new(GpuTrouble::NoCompiler, text))
        }
        _ => Ok((major, minor)),
    }
}

/// The GPU to compile for that stands in for `target`: itself where this NVRTC knows it, else the newest that it knows of
/// the same major version, whose code `target` runs too.
fn known_target(target: Target) -> Result<Target> {
    let nvrtc = libraries::nvrtc()?;
    let mut count: c_int = 0;
    // SAFETY: a place to write to.
    check("its GPUs", unsafe { (nvrtc.nvrtcGetNumSupportedArchs)(&mut count) }, String::new)?;
    let mut known: Vec<c_int> = vec![0; count.max(0) as usize];
    // SAFETY: as many places as NVRTC says.
    check("its GPUs", unsafe { (nvrtc.nvrtcGetSupportedArchs)(known.as_mut_ptr()) }, String::new)?;
    Ok(stand_in(&known, target))
}

/// See [`known_target`]; `known` as NVRTC counts: 90 of 9.0.
fn stand_in(known: &[c_int], target: Target) -> Target {
    let known = known.iter().map(|&number| Target { major: number as u32 / 10, minor: number as u32 % 10 });
    let older = known.filter(|known| known.major == target.major && known.minor <= target.minor);
    // What it does not know at all it refuses itself.
    older.max_by_key(|known| known.minor).unwrap_or(target)
}

/// What is made of a source.
#[derive(Clone, Copy)]
enum Form {
    Cubin,
    Ptx,
}

impl Program {
    /// The machine code for `target`, from the folder `cache` if it is there.
    pub fn load_or_compile(&self, target: Target, cache: Option<&Path>) -> Result<Vec<u8>> {
        let ((major, minor), target) = (version_for_driver()?, known_target(target)?);
        let mut key = format!("NVRTC {major}.{minor}\n{target} {}\n", self.options.join(" "));
        for part in self.headers.iter().chain([&self.source]) {
            key += &format!("// {}\n{}\n", part.name, part.text);
        }
        let file = cache.map(|folder| folder.join(cache_name(self.source.name, &key)));
        if let Some(code) = file.as_deref().and_then(|file| read_cached(file, &key)) {
            return Ok(code);
        }
        let code = self.compile(target, false)?.code;
        if let Some(Err(error)) = file.as_deref().map(|file| write_cached(file, &key, &code)) {
            // A read-only home costs a second at every start, no more.
            let folder = cache.unwrap_or(Path::new("")).display();
            tracing::debug!(%error, "compiled kernels cannot be kept in {folder}; name another folder (see --help)");
        }
        Ok(code)
    }

    /// Compiles it; with `verbose` the log lists registers, shared memory and spills of every kernel.
    pub fn compile(&self, target: Target, verbose: bool) -> Result<Compiled> {
        let more = if verbose { &["--ptxas-options=-v".to_owned()][..] } else { &[] };
        self.build(target, &[&[format!("--gpu-architecture={target}")], more].concat(), Form::Cubin)
    }

    /// The assembly text for GPUs from `target` on, with a zero at its end. A driver compiles it when it is loaded;
    /// `tests/ptx` executes it.
    pub fn compile_to_ptx(&self, target: Target) -> Result<Vec<u8>> {
        let virtual_gpu = target.to_string().replace("sm_", "compute_");
        Ok(self.build(target, &[format!("--gpu-architecture={virtual_gpu}")], Form::Ptx)?.code)
    }

    fn build(&self, target: Target, more: &[String], form: Form) -> Result<Compiled> {
        let source = self.source;
        let nvrtc = libraries::nvrtc()?;
        let (get_size, get) = match form {
            Form::Cubin => (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN),
            Form::Ptx => (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX),
        };
        let c = |text: &str| CString::new(text).unwrap_or_default();
        let (text, name) = (c(source.text), c(source.name));
        let headers: Vec<CString> = self.headers.iter().map(|header| c(header.text)).collect();
        let names: Vec<CString> = self.headers.iter().map(|header| c(header.name)).collect();
        let options: Vec<CString> = more.iter().chain(&self.options).map(|option| c(option)).collect();
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
        let (headers, names, option_pointers) = (pointers(&headers), pointers(&names), pointers(&options));
        let mut program: nvrtcProgram = std::ptr::null_mut();
        // SAFETY: all pointers are to C strings and arrays that live to the end of this function; sizes are theirs; what is
        // read has the size that NVRTC tells.
        unsafe {
            let count = headers.len() as c_int;
            let created = (nvrtc.nvrtcCreateProgram)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                count,
                headers.as_ptr(),
                names.as_ptr(),
            );
            check(source.name, created, String::new)?;
            let compiled =
                (nvrtc.nvrtcCompileProgram)(program, option_pointers.len() as c_int, option_pointers.as_ptr());
            let mut size = 0;
            let mut log = Vec::new();
            if (nvrtc.nvrtcGetProgramLogSize)(program, &mut size) == nvrtcResult::NVRTC_SUCCESS {
                log.resize(size, 0u8);
                (nvrtc.nvrtcGetProgramLog)(program, log.as_mut_ptr().cast());
            }
            let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n', ' ']).to_owned();
            let mut code = Vec::new();
            let result = check(source.name, compiled, || format!("for {target}: {log}")).and_then(|()| {
                check(source.name, get_size(program, &mut size), String::new)?;
                code.resize(size, 0u8);
                check(source.name, get(program, code.as_mut_ptr().cast()), String::new)
            });
            (nvrtc.nvrtcDestroyProgram)(&mut program);
            result.map(|()| Compiled { code, log })
        }
    }
}

fn check(what: &str, result: nvrtcResult, more: impl FnOnce() -> String) -> Result<()> {
    if result == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    let text = format!(
        "NVRTC does not compile {what}: {result:?} {}\n(install an NVRTC that is as new as the driver: it knows the same GPUs)",
        more()
    );
    Err(Error::new(GpuTrouble::NoCompiler, text))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn cache_name(source: &str, key: &str) -> String {
    format!("{}-{:016x}.cubin", source.trim_end_matches(".cu").replace('/', "-"), hash(key.as_bytes()))
}

/// An entry is its key's length, the key, the code's hash and the code: a collision of names, a file cut short and a
/// flipped bit are all seen, and the entry is made anew.
fn read_cached(file: &Path, key: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(file).ok()?;
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (found, rest) = rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
    let (sum, code) = rest.split_first_chunk::<8>()?;
    (found == key.as_bytes() && u64::from_le_bytes(*sum) == hash(code)).then(|| code.to_vec())
}

fn write_cached(file: &Path, key: &str, code: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let bytes = [&(key.len() as u64).to_le_bytes(), key.as_bytes(), &hash(code).to_le_bytes(), code].concat();
    // A name of its own and a rename: two processes at once both succeed, and nobody reads half an entry.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, file));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, expected) in [("sm_80", "sm_80"), ("sm_90a", "sm_90"), ("9.0", "sm_90"), ("sm_120", "sm_120")] {
            assert_eq!(Target::parse(text).unwrap().to_string(), expected);
        }
        assert!(Target::parse("gfx90").is_none() && Target::parse("").is_none());
    }

    #[test]
    fn a_damaged_cache_entry_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/conv.cubin");
        write_cached(&file, "key", b"code of a kernel").unwrap();
        assert_eq!(read_cached(&file, "key").unwrap(), b"code of a kernel");
        assert!(read_cached(&file, "another key").is_none());
        let whole = std::fs::read(&file).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(read_cached(&file, "key").is_none(), "cut at {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 4;
            std::fs::write(&file, flipped).unwrap();
            assert!(read_cached(&file, "key").is_none(), "flipped at {cut}");
        }
        let no_folder = folder.path().join("made/conv.cubin/below/a-file");
        assert!(write_cached(&no_folder, "key", b"code").is_err(), "and no panic");
    }

    #[test]
    fn a_gpu_newer_than_nvrtc_gets_the_code_of_the_one_before() {
        let of = |target: &str| stand_in(&[80, 86, 89, 90, 100, 120], Target::parse(target).unwrap()).to_string();
        let found = ["sm_80", "sm_87", "sm_90", "sm_103", "sm_121", "sm_130"].map(of);
        assert_eq!(found, ["sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "sm_130"]);
    }
}
