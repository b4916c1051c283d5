//! The vector instructions that are used: the widest that the processor has, or what the environment says.

use std::sync::OnceLock;

use pulp::{Arch, Scalar, Simd, WithSimd};

/// Environment variable that forces narrower instructions, for tests and for study: `avx2` (and
/// FMA) or `plain`.
pub const LEVEL: &str = "ALEXNET_SPLIT_SIMD";

/// Runs `op` with the instructions chosen.
#[inline(always)]
pub fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    match chosen() {
        Level::Widest(arch) => arch.dispatch(op),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(simd) => Simd::vectorize(simd, op),
        Level::Plain => op.with_simd(Scalar),
    }
}

/// Whether [`dispatch_bf16`] can be called.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let widest = matches!(chosen(), Level::Widest(_)) && pulp::x86::V4::try_new().is_some();
        widest && std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs `op` with AVX-512 and its products of bf16.
///
/// Panics without them; see [`has_bf16`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn dispatch_bf16<Op: WithSimd>(op: Op) -> Op::Output {
    /// pulp's features of AVX-512, and one more.
    #[target_feature(enable = "popcnt,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
    fn with_bf16<Op: WithSimd>(simd: pulp::x86::V4, op: Op) -> Op::Output {
        op.with_simd(simd)
    }
    match pulp::x86::V4::try_new().filter(|_| has_bf16()) {
        // SAFETY: the processor has these instructions.
        Some(simd) => unsafe { with_bf16(simd, op) },
        None => unreachable!("bf16 asked of a processor without AVX512_BF16"),
    }
}

#[derive(Clone, Copy)]
enum Level {
    /// AVX-512, AVX2 or NEON.
    Widest(Arch),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Plain,
}

fn chosen() -> Level {
    static CHOSEN: OnceLock<Level> = OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var(LEVEL).as_deref() {
        Ok("plain") => Level::Plain,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Level::Plain, Level::Avx2),
        _ => Level::Widest(Arch::new()),
    })
}

/// Writes one vector to the start of a slice of its length or longer.
#[inline(always)]
pub fn store<S: Simd>(_: S, to: &mut [f32], value: S::f32s) {
    assert!(to.len() >= S::F32_LANES);
    // SAFETY: the slice is long enough.
    unsafe { to.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) };
}

/// Reads one vector from the start of a slice of its length or longer.
#[inline(always)]
pub fn read<S: Simd>(_: S, from: &[f32]) -> S::f32s {
    assert!(from.len() >= S::F32_LANES);
    // SAFETY: the slice is long enough.
    unsafe { from.as_ptr().cast::<S::f32s>().read_unaligned() }
}

/// Asks for the cache lines of `lanes` numbers from `first` on, before they are needed; nothing where they do not
/// exist. For loops whose addresses jump from page to page, which processors do not foresee.
#[inline(always)]
pub fn prefetch(memory: &[f32], first: usize, lanes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (first..(first + lanes).min(memory.len())).step_by(16) {
        // SAFETY: prefetching reads nothing, and the address is within the slice.
        unsafe { std::arch::x86_64::_mm_prefetch(memory.as_ptr().add(at).cast(), std::arch::x86_64::_MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, first, lanes);
}
