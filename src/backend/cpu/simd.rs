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
