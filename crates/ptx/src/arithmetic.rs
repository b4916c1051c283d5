//! What each instruction computes that takes registers alone: a table from opcodes to functions of one thread's values.
//! Of `a`, `b` and `c`, the arguments after the result, an instruction uses as many as it has.
//!
//! Where the ISA leaves room, this is what is computed: `add`, `sub` and `mul` of floats round to nearest (`ptxas` may
//! fuse those without `.rn`); `ex2.approx` and its like round to nearest too (hardware has errors of some 2^-22).

use std::array;
use std::sync::Arc;

use super::instructions::{LANES, Op};

fn words(f: impl Fn(u32, u32, u32) -> u32 + Send + Sync + 'static) -> Op {
    Op::Words(Arc::new(move |[a, b, c, _]| array::from_fn(|lane| f(a[lane], b[lane], c[lane]))))
}

fn longs(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Op {
    Op::Longs(Arc::new(move |[a, b, c, _]| array::from_fn(|lane| f(a[lane], b[lane], c[lane]))))
}

/// Of floats, given as their bits; every NaN that comes out is the one that the ISA names.
fn floats(f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> Op {
    words(move |a, b, c| from_float(f(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c))))
}

#[inline(always)]
fn from_float(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

/// a b + c, rounded once; with the CPU's own instruction for it where it has one.
fn fused() -> Op {
    Op::Words(Arc::new(|[a, b, c, _]| {
        pulp::Arch::new().dispatch(|| {
            // A plain loop: a closure in it would not be compiled for this CPU.
            let mut sums = [0; LANES];
            for lane in 0..LANES {
                let [a, b, c] = [a[lane], b[lane], c[lane]].map(f32::from_bits);
                sums[lane] = from_float(a.mul_add(b, c));
            }
            sums
        })
    }))
}

pub fn integer(opcode: &str) -> Option<Op> {
    let signed = |a: u32| a as i32;
    Some(match opcode {
        "add.s32" | "add.u32" => words(|a, b, _| a.wrapping_add(b)),
        "add.s64" | "add.u64" => longs(|a, b, _| a.wrapping_add(b)),
        "sub.s32" | "sub.u32" => words(|a, b, _| a.wrapping_sub(b)),
        "sub.s64" | "sub.u64" => longs(|a, b, _| a.wrapping_sub(b)),
        "mul.lo.s32" | "mul.lo.u32" => words(|a, b, _| a.wrapping_mul(b)),
        "mul.lo.s64" | "mul.lo.u64" => longs(|a, b, _| a.wrapping_mul(b)),
        "mul.hi.u32" => words(|a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "mul.wide.u32" => longs(|a, b, _| (a & 0xffff_ffff) * (b & 0xffff_ffff)),
        "mul.wide.s32" => longs(|a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        "mad.lo.s32" | "mad.lo.u32" => words(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.lo.s64" | "mad.lo.u64" => longs(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.wide.u32" => longs(|a, b, c| ((a & 0xffff_ffff) * (b & 0xffff_ffff)).wrapping_add(c)),
        "mad.wide.s32" => longs(|a, b, c| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)),
        // By 0 the ISA gives any value.
        "div.u32" => words(|a, b, _| a.checked_div(b).unwrap_or(u32::MAX)),
        "rem.u32" => words(|a, b, _| a.checked_rem(b).unwrap_or(a)),
        "div.s32" => words(move |a, b, _| signed(a).checked_div(signed(b)).unwrap_or(-1) as u32),
        "rem.s32" => words(move |a, b, _| signed(a).checked_rem(signed(b)).unwrap_or(0) as u32),
        "min.u32" => words(|a, b, _| a.min(b)),
        "max.u32" => words(|a, b, _| a.max(b)),
        "min.s32" => words(move |a, b, _| signed(a).min(signed(b)) as u32),
        "max.s32" => words(move |a, b, _| signed(a).max(signed(b)) as u32),
        "neg.s32" => words(|a, _, _| a.wrapping_neg()),
        "abs.s32" => words(move |a, _, _| signed(a).unsigned_abs()),
        _ => return None,
    })
}

pub fn moves(opcode: &str) -> Option<Op> {
    Some(match opcode {
        "mov.u16" | "mov.b16" | "mov.u32" | "mov.s32" | "mov.b32" | "mov.f32" => words(|a, _, _| a),
        "mov.u64" | "mov.s64" | "mov.b64" => longs(|a, _, _| a),
        // Addresses without a space are not loaded from here, so each space keeps its own.
        "cvta.to.global.u64" | "cvta.to.shared.u64" | "cvta.shared.u64" => longs(|a, _, _| a),
        "mov.pred" => Op::Predicates(|a, _| a),
        "and.pred" => Op::Predicates(|a, b| a & b),
        "or.pred" => Op::Predicates(|a, b| a | b),
        "xor.pred" => Op::Predicates(|a, b| a ^ b),
        "not.pred" => Op::Predicates(|a, _| !a),
        "and.b16" | "and.b32" => words(|a, b, _| a & b),
        "or.b16" | "or.b32" => words(|a, b, _| a | b),
        "xor.b16" | "xor.b32" => words(|a, b, _| a ^ b),
        "not.b32" => words(|a, _, _| !a),
        "and.b64" => longs(|a, b, _| a & b),
        "or.b64" => longs(|a, b, _| a | b),
        "xor.b64" => longs(|a, b, _| a ^ b),
        "not.b64" => longs(|a, _, _| !a),
        // Shifts by more than all bits give 0, or copies of the sign.
        "shl.b32" => words(|a, b, _| a.checked_shl(b).unwrap_or(0)),
        "shr.u32" | "shr.b32" => words(|a, b, _| a.checked_shr(b).unwrap_or(0)),
        "shr.s32" => words(|a, b, _| (a as i32 >> b.min(31)) as u32),
        "shl.b64" => longs(|a, b, _| a.checked_shl(b as u32).unwrap_or(0)),
        "shr.u64" | "shr.b64" => longs(|a, b, _| a.checked_shr(b as u32).unwrap_or(0)),
        "shr.s64" => longs(|a, b, _| (a as i64 >> b.min(63)) as u64),
        "bfi.b32" => Op::Words(Arc::new(|[a, b, place, bits]| {
            array::from_fn(|lane| insert(a[lane], b[lane], place[lane] & 0xff, bits[lane] & 0xff))
        })),
        "prmt.b32" => words(permute),
        "selp.b16" | "selp.u16" | "selp.b32" | "selp.u32" | "selp.s32" | "selp.f32" | "selp.b64" | "selp.u64" => {
            Op::Select
        }
        _ => return None,
    })
}

/// `b` with the lowest `bits` of `a` in the place of its bits from `place` on.
fn insert(a: u32, b: u32, place: u32, bits: u32) -> u32 {
    let mask = (((1u64 << bits.min(32)) - 1) << place.min(32)) as u32;
    a.checked_shl(place).unwrap_or(0) & mask | b & !mask
}

/// Four bytes of the eight of a and b, each chosen by four bits; the highest of them asks for copies of the byte's sign.
fn permute(a: u32, b: u32, choice: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    (0..4).fold(0, |word, i| {
        let nibble = choice >> (4 * i) & 15;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 != 0 { if byte >= 128 { 255 } else { 0 } } else { byte };
        word | u32::from(byte) << (8 * i)
    })
}

pub fn floating(opcode: &str) -> Option<Op> {
    let (base, flushes) = match opcode.strip_suffix(".ftz.f32") {
        Some(base) => (base, true),
        None => (opcode.strip_suffix(".f32")?, false),
    };
    // `.ftz`: numbers too small for a full mantissa become 0.
    let flush = move |x: f32| if flushes && x.is_subnormal() { 0f32.copysign(x) } else { x };
    let approximate = move |f: fn(f64) -> f64| floats(move |a, _, _| flush(f(f64::from(flush(a))) as f32));
    Some(match base {
        "ex2.approx" => approximate(f64::exp2),
        "lg2.approx" => approximate(f64::log2),
        "rcp.approx" => approximate(f64::recip),
        "sqrt.approx" => approximate(f64::sqrt),
        "rsqrt.approx" => approximate(|a| a.sqrt().recip()),
        "tanh.approx" => approximate(f64::tanh),
        _ if flushes => return None,
        "add" | "add.rn" => floats(|a, b, _| a + b),
        "sub" | "sub.rn" => floats(|a, b, _| a - b),
        "mul" | "mul.rn" => floats(|a, b, _| a * b),
        "fma.rn" => fused(),
        // Rounded down; the product is exact in f64, and the sum is off by a rounding to nearest there.
        "fma.rm" => floats(|a, b, c| {
            let exact = f64::from(a) * f64::from(b) + f64::from(c);
            let nearest = exact as f32;
            if f64::from(nearest) > exact { nearest.next_down() } else { nearest }
        }),
        "div.rn" | "div.approx" | "div.full" => floats(|a, b, _| a / b),
        "rcp.rn" => floats(|a, _, _| 1. / a),
        "sqrt.rn" => floats(|a, _, _| a.sqrt()),
        // Of a number and a NaN the number; -0 is below +0.
        "min" => floats(|a, b, _| if a == b { f32::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) }),
        "max" => floats(|a, b, _| if a == b { f32::from_bits(a.to_bits() & b.to_bits()) } else { a.max(b) }),
        "neg" => words(|a, _, _| a ^ 1 << 31),
        "abs" => words(|a, _, _| a & !(1 << 31)),
        // The sign of the first, the rest of the second.
        "copysign" => words(|a, b, _| a & 1 << 31 | b & !(1 << 31)),
        "mov" | "selp" => return moves(opcode),
        _ => return None,
    })
}

/// The nearest bf16, which is a float's upper half; ties to even.
pub fn to_bf16(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() {
        return 0x7fff;
    }
    (bits + 0x7fff + (bits >> 16 & 1)) >> 16
}

/// The nearest number with 10 bits of mantissa; ties away from 0.
fn to_tf32(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { 0x7fff_ffff } else { (bits + 0x1000) & !0x1fff }
}

pub fn conversion(opcode: &str) -> Option<Op> {
    Some(match opcode {
        // The first argument goes to the upper half.
        "cvt.rn.bf16x2.f32" => words(|upper, lower, _| to_bf16(upper) << 16 | to_bf16(lower)),
        "cvt.rn.bf16.f32" => words(|a, _, _| to_bf16(a)),
        "cvt.rna.tf32.f32" => words(|a, _, _| to_tf32(a)),
        "cvt.u64.u32" | "cvt.u32.u64" | "cvt.u64.u16" => longs(|a, _, _| a),
        "cvt.s64.s32" => longs(|a, _, _| i64::from(a as i32) as u64),
        "cvt.u32.u16" => words(|a, _, _| a),
        "cvt.u16.u32" => words(|a, _, _| a & 0xffff),
        "cvt.rn.f32.s32" => words(|a, _, _| (a as i32 as f32).to_bits()),
        "cvt.rn.f32.u32" | "cvt.rn.f32.u16" => words(|a, _, _| (a as f32).to_bits()),
        // Too large numbers become the largest, NaN 0: as Rust converts.
        "cvt.rzi.s32.f32" => words(|a, _, _| f32::from_bits(a) as i32 as u32),
        "cvt.rzi.u32.f32" => words(|a, _, _| f32::from_bits(a) as u32),
        "cvt.rni.s32.f32" => words(|a, _, _| f32::from_bits(a).round_ties_even() as i32 as u32),
        "cvt.rzi.f32.f32" => floats(|a, _, _| a.trunc()),
        "cvt.rni.f32.f32" => floats(|a, _, _| a.round_ties_even()),
        "cvt.rmi.f32.f32" => floats(|a, _, _| a.floor()),
        "cvt.rpi.f32.f32" => floats(|a, _, _| a.ceil()),
        "cvt.sat.f32.f32" => floats(|a, _, _| if a.is_nan() { 0. } else { a.clamp(0., 1.) }),
        _ => return None,
    })
}
