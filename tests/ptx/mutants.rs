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

    /// Whether `memory` holds other results, beyond rounding.
    fn differs(&self, memory: &[Vec<u8>]) -> bool {
        let word = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        let buffers = memory.iter().zip(&self.before).zip(&self.after);
        buffers.filter(|((found, _), (_, after))| found != &after).any(|((found, (_, before)), (_, after))| {
            let results = || after.chunks(4).zip(before.chunks(4)).filter(|(after, before)| after != before);
            let finite = results().map(|(after, _)| word(after).abs()).filter(|value| value.is_finite());
            let scale = finite.fold(0f32, f32::max);
            let close = |found: f32, after: f32| f64::from((found - after).abs()) <= TENSOR_CORE * f64::from(scale);
            found
                .chunks(4)
                .zip(after.chunks(4))
                .any(|(found, after)| found != after && !close(word(found), word(after)))
        })
    }
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
fn survives(launches: &[Recorded], place: usize, text: &str, limit: u64) -> bool {
    let changed = launches[0].kernel.edited(place, text).unwrap();
    launches.iter().all(|launch| launch.repeat(&changed, limit).is_ok_and(|(memory, _)| !launch.differs(&memory)))
}

/// Whether an instruction multiplies what is 0 in every thread: no factor makes a difference.
fn multiplies_zero(launches: &[Recorded], place: usize, limit: u64) -> bool {
    let text = &launches[0].kernel.code[place].text;
    let zero = match (text.starts_with("shl"), text.rsplit_once(", ")) {
        (true, Some((before, _))) => Some(format!("{}, 0", before.replacen("shl", "and", 1))),
        (false, Some((before, factor))) if factor.parse::<i64>().is_ok() => Some(format!("{before}, 0")),
        _ => None,
    };
    zero.is_some_and(|zero| survives(launches, place, &zero, limit))
}

fn plant(precision: Precision, passes: Passes, least: usize) {
    let Some(launches) = launches(precision, passes) else { return };
    let (mut count, mut zeros, mut survivors) = (0, 0, Vec::new());
    for (name, launches) in &launches {
        let kernel = &launches[0].kernel;
        let mut counts = Counts::new(kernel);
        for launch in launches {
            let (memory, of_launch) = launch.repeat(kernel, u64::MAX).unwrap();
            assert!(!launch.differs(&memory), "{name} repeats");
            counts += &of_launch;
        }
        let (mut mutants, limit) = (mutants(kernel, &counts), 4 * counts.total("").executed);
        // All of bf16, which training uses; elsewhere every barrier, and of the rest every third.
        let mut number = 0;
        mutants.retain(|mutant| {
            number += 1;
            precision == Precision::Bf16 || mutant.text.is_empty() || number % 3 == 0
        });
        count += mutants.len();
        let found: Vec<&Mutant> =
            mutants.par_iter().filter(|mutant| survives(launches, mutant.place, &mutant.text, limit)).collect();
        let (barriers, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|mutant| mutant.text.is_empty());
        let harmless = HARMLESS.iter().find(|(kernel, ..)| kernel == name).map_or(0, |&(_, count, _)| count);
        let rest = others.into_iter().filter(|mutant| {
            !multiplies_zero(launches, mutant.place, limit) || {
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
