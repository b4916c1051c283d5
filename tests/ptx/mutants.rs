//! Mistakes planted in the PTX of each kernel that shares memory between threads, one at a time: a barrier taken out, a
//! wait weakened, two registers of a fragment swapped, a place in shared memory or a stride changed. Each must be found:
//! as a fault, or by a result that is not the kernel's.

use std::collections::BTreeMap;

use alexnet_split::backend::{ConvShape, DenseShape, Precision};
use rayon::prelude::*;

use crate::device::{self, Recorded};
use crate::products::{self, Passes};
use crate::softmax;
use crate::support::normals;
use crate::support::tolerance::TENSOR_CORE;
use alexnet_split_ptx::counts::Counts;
use alexnet_split_ptx::machine::{Fault, Launch};
use alexnet_split_ptx::memory::{Buffer, Global};
use alexnet_split_ptx::parse::{Instruction, Kernel};

/// A mistake: the instruction in the place of another.
struct Mutant {
    place: usize,
    text: String,
}

/// Barriers that may be taken out: kernel, how many, the reason.
const HARMLESS: [(&str, usize, &str); 3] = [
    ("conv_backward_bias", 1, "after the last step of its tree thread 0 alone goes on, with the sum that it made"),
    ("softmax_stats", 1, "lets scratch memory be used again, which this kernel does not do after its last sum"),
    ("softmax_cross_entropy", 1, "the same"),
];

impl Recorded {
    /// Runs `kernel` as this one was, on a copy of the memory; the memory after it.
    fn repeat(&self, kernel: &Kernel, limit: u64) -> Result<(Vec<Vec<u8>>, Counts), Fault> {
        let mut memory: Vec<Vec<u8>> = self.before.iter().map(|(_, bytes)| bytes.clone()).collect();
        let buffers = memory.iter_mut().zip(&self.before).map(|(bytes, &(address, _))| {
            // SAFETY: the copy lives longer, and nobody else uses it.
            unsafe { Buffer::new(address, bytes.len(), bytes.as_mut_ptr()) }
        });
        let global = Global::new(buffers.collect());
        let (grid, block, parameters) = (self.grid, self.block, &self.parameters[..]);
        let counts = Launch { kernel, grid, block, parameters, global: &global, limit }.run()?;
        drop(global);
        Ok((memory, counts))
    }

    /// The largest result of each buffer: what the kernel changed.
    fn scales(&self) -> Vec<f32> {
        let buffers = self.before.iter().zip(&self.after).map(|((_, before), (_, after))| {
            let results = words(after).zip(words(before)).filter(|(after, before)| after != before);
            let values = results.map(|(after, _)| f32::from_bits(after).abs());
            values.filter(|value| value.is_finite()).fold(0f32, f32::max)
        });
        buffers.collect()
    }
}

/// A launch, and what tells that another one is like it.
struct Original {
    launch: Recorded,
    /// See [`Recorded::scales`].
    scales: Vec<f32>,
    /// The most instructions that a warp may run.
    limit: u64,
}

impl Original {
    /// Whether `memory` holds other results, beyond rounding.
    fn differs(&self, memory: &[Vec<u8>]) -> bool {
        memory.iter().zip(&self.launch.after).zip(&self.scales).any(|((found, (_, after)), &scale)| {
            let close = |found: u32, after: u32| {
                let distance = (f32::from_bits(found) - f32::from_bits(after)).abs();
                f64::from(distance) <= TENSOR_CORE * f64::from(scale)
            };
            found != after
                && words(found).zip(words(after)).any(|(found, after)| found != after && !close(found, after))
        })
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word))
}

/// Launches of each kernel that shares memory, at sizes that fill more than one tile each way, with and without a cut of
/// the sums.
fn launches(precision: Precision, passes: Passes) -> Option<BTreeMap<String, Vec<Recorded>>> {
    let (backend, log) = device::backend(precision)?;
    log.lock().unwrap().launches = Some(Vec::new());
    let tiles: &[(usize, usize)] = match precision {
        // Each width of the engine's tiles, full.
        Precision::Bf16 => &[(20, 70), (70, 20), (20, 60), (20, 184)],
        _ => &[(20, 70), (70, 20)],
    };
    for &(c, k) in tiles {
        let conv = ConvShape { c, h: 6, w: 5, k, r: 3, s: 3, p: 6, q: 5, stride: 1, pad: 1, blocks: 2 };
        products::one_convolution(&backend, &conv, 5, passes);
    }
    let dense = |inputs| DenseShape { inputs, outputs: 116, pixels: 1, blocks: 2, logits: false };
    products::one_dense(&backend, &dense(150), 130, passes);
    products::one_dense(&backend, &dense(300), 5, passes);
    // Many images: each place of the threads has the largest logit of some image.
    let labels: Vec<u32> = (0..64).map(|image| image * 9).collect();
    softmax::split_softmax(&backend, 600, 250, &normals(64 * 600, 1., 1), &labels);
    let all = log.lock().unwrap().launches.take()?;
    let mut by_kernel: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    for launch in all.into_iter().filter(|launch| launch.kernel.shared_bytes > 0) {
        by_kernel.entry(launch.kernel.name.clone()).or_default().push(launch);
    }
    // The fastest first: it finds most of the mistakes.
    by_kernel.values_mut().for_each(|launches| launches.sort_by_key(|launch| launch.grid.iter().product::<u32>()));
    Some(by_kernel)
}

/// The mistakes that can be planted in an instruction; `number` counts those of one kind.
fn mistakes(instruction: &Instruction, number: &mut usize) -> Vec<String> {
    let text = &instruction.text;
    match instruction.opcode.split('.').next().unwrap_or_default() {
        "bar" => vec![String::new()],
        "cp" if instruction.opcode.contains("wait") => {
            let left: usize = text.rsplit(' ').next().unwrap().parse().unwrap();
            vec![text.replace(&left.to_string(), &(left + 1).to_string())]
        }
        // One pair of each product, another of the next.
        "mma" => {
            *number += 1;
            vec![swapped(text, [(4, 5), (4, 6), (4, 7), (5, 6), (5, 7), (6, 7), (8, 9)][*number % 7])]
        }
        "ld" | "st" if instruction.opcode.contains("shared") => moved(text).into_iter().collect(),
        "mul" | "mad" | "shl" => longer(text).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// With two of its registers swapped.
fn swapped(text: &str, (one, other): (usize, usize)) -> String {
    let registers: Vec<&str> = text.split(['{', '}', ',', ' ', '\t']).filter(|part| part.starts_with('%')).collect();
    let mut count = 0;
    let part = |part: &str| {
        let number = count;
        count += usize::from(part.starts_with('%'));
        match number {
            _ if !part.starts_with('%') => part.to_owned(),
            _ if number == one => registers[other].to_owned(),
            _ if number == other => registers[one].to_owned(),
            _ => part.to_owned(),
        }
    };
    text.split_inclusive(['{', '}', ',', ' ', '\t']).map(split_end).flat_map(|(a, b)| [a, b]).map(part).collect()
}

/// A piece and the separator at its end.
fn split_end(piece: &str) -> (&str, &str) {
    piece.split_at(piece.trim_end_matches(['{', '}', ',', ' ', '\t']).len())
}

/// `[%r1+64]` as the place 16 bytes on.
fn moved(text: &str) -> Option<String> {
    let (before, rest) = text.split_once('+')?;
    let (offset, after) = rest.split_once(']')?;
    Some(format!("{before}+{}]{after}", offset.parse::<usize>().ok()? + 16))
}

/// With a constant factor that is larger: by one, or where it counts whole tiles by half a vector of sixteen, which bounds
/// that are looked at in steps of four notice.
fn longer(text: &str) -> Option<String> {
    let more = |factor: i64| factor + if factor % 16 == 0 && !text.starts_with("shl") { 8 } else { 1 };
    let (before, factor) = text.rsplit_once(", ")?;
    match factor.parse::<i64>() {
        Ok(factor) => Some(format!("{before}, {}", more(factor))),
        // The factor of a mad stands before the last argument.
        Err(_) => {
            let (before, middle) = before.rsplit_once(", ")?;
            Some(format!("{before}, {}, {factor}", more(middle.parse::<i64>().ok()?)))
        }
    }
}

/// The mutants of a kernel, in what its launches run.
fn mutants(kernel: &Kernel, counts: &Counts) -> Vec<Mutant> {
    let mut number = 0;
    let ran = kernel.code.iter().enumerate().filter(|&(place, _)| counts.lines[place].tally.executed > 0);
    let planted = ran.flat_map(|(place, code)| {
        let texts = mistakes(code, &mut number);
        texts.into_iter().map(move |text| Mutant { place, text })
    });
    planted.collect()
}

/// Whether no launch shows a difference.
fn survives(originals: &[Original], place: usize, text: &str) -> bool {
    let changed = originals[0].launch.kernel.edited(place, text).unwrap();
    let same = |original: &Original| {
        original.launch.repeat(&changed, original.limit).is_ok_and(|(memory, _)| !original.differs(&memory))
    };
    originals.iter().all(same)
}

/// Whether an instruction multiplies what is 0 in every thread: no factor makes a difference.
fn multiplies_zero(originals: &[Original], place: usize) -> bool {
    let text = &originals[0].launch.kernel.code[place].text;
    let zero = match (text.starts_with("shl"), text.rsplit_once(", ")) {
        (true, Some((before, _))) => Some(format!("{}, 0", before.replacen("shl", "and", 1))),
        (false, Some((before, factor))) if factor.parse::<i64>().is_ok() => Some(format!("{before}, 0")),
        _ => None,
    };
    zero.is_some_and(|zero| survives(originals, place, &zero))
}

/// The launches of a kernel, each repeated once, and what they execute together.
fn originals(launches: Vec<Recorded>) -> (Vec<Original>, Counts) {
    let kernel = launches[0].kernel.clone();
    let mut counts = Counts::new(&kernel);
    let originals = launches.into_iter().map(|launch| {
        let (memory, of_launch) = launch.repeat(&kernel, u64::MAX).unwrap();
        counts += &of_launch;
        // Eight times the mean of its warps: a loop that takes longer has no end.
        let warps = launch.grid.iter().product::<u32>() * launch.block.iter().product::<u32>().div_ceil(32);
        let limit = 8 * of_launch.total("").executed / u64::from(warps);
        assert!(launch.repeat(&kernel, limit / 2).is_ok(), "{}: a warp runs over half of {limit}", kernel.name);
        let original = Original { scales: launch.scales(), launch, limit };
        assert!(!original.differs(&memory), "{} repeats", kernel.name);
        original
    });
    let originals = originals.collect();
    (originals, counts)
}

fn plant(precision: Precision, passes: Passes, least: usize) {
    let Some(launches) = launches(precision, passes) else { return };
    let (mut count, mut zeros, mut survivors) = (0, 0, Vec::new());
    for (name, launches) in launches {
        let (originals, counts) = originals(launches);
        let kernel = &originals[0].launch.kernel;
        let mut mutants = mutants(kernel, &counts);
        // All of bf16, which training uses; elsewhere every barrier, and of the rest every third.
        let mut number = 0;
        mutants.retain(|mutant| {
            number += 1;
            precision == Precision::Bf16 || mutant.text.is_empty() || number % 3 == 0
        });
        count += mutants.len();
        let found: Vec<&Mutant> =
            mutants.par_iter().filter(|mutant| survives(&originals, mutant.place, &mutant.text)).collect();
        let (barriers, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|mutant| mutant.text.is_empty());
        let harmless = HARMLESS.iter().find(|&&(kernel, ..)| kernel == name).map_or(0, |&(_, count, _)| count);
        let rest = others.into_iter().filter(|mutant| {
            !multiplies_zero(&originals, mutant.place) || {
                zeros += 1;
                false
            }
        });
        let rest: Vec<&Mutant> = rest.chain(barriers.iter().copied().filter(|_| barriers.len() != harmless)).collect();
        survivors.extend(rest.into_iter().map(|mutant| {
            let right = &kernel.code[mutant.place];
            format!("{name}, line {}: {:?} as {:?}", right.line, right.text, mutant.text)
        }));
    }
    assert!(survivors.is_empty(), "{} of {count} are not found:\n{}", survivors.len(), survivors.join("\n"));
    assert!(count >= least && zeros < count / 40, "{count} mistakes were planted, {zeros} of them factors of 0");
    eprintln!("{precision:?}: of {count} planted mistakes all are found but {zeros} factors of what is always 0");
}

#[test]
fn planted_mistakes_are_found_in_fp32() {
    plant(Precision::Fp32, products::FP32, 400);
}

#[test]
fn planted_mistakes_are_found_in_tf32() {
    plant(Precision::Tf32, products::TF32, 400);
}

#[test]
fn planted_mistakes_are_found_in_bf16() {
    plant(Precision::Bf16, products::BF16, 200);
}

#[test]
fn mistakes_are_planted_where_they_should_be() {
    let mma = "mma.sync {%f4, %f3, %f2, %f1}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f4, %f3, %f2, %f1}";
    assert_eq!(swapped(mma, (4, 6)), mma.replace("%r1, %r2, %r3", "%r3, %r2, %r1"));
    assert_eq!(swapped(mma, (8, 9)), mma.replace("%r5, %r6", "%r6, %r5"));
    assert_eq!(moved("ld.shared.u32 %r1, [%rd2+4640]").unwrap(), "ld.shared.u32 %r1, [%rd2+4656]");
    assert_eq!(moved("st.shared.u32 [%rd2+16], %r1").unwrap(), "st.shared.u32 [%rd2+32], %r1");
    assert_eq!(longer("mad.lo.s32 %r1, %r2, 72, %r3").unwrap(), "mad.lo.s32 %r1, %r2, 73, %r3");
    assert_eq!(longer("shl.b32 %r1, %r2, 2").unwrap(), "shl.b32 %r1, %r2, 3");
    assert!(longer("mul.lo.s32 %r1, %r2, %r3").is_none());
}
