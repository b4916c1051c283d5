//! Every processor gets the instructions that it has, in this program and in the crates below it: the program is run on
//! emulated ones (qemu-user). A missing emulator, or a level that it does not have, is printed, not silently skipped.

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Output};

use support::forms;
use support::place::{Place, TINY, succeeded};

/// Emulated processors and the level that each must get: without AVX, with AVX2, and all that the emulator can do.
#[cfg(target_arch = "x86_64")]
const PROCESSORS: [(&str, &str); 4] =
    [("Nehalem", "plain"), ("Haswell", "avx2"), ("EPYC-Rome", "avx2"), ("Skylake-Server", "avx2")];
#[cfg(target_arch = "x86_64")]
const EMULATOR: &str = "qemu-x86_64";
#[cfg(not(target_arch = "x86_64"))]
const PROCESSORS: [(&str, &str); 1] = [("cortex-a72", "neon")];
#[cfg(not(target_arch = "x86_64"))]
const EMULATOR: &str = "qemu-aarch64";

/// Crates that must be seen to use vectors of 8 numbers on a processor with AVX2: those in which time is spent. This
/// program's own kernels are compiled into pulp's function for a set of instructions.
#[cfg(target_arch = "x86_64")]
const WIDE: [&str; 3] = ["pulp", "fast_image_resize", "libjpeg_turbo_rs"];

/// Whether there is an emulator; says so where there is none.
fn emulated() -> bool {
    let found = Command::new(EMULATOR).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no {EMULATOR} (Debian's qemu-user)");
    }
    found
}

/// The program on an emulated processor.
fn on(place: &Place, processor: &str, options: &[&str], args: &[&str]) -> Output {
    let mut command = Command::new(EMULATOR);
    let program = place.command(&[]);
    command.args(["-cpu", processor]).args(options).arg(program.get_program()).args(args);
    command.current_dir(place.path("")).env("WORLD_SIZE", "1").env_remove(alexnet_split_cpu::simd::LEVEL);
    command.output().unwrap()
}

/// The line that `doctor` has about the processor.
fn about_cpu(output: Output) -> String {
    // It may end with an error about missing GPUs.
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.starts_with("CPU ")).unwrap_or_else(|| panic!("no CPU in {text:?}")).to_owned()
}

#[test]
fn each_processor_gets_the_instructions_that_it_has() {
    if !emulated() {
        return;
    }
    let place = Place::new();
    for (processor, level) in PROCESSORS {
        let line = about_cpu(on(&place, processor, &[], &["doctor"]));
        assert!(line.ends_with(&format!("instructions: {level}")), "{processor} has {level}: {line}");
        // What the processor lacks ends the program: the whole of a small training must do without.
        let training = [&TINY[..], &["--data", "data", "--gpus", "0", "--steps", "1", "--out", processor]].concat();
        let output = on(&place, processor, &[], &training);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &succeeded(output);
        assert!(said.contains(&format!(" {level}, both streams")), "{processor}: {said}");
        let info = std::fs::read_to_string(place.path(processor).join("run.json")).unwrap();
        assert!(info.contains(&format!("\"instructions\": \"{level}\"")), "{info}");
    }
    eprintln!("not emulated: avx512, which qemu's own translation cannot do; seen on processors that have it");
}

/// This machine's own processor: the only way to see AVX-512.
#[test]
#[cfg(target_arch = "x86_64")]
fn this_processor_gets_the_instructions_that_it_has() {
    let has_v4 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
    if flags.is_empty() {
        return eprintln!("skipped: no /proc/cpuinfo");
    }
    let level = match () {
        // Linux shows the flag of tiles where it keeps their state.
        () if has_v4.into_iter().chain(["avx512_bf16", "amx_bf16", "amx_tile"]).all(has) => "amx",
        () if has_v4.into_iter().all(has) => "avx512",
        () if has("avx2") && has("fma") => "avx2",
        () => "plain",
    };
    let place = Place::new();
    let mut doctor = place.command(&["doctor"]);
    let line = about_cpu(doctor.env_remove(alexnet_split_cpu::simd::LEVEL).output().unwrap());
    let with_bf16 = has("avx512_bf16") && ["avx512", "amx"].contains(&level);
    let described = if with_bf16 { format!("{level} with bf16") } else { level.into() };
    assert!(line.ends_with(&format!("instructions: {described}")), "the processor has {level}: {line}");
    // Tiles multiply bf16 alone: a run in fp32 has the bits of one without them, and says so.
    for (precision, expected) in [("fp32", if level == "amx" { "avx512" } else { level }), ("bf16", level)] {
        if precision == "bf16" && !with_bf16 {
            continue;
        }
        let mut training =
            place.train_command(&["--gpus", "0", "--steps", "1", "--out", precision, "--precision", precision]);
        let said = succeeded(training.env_remove(alexnet_split_cpu::simd::LEVEL).output().unwrap());
        assert!(said.contains(&format!(" {expected}, both streams")), "{precision}: {said}");
        let info = std::fs::read_to_string(place.path(precision).join("run.json")).unwrap();
        assert!(info.contains(&format!("\"instructions\": \"{expected}\"")), "{precision}: {info}");
    }
}

/// Proves what each crate's code does: the instructions that ran, as the emulator logs them, by the crate
/// that they came from.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_crates_below_use_wide_vectors_too() {
    if !emulated() {
        return;
    }
    let place = Place::new();
    let program = place.command(&[]).get_program().to_owned();
    let Ok(symbols) = Command::new("nm").args(["--defined-only", "-n"]).arg(program).output() else {
        return eprintln!("skipped: no nm (binutils), which tells what code is whose");
    };
    let crates = crates_by_address(&String::from_utf8_lossy(&symbols.stdout));
    // Larger than the prepared size, so that decoding and scaling have work to do.
    let picture = image::RgbImage::from_fn(200, 160, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let (jpeg, png) = (forms::jpeg(&picture), forms::encoded(&picture.into(), image::ImageFormat::Png));
    for (file, bytes) in
        [("train/a/1.jpg", &jpeg), ("train/b/2.png", &png), ("val/a/3.jpg", &jpeg), ("val/b/4.jpg", &jpeg)]
    {
        forms::write(place.path("photos").join(file), bytes);
    }
    let mut widest: BTreeMap<&str, u32> = BTreeMap::new();
    let prepare = ["prepare", "photos", "ready", "--size", "96"];
    let data = ["--data", "ready", "--gpus", "0", "--steps", "1", "--threads", "1", "--batch-size", "2"];
    for (number, args) in [prepare.to_vec(), [&TINY[..8], &data].concat()].iter().enumerate() {
        let log = place.path(&format!("{number}.log"));
        let options = ["-d", "in_asm", "-D", log.to_str().unwrap()];
        succeeded(on(&place, "Haswell", &options, args));
        for line in std::fs::read_to_string(&log).unwrap().lines() {
            let Some((address, instruction)) = line.split_once(':').filter(|_| line.starts_with("0x")) else {
                continue;
            };
            let address = u64::from_str_radix(&address[2..], 16).unwrap();
            let bits = if instruction.contains("%ymm") { 256 } else { 128 };
            let Some(program) = address.checked_sub(LOADED_AT) else { continue };
            if let Some((_, name)) = crates.range(..=program).next_back() {
                let widest = widest.entry(name).or_default();
                *widest = bits.max(*widest);
            }
        }
    }
    for name in WIDE {
        assert_eq!(widest.get(name), Some(&256), "the widest vectors of {name} on a Haswell: {widest:?}");
    }
}

/// The address at which the emulator loads a program.
#[cfg(target_arch = "x86_64")]
const LOADED_AT: u64 = 0x40_0000_0000;

/// From what `nm` lists: where each function begins, and the crate that its name begins with.
#[cfg(target_arch = "x86_64")]
fn crates_by_address(symbols: &str) -> BTreeMap<u64, String> {
    let of_line = |line: &str| {
        let mut words = line.split(' ');
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let address = u64::from_str_radix(address, 16).ok().filter(|_| kind.eq_ignore_ascii_case("t"))?;
        // _ZN17alexnet_split_cpu4peak...; implementations of traits begin with the type in escapes.
        let rest = name.strip_prefix("_ZN").unwrap_or(name);
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let length: usize = rest[..digits].parse().unwrap_or(0);
        let first =
            rest.get(digits..digits + length).unwrap_or(rest).trim_start_matches("_$LT$").trim_start_matches('_');
        let first = first.split(['.', '$']).next().unwrap_or(first);
        Some((address, first.to_owned()))
    };
    symbols.lines().filter_map(of_line).collect()
}
