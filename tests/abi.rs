//! What this program takes NVRTC and NCCL to be, compared with NVIDIA's own headers and libraries by a C++ compiler and
//! the dynamic loader: the types of functions, the layout of structs, the values of enums, and the names in each library.
//! scripts/check-abi.sh fetches them and runs this; without them there is nothing to compare with.

use std::fmt::Write;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use alexnet_split::backend::cuda::libraries::{Nccl, Nvrtc, Signature};
use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};

/// Environment variable: the folder below which NVIDIA's files are, of several versions.
const FOLDER: &str = "ALEXNET_SPLIT_ABI";

/// The files of that name below the folder, at least two, which are of two versions.
fn found(name: &str) -> Option<Vec<PathBuf>> {
    fn collect(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), name, found);
            } else if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path());
            }
        }
    }
    let Some(folder) = std::env::var_os(FOLDER) else {
        eprintln!("skipped: run scripts/check-abi.sh, which sets {FOLDER}");
        return None;
    };
    let mut files = Vec::new();
    collect(folder.as_ref(), name, &mut files);
    assert!(files.len() >= 2, "two versions of {name} are expected in {}: {files:?}", folder.display());
    Some(files)
}

/// A type of Rust as C++ writes it.
fn c_type(rust: &str) -> String {
    let pointer = |to: &str, of: &str| format!("{}{of}*", c_type(to));
    match (rust.strip_prefix("*mut "), rust.strip_prefix("*const ")) {
        (Some(to), _) => pointer(to, ""),
        (_, Some(to)) => pointer(to, " const"),
        _ => match rust {
            "c_int" => "int".into(),
            "c_char" => "char".into(),
            "c_void" => "void".into(),
            "usize" => "size_t".into(),
            name => name.into(),
        },
    }
}

/// The program that only compiles where each function has the type that it is called with.
fn functions(all: &[Signature]) -> String {
    let mut text = String::new();
    for (name, arguments, result) in all {
        let arguments: Vec<String> = arguments.iter().map(|argument| c_type(argument)).collect();
        let (result, arguments) = (c_type(result), arguments.join(", "));
        writeln!(text, "static_assert(std::is_same_v<decltype(&{name}), {result} (*)({arguments})>, \"{name}\");")
            .unwrap();
    }
    text
}

/// A check that `what` in the header is `value` here.
fn equal(text: &mut String, what: &str, value: impl std::fmt::Display) {
    writeln!(text, "static_assert({what} == {value}, \"here it is {value}\");").unwrap();
}

macro_rules! fields {
    ($text:ident, $type:ident: $($field:ident),*) => {
        $(
            equal(&mut $text, concat!("offsetof(", stringify!($type), ", ", stringify!($field), ")"), offset_of!($type, $field));
            equal(
                &mut $text,
                concat!("sizeof(", stringify!($type), "::", stringify!($field), ")"),
                size_of_field(|value: &$type| &raw const value.$field),
            );
        )*
    };
}

fn size_of_field<S, F>(_: impl Fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

fn compiles(header: &Path, checks: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    // nccl.h takes CUDA's handles from here; all it needs of them is that they are pointers.
    let handles = "typedef struct CUstream_st* cudaStream_t; typedef struct CUevent_st* cudaEvent_t;";
    for (name, text) in [("cuda_runtime.h", handles), ("cuda_fp16.h", "")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let source = folder.path().join("abi.cpp");
    let include = format!("#include \"{}\"", header.display());
    std::fs::write(&source, format!("#include <cstddef>\n#include <type_traits>\n{include}\n{checks}")).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let output = Command::new(compiler)
        .args(["-std=c++20", "-fsyntax-only", "-Wno-invalid-offsetof", "-I"])
        .arg(folder.path())
        .arg(&source)
        .output()
        .expect("a C++ compiler");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn nccl_is_what_its_header_says() {
    let Some(headers) = found("nccl.h") else { return };
    let mut text = functions(Nccl::FUNCTIONS);
    equal(&mut text, "sizeof(ncclUniqueId)", size_of::<ncclUniqueId>());
    equal(&mut text, "sizeof(ncclComm_t)", size_of::<ncclComm_t>());
    equal(&mut text, "sizeof(ncclResult_t)", size_of::<ncclResult_t>());
    equal(&mut text, "sizeof(ncclDataType_t)", size_of::<ncclDataType_t>());
    equal(&mut text, "ncclSuccess", ncclResult_t::ncclSuccess as u32);
    equal(&mut text, "ncclInProgress", ncclResult_t::ncclInProgress as u32);
    equal(&mut text, "ncclFloat32", ncclDataType_t::ncclFloat32 as u32);
    // A newer NCCL has more fields behind these; the config's size and version tell it which of them it has got.
    fields!(text, ncclConfig_t: size, magic, version, blocking, cgaClusterSize, minCTAs, maxCTAs, netName, splitShare);
    writeln!(text, "static_assert(sizeof(ncclConfig_t) >= {}, \"shorter than here\");", size_of::<ncclConfig_t>())
        .unwrap();
    let config = alexnet_split::exchange::nccl::config();
    text += "constexpr ncclConfig_t initial = NCCL_CONFIG_INITIALIZER;\n";
    equal(&mut text, "initial.magic", format!("{}u", config.magic));
    for field in ["cgaClusterSize", "minCTAs", "maxCTAs", "splitShare"] {
        equal(&mut text, &format!("initial.{field}"), format!("({} - 1)", config.minCTAs + 1));
    }
    equal(&mut text, "initial.netName", "nullptr");
    for header in headers {
        compiles(&header, &text).unwrap_or_else(|error| panic!("{}: {error}", header.display()));
        // The checks can fail: a field at another place is one.
        let wrong =
            text.replacen("offsetof(ncclConfig_t, blocking) == 16", "offsetof(ncclConfig_t, blocking) == 20", 1);
        assert!(wrong != text && compiles(&header, &wrong).is_err());
        let wrong = text.replacen(
            "ncclSend), ncclResult_t (*)(void const*, size_t",
            "ncclSend), ncclResult_t (*)(void const*, int",
            1,
        );
        assert!(wrong != text && compiles(&header, &wrong).is_err());
    }
}

#[test]
fn nvrtc_is_what_its_header_says() {
    let Some(headers) = found("nvrtc.h") else { return };
    let mut text = functions(Nvrtc::FUNCTIONS);
    equal(&mut text, "sizeof(nvrtcProgram)", size_of::<nvrtcProgram>());
    equal(&mut text, "sizeof(nvrtcResult)", size_of::<nvrtcResult>());
    equal(&mut text, "NVRTC_SUCCESS", nvrtcResult::NVRTC_SUCCESS as u32);
    equal(&mut text, "NVRTC_ERROR_COMPILATION", nvrtcResult::NVRTC_ERROR_COMPILATION as u32);
    for header in headers {
        compiles(&header, &text).unwrap_or_else(|error| panic!("{}: {error}", header.display()));
    }
}

#[test]
fn every_function_is_in_the_libraries() {
    for (name, functions) in [("libnccl.so.", Nccl::FUNCTIONS), ("libnvrtc.so.", Nvrtc::FUNCTIONS)] {
        for path in found(name).unwrap_or_default() {
            // SAFETY: NVIDIA's libraries run nothing but their own initialization.
            let library = unsafe { libloading::Library::new(&path) };
            let library = library.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            for (function, ..) in functions {
                // SAFETY: it is looked up, not called.
                let found = unsafe { library.get::<unsafe extern "C" fn()>(*function) };
                assert!(found.is_ok(), "{} has no {function}", path.display());
            }
            // SAFETY: as above.
            assert!(unsafe { library.get::<unsafe extern "C" fn()>("ncclNoSuchFunction") }.is_err());
            eprintln!("{}: all {} functions", path.display(), functions.len());
        }
    }
}
