//! The vector instructions that are used: the widest that the processor has, or what the environment says. Everything
//! that depends on it asks here.

use std::sync::OnceLock;

use pulp::{Scalar, Simd, WithSimd};

/// Environment variable that forces narrower instructions, for tests and for study: the name of a [`Level`].
pub const LEVEL: &str = "ALEXNET_SPLIT_SIMD";

/// Sets of vector instructions, the narrowest first. Sums differ in their last bits from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The instructions that every processor of the architecture has, a number at a time.
    Plain,
    /// 64-bit ARM: vectors of 4 floats, fused multiply-add.
    Neon,
    /// x86-64-v3: vectors of 8 floats, fused multiply-add.
    Avx2,
    /// x86-64-v4: vectors of 16 floats.
    Avx512,
    /// The same, and AMX for products of bf16.
    Amx,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 5] = [Level::Plain, Level::Neon, Level::Avx2, Level::Avx512, Level::Amx];

    /// Its name, in messages and in [`LEVEL`].
    pub fn name(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The widest that this processor has.
    pub fn widest() -> Level {
        static WIDEST: OnceLock<Level> = OnceLock::new();
        *WIDEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            return match (pulp::x86::V4::try_new(), pulp::x86::V3::try_new()) {
                (Some(_), _) if std::arch::is_x86_feature_detected!("avx512bf16") && crate::tiles::is_there() => {
                    Level::Amx
                }
                (Some(_), _) => Level::Avx512,
                (None, Some(_)) => Level::Avx2,
                (None, None) => Level::Plain,
            };
            #[cfg(target_arch = "aarch64")]
            return if pulp::aarch64::Neon::try_new().is_some() { Level::Neon } else { Level::Plain };
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Level::Plain
        })
    }

    /// The level in use: the one that [`LEVEL`] names, if the processor has it, or the widest.
    pub fn chosen() -> Level {
        static CHOSEN: OnceLock<Level> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let asked = std::env::var(LEVEL).ok().and_then(|name| Level::from_name(&name));
            asked.filter(|&level| has(level)).unwrap_or_else(Level::widest)
        })
    }
}

/// A note for the user where the processor has instructions that [`LEVEL`] forbids.
pub fn unused() -> Option<String> {
    let (chosen, widest) = (Level::chosen().name(), Level::widest().name());
    (chosen != widest)
        .then(|| format!("{LEVEL} asks for {chosen} instructions; this processor has {widest}, which are faster"))
}

/// The problem with the value of [`LEVEL`], if there is one: an unknown name, or instructions that this processor does
/// not have.
pub fn problem() -> Option<String> {
    let asked = std::env::var_os(LEVEL).filter(|name| !name.is_empty())?;
    let asked = asked.to_string_lossy();
    let names: Vec<&str> = Level::ALL.into_iter().filter(|&level| has(level)).map(Level::name).collect();
    let problem = match Level::from_name(&asked) {
        None => "which names no instructions",
        Some(level) if !has(level) => "which this processor lacks",
        Some(_) => return None,
    };
    Some(format!("{LEVEL} is {asked:?}, {problem}; unset it, or give one of {}", names.join(", ")))
}

/// Whether this processor has a level's instructions.
fn has(level: Level) -> bool {
    match level {
        Level::Neon => Level::widest() == Level::Neon,
        Level::Avx2 | Level::Avx512 if Level::widest() == Level::Neon => false,
        other => other <= Level::widest(),
    }
}

/// The instructions in use, for people and for records: `avx512 with bf16`.
pub fn describe() -> String {
    let bf16 = if has_bf16() { " with bf16" } else { "" };
    format!("{}{bf16}", Level::chosen().name())
}

/// Runs `op` with the instructions chosen.
#[inline(always)]
pub fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    match Level::chosen() {
        // SAFETY: a level is only chosen where the processor has its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Amx => Simd::vectorize(unsafe { pulp::x86::V4::new_unchecked() }, op),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Simd::vectorize(unsafe { pulp::x86::V3::new_unchecked() }, op),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Simd::vectorize(unsafe { pulp::aarch64::Neon::new_unchecked() }, op),
        _ => op.with_simd(Scalar),
    }
}

/// Whether [`dispatch_bf16`] can be called.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Level::chosen() >= Level::Avx512 && std::arch::is_x86_feature_detected!("avx512bf16")
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

/// Asks for the cache line of an address, before it is needed; nothing where it does not exist. For loops whose
/// addresses jump from page to page, which processors do not foresee.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch(address.cast(), std::arch::x86_64::_MM_HINT_T0)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Reads as many floats as there are, one vector at most, and zeros after them.
#[inline(always)]
pub fn read_part<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    if from.len() >= S::F32_LANES {
        return read(simd, from);
    }
    // SAFETY: only as many lanes are read as there are floats.
    unsafe { simd.mask_load_ptr_f32s(simd.mask_between_m32s(0, from.len() as u32), from.as_ptr()) }
}

/// Writes as much of a vector as there is room for.
#[inline(always)]
pub fn store_part<S: Simd>(simd: S, to: &mut [f32], value: S::f32s) {
    if to.len() >= S::F32_LANES {
        return store(simd, to, value);
    }
    // SAFETY: only as many lanes are written as there is room for.
    unsafe { simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, to.len() as u32), to.as_mut_ptr(), value) };
}

/// Two vectors of floats to those at even places and those at odd places.
#[inline(always)]
pub fn split_pairs<S: Simd>(_: S, [first, second]: [S::f32s; 2]) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // SAFETY: vectors of this width are those of AVX-512.
        return unsafe {
            let (a, b) = (bitcast(first), bitcast(second));
            [bitcast(pick_avx512::<0, 2>(a, b)), bitcast(pick_avx512::<1, 2>(a, b))]
        };
    }
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 8 {
        // SAFETY: vectors of this width are those of AVX2.
        return unsafe { split_pairs_avx2(bitcast(first), bitcast(second)).map(|vector| bitcast(vector)) };
    }
    #[cfg(target_arch = "aarch64")]
    if S::F32_LANES == 4 {
        use std::arch::aarch64::{vuzp1q_f32, vuzp2q_f32};
        // SAFETY: vectors of this width are those of NEON.
        return unsafe {
            let (a, b) = (bitcast(first), bitcast(second));
            [bitcast(vuzp1q_f32(a, b)), bitcast(vuzp2q_f32(a, b))]
        };
    }
    let floats = [first, second];
    let mut pairs = floats;
    let (from, to) = (as_floats::<S>(&floats), pairs.as_mut_ptr().cast::<f32>());
    for lane in 0..S::F32_LANES {
        // SAFETY: both lanes are within the two vectors.
        unsafe {
            *to.add(lane) = from[2 * lane];
            *to.add(S::F32_LANES + lane) = from[2 * lane + 1];
        }
    }
    pairs
}

/// The reverse of [`split_pairs`].
#[inline(always)]
pub fn join_pairs<S: Simd>(_: S, [even, odd]: [S::f32s; 2]) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // SAFETY: as above.
        return unsafe {
            let (a, b) = (bitcast(even), bitcast(odd));
            [bitcast(zip_avx512::<0>(a, b)), bitcast(zip_avx512::<8>(a, b))]
        };
    }
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 8 {
        // SAFETY: as above.
        return unsafe { join_pairs_avx2(bitcast(even), bitcast(odd)).map(|vector| bitcast(vector)) };
    }
    #[cfg(target_arch = "aarch64")]
    if S::F32_LANES == 4 {
        use std::arch::aarch64::{vzip1q_f32, vzip2q_f32};
        // SAFETY: as above.
        return unsafe {
            let (a, b) = (bitcast(even), bitcast(odd));
            [bitcast(vzip1q_f32(a, b)), bitcast(vzip2q_f32(a, b))]
        };
    }
    let pairs = [even, odd];
    let mut floats = pairs;
    let (from, to) = (as_floats::<S>(&pairs), floats.as_mut_ptr().cast::<f32>());
    for lane in 0..S::F32_LANES {
        // SAFETY: as above.
        unsafe {
            *to.add(2 * lane) = from[lane];
            *to.add(2 * lane + 1) = from[S::F32_LANES + lane];
        }
    }
    floats
}

#[inline(always)]
fn as_floats<S: Simd>(vectors: &[S::f32s; 2]) -> &[f32] {
    // SAFETY: both vectors together are that many floats.
    unsafe { std::slice::from_raw_parts(vectors.as_ptr().cast(), 2 * S::F32_LANES) }
}

/// Numbers FIRST, FIRST + STEP ... of 32.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn pick_avx512<const FIRST: usize, const STEP: usize>(
    a: std::arch::x86_64::__m512,
    b: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    let places: [i32; 16] = const {
        let mut places = [0; 16];
        let mut lane = 0;
        while lane < 16 {
            places[lane] = (FIRST + lane * STEP) as i32;
            lane += 1;
        }
        places
    };
    // SAFETY: a vector is sixteen floats.
    _mm512_permutex2var_ps(a, unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }, b)
}

/// Floats FIRST, FIRST + 1 ... of two vectors, alternating.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn zip_avx512<const FIRST: usize>(
    a: std::arch::x86_64::__m512,
    b: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    let places: [i32; 16] = const {
        let mut places = [0; 16];
        let mut lane = 0;
        while lane < 16 {
            places[lane] = (FIRST + lane / 2 + 16 * (lane % 2)) as i32;
            lane += 1;
        }
        places
    };
    // SAFETY: as above.
    _mm512_permutex2var_ps(a, unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }, b)
}

/// See [`split_pairs`]: shuffles stay within halves of vectors, so that quarters must then change places.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn split_pairs_avx2(a: std::arch::x86_64::__m256, b: std::arch::x86_64::__m256) -> [std::arch::x86_64::__m256; 2] {
    use std::arch::x86_64::*;
    [_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b)]
        .map(|quarters| _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(quarters))))
}

/// See [`join_pairs`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn join_pairs_avx2(even: std::arch::x86_64::__m256, odd: std::arch::x86_64::__m256) -> [std::arch::x86_64::__m256; 2] {
    use std::arch::x86_64::*;
    let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
}

/// x^-1/2, to less than two units in the last place, for positive finite x; `None` where there is no faster way than a
/// root and a division. (AVX2's estimate is none: its bits differ from one maker of processors to another.)
#[inline(always)]
pub fn inverse_sqrt<S: Simd>(simd: S, x: S::f32s) -> Option<S::f32s> {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // 14 bits, and a step of Newton's to twice as many: a third of the time that a root and a division take.
        // SAFETY: vectors of this width are those of AVX-512.
        let y = unsafe { bitcast(inverse_sqrt_14_bits(bitcast(x))) };
        let half = simd.mul_f32s(simd.mul_f32s(simd.splat_f32s(-0.5), x), y);
        return Some(simd.mul_f32s(y, simd.mul_add_e_f32s(half, y, simd.splat_f32s(1.5))));
    }
    #[cfg(target_arch = "aarch64")]
    if S::F32_LANES == 4 {
        use std::arch::aarch64::{float32x4_t, vmulq_f32, vrsqrteq_f32, vrsqrtsq_f32};
        // 8 bits, and two steps of Newton's, for which there is an instruction. Processors divide and take roots on one
        // of their pipes only, and slowly.
        // SAFETY: vectors of this width are those of NEON.
        return Some(unsafe {
            let x: float32x4_t = bitcast(x);
            let mut y = vrsqrteq_f32(x);
            for _ in 0..2 {
                y = vmulq_f32(y, vrsqrtsq_f32(vmulq_f32(x, y), y));
            }
            bitcast(y)
        });
    }
    let _ = (simd, x);
    None
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn inverse_sqrt_14_bits(x: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512 {
    std::arch::x86_64::_mm512_rsqrt14_ps(x)
}

/// The value of type B that has the bits of `value`.
///
/// # Safety
/// Both types must be vectors of one size.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub unsafe fn bitcast<A: Copy, B: Copy>(value: A) -> B {
    assert!(size_of::<A>() == size_of::<B>());
    // SAFETY: by this function's contract, and all bits make a vector.
    unsafe { std::mem::transmute_copy(&value) }
}
