//! What each instruction means. The meanings are those of NVIDIA's
//! "Parallel Thread Execution ISA", version 9.0, chapter "Instruction Set". An opcode that is not here is refused by
//! its name, so that nothing is executed by guess.
//! Arithmetic is in `arithmetic.rs`.

use std::cmp::Ordering::{self, Equal, Greater, Less};
use std::sync::Arc;

use super::arithmetic::{conversion, floating, integer, moves};
use super::parse::Arg;

/// Threads of a warp: they run together, one instruction for all.
pub const LANES: usize = 32;
/// One register of 32 bits of all threads of a warp.
pub type Words = [u32; LANES];
/// One of 64 bits.
pub type Longs = [u64; LANES];

pub type Compute<In, Out> = Arc<dyn Fn([&In; 4]) -> Out + Send + Sync>;

#[derive(Clone)]
pub enum Op {
    /// An instruction that was taken out.
    Nothing,
    /// A result of 32 bits from up to four arguments of 32 bits.
    Words(Compute<Words, Words>),
    /// The same with 64 bits; shorter arguments are extended by zeros, a shorter result is cut.
    Longs(Compute<Longs, Longs>),
    /// Compares the second and third argument, and joins the result with a predicate, if there is a fourth.
    Compare(Compute<Longs, u32>, Join),
    /// Of truth values.
    Predicates(fn(u32, u32) -> u32),
    /// The second argument where the fourth holds, else the third.
    Select,
    /// Two halves to a whole, and back.
    Pack,
    Unpack,
    LoadParameter {
        bytes: usize,
    },
    /// `count` values of `bytes` each.
    Load {
        space: Space,
        bytes: usize,
        count: usize,
    },
    Store {
        space: Space,
        bytes: usize,
        count: usize,
    },
    /// From global to shared memory, while the thread goes on.
    CopyAsync,
    /// Joins the copies since the last one to a group.
    Commit,
    /// Waits until all but so many of the newest groups are there; `None`: for all, also those of no group.
    Wait(Option<usize>),
    Branch,
    Return,
    /// Waits for all threads of the block.
    Barrier,
    /// Waits for all threads of the warp.
    WarpBarrier,
    /// Products of small matrices, spread over the registers of a warp.
    Mma(Factors),
    /// 8 x 8 matrices of 16-bit numbers from shared memory.
    LoadMatrix {
        count: usize,
        transposed: bool,
    },
    /// Another lane's value: of lane `f(own, argument)`, within its warp.
    Shuffle {
        source: fn(u32, u32) -> u32,
        clamp: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Global,
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factors {
    /// m16n8k16
    Bf16,
    /// m16n8k8
    Tf32,
}

#[derive(Clone, Copy)]
pub enum Join {
    No,
    With(fn(u32, u32) -> u32),
}

/// The meaning of an opcode. `lists`: whether the first or the second argument is a list in braces.
pub fn decode(opcode: &str, lists: [bool; 2], args: &[Arg]) -> Result<Op, String> {
    let found = match opcode.split('.').next().unwrap_or_default() {
        "ld" | "st" => memory(opcode),
        "setp" => comparison(opcode),
        "cvt" => conversion(opcode),
        "mov" if lists != [false; 2] => match opcode {
            "mov.b32" if lists[0] => Some(Op::Unpack),
            "mov.b32" => Some(Op::Pack),
            _ => None,
        },
        "mov" | "selp" | "and" | "or" | "xor" | "not" | "shl" | "shr" | "bfi" | "prmt" | "cvta" => moves(opcode),
        "fma" | "div" | "rcp" | "sqrt" | "ex2" | "lg2" | "copysign" => floating(opcode),
        _ if opcode.ends_with("f32") && !opcode.starts_with("mma") => floating(opcode),
        "add" | "sub" | "mul" | "mad" | "rem" | "min" | "max" | "neg" | "abs" => None,
        _ => control(opcode, args),
    };
    found.or_else(|| integer(opcode)).ok_or_else(|| format!("unknown opcode {opcode}"))
}

fn comparison(opcode: &str) -> Option<Op> {
    let parts: Vec<&str> = opcode.split('.').collect();
    let (relation, join, kind) = match parts[..] {
        [_, relation, kind] => (relation, Join::No, kind),
        [_, relation, "and", kind] => (relation, Join::With(|a, b| a & b), kind),
        [_, relation, "or", kind] => (relation, Join::With(|a, b| a | b), kind),
        _ => return None,
    };
    fn each<T>(of: fn(u64) -> T, holds: fn(T, T) -> bool) -> Compute<Longs, u32>
    where
        T: 'static,
    {
        Arc::new(move |[a, b, ..]| {
            (0..LANES).fold(0, |mask, lane| mask | u32::from(holds(of(a[lane]), of(b[lane]))) << lane)
        })
    }
    macro_rules! order {
        ($of:expr) => {
            match relation {
                "eq" => each($of, |a, b| a == b),
                "ne" => each($of, |a, b| a != b),
                "lt" | "lo" => each($of, |a, b| a < b),
                "le" | "ls" => each($of, |a, b| a <= b),
                "gt" | "hi" => each($of, |a, b| a > b),
                "ge" | "hs" => each($of, |a, b| a >= b),
                _ => return None,
            }
        };
    }
    let compute = match (kind, relation) {
        ("u16" | "b16", _) => order!(|bits| bits as u16),
        ("s16", _) => order!(|bits| bits as i16),
        ("u32" | "b32", _) => order!(|bits| bits as u32),
        ("s32", _) => order!(|bits| bits as i32),
        ("u64" | "b64", _) => order!(|bits| bits),
        ("s64", _) => order!(|bits| bits as i64),
        ("f32", _) => {
            let holds = order_of_floats(relation)?;
            Arc::new(move |[a, b, ..]: [&Longs; 4]| {
                let order = |lane: usize| f32::from_bits(a[lane] as u32).partial_cmp(&f32::from_bits(b[lane] as u32));
                (0..LANES).fold(0, |mask, lane| mask | u32::from(holds(order(lane))) << lane)
            })
        }
        _ => return None,
    };
    Some(Op::Compare(compute, join))
}

/// Relations of floats; a NaN has no order to anything, for which those that end with u hold, too.
fn order_of_floats(relation: &str) -> Option<fn(Option<Ordering>) -> bool> {
    Some(match relation {
        "eq" => |order| order == Some(Equal),
        "ne" => |order| matches!(order, Some(Less | Greater)),
        "lt" => |order| order == Some(Less),
        "le" => |order| matches!(order, Some(Less | Equal)),
        "gt" => |order| order == Some(Greater),
        "ge" => |order| matches!(order, Some(Greater | Equal)),
        "equ" => |order| matches!(order, None | Some(Equal)),
        "neu" => |order| order != Some(Equal),
        "ltu" => |order| matches!(order, None | Some(Less)),
        "leu" => |order| order != Some(Greater),
        "gtu" => |order| matches!(order, None | Some(Greater)),
        "geu" => |order| order != Some(Less),
        "num" => |order| order.is_some(),
        "nan" => |order| order.is_none(),
        _ => return None,
    })
}

/// `ld.shared.v4.f32`
fn memory(opcode: &str) -> Option<Op> {
    let parts: Vec<&str> = opcode.split('.').filter(|&part| part != "nc").collect();
    let (loads, space, count, kind) = match parts[..] {
        [name, space, kind] => (name == "ld", space, 1, kind),
        [name, space, "v2", kind] => (name == "ld", space, 2, kind),
        [name, space, "v4", kind] => (name == "ld", space, 4, kind),
        _ => return None,
    };
    let bytes = match kind {
        "u8" | "b8" => 1,
        "u16" | "b16" => 2,
        "u32" | "s32" | "b32" | "f32" => 4,
        "u64" | "s64" | "b64" => 8,
        _ => return None,
    };
    let space = match space {
        "param" if loads && count == 1 => return Some(Op::LoadParameter { bytes }),
        "global" => Space::Global,
        "shared" => Space::Shared,
        _ => return None,
    };
    match loads {
        true => Some(Op::Load { space, bytes, count }),
        // Races are watched on pairs of bytes.
        false => (bytes > 1).then_some(Op::Store { space, bytes, count }),
    }
}

fn control(opcode: &str, args: &[Arg]) -> Option<Op> {
    Some(match opcode {
        "" => Op::Nothing,
        "bra" | "bra.uni" => Op::Branch,
        "ret" | "exit" => Op::Return,
        "bar.sync" | "barrier.sync" if args == [Arg::Number(0)] => Op::Barrier,
        "bar.warp.sync" if args == [Arg::Number(u64::MAX)] => Op::WarpBarrier,
        "cp.async.ca.shared.global" | "cp.async.cg.shared.global" => Op::CopyAsync,
        "cp.async.commit_group" => Op::Commit,
        "cp.async.wait_all" => Op::Wait(None),
        "cp.async.wait_group" => match args {
            [Arg::Number(left)] => Op::Wait(Some(*left as usize)),
            _ => return None,
        },
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" => Op::Mma(Factors::Bf16),
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" => Op::Mma(Factors::Tf32),
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16" => Op::LoadMatrix { count: 1, transposed: false },
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16" => Op::LoadMatrix { count: 2, transposed: false },
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16" => Op::LoadMatrix { count: 4, transposed: false },
        "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16" => Op::LoadMatrix { count: 1, transposed: true },
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16" => Op::LoadMatrix { count: 2, transposed: true },
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16" => Op::LoadMatrix { count: 4, transposed: true },
        // The clamp must leave the whole warp to them: 31, or 0 for up.
        "shfl.sync.bfly.b32" => Op::Shuffle { source: |lane, x| lane ^ x, clamp: 31 },
        "shfl.sync.down.b32" => Op::Shuffle { source: |lane, x| lane + x, clamp: 31 },
        "shfl.sync.up.b32" => Op::Shuffle { source: |lane, x| lane.wrapping_sub(x), clamp: 0 },
        "shfl.sync.idx.b32" => Op::Shuffle { source: |_, x| x, clamp: 31 },
        _ => return None,
    })
}
