//! The unit of Intel's processors, by its instructions.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::cell::Cell;
use std::sync::OnceLock;

use super::{SIDE, Unit};

/// The unit of this thread's processor, which [`is_there`].
pub struct Amx;

/// Whether this processor has the unit and the system lets this process use it.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        // Leaf 7: AMX-BF16 and AMX-TILE. Leaf 1: the system saves states, as XCR0 says.
        let features = __cpuid_count(7, 0).edx;
        let has_unit = features >> 22 & features >> 24 & 1 == 1;
        // SAFETY: where OSXSAVE says so, there is XGETBV.
        let saved = __cpuid_count(1, 0).ecx >> 27 & 1 == 1 && unsafe { saved_states() } >> 17 & 3 == 3;
        has_unit && saved && allowed()
    })
}

#[target_feature(enable = "xsave")]
unsafe fn saved_states() -> u64 {
    // SAFETY: by the caller's contract.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the state of 8 KiB, which threads do not have before; other systems give it.
#[cfg(target_os = "linux")]
fn allowed() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: the call changes what this process may use, and no memory.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> bool {
    true
}

thread_local! {
    /// The shape that this thread's registers have.
    static SHAPE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Unit for Amx {
    #[inline]
    fn shape(&mut self, rows: usize, words: usize) {
        if SHAPE.get() == (rows, words) {
            return;
        }
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for register in 0..8 {
            let (of_rows, of_words) = match register {
                0..4 => (rows, SIDE),
                4 | 5 => (rows, words),
                _ => (words, SIDE),
            };
            (shapes.rows[register], shapes.row_bytes[register]) = (of_rows as u8, 4 * of_words as u16);
        }
        // SAFETY: shapes are within 16 rows of 64 bytes; the unit is there.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack)) };
        SHAPE.set((rows, words));
    }

    #[inline(always)]
    fn zero<const TO: u8>(&mut self) {
        // SAFETY: the compiler uses no tiles.
        unsafe { asm!("tilezero tmm{}", const TO, options(nostack, nomem)) };
    }

    #[inline(always)]
    unsafe fn load<const TO: u8>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: by this function's contract.
        unsafe {
            asm!("tileloadd tmm{}, [{} + {}]", const TO, in(reg) from, in(reg) 4 * stride, options(nostack, readonly));
        }
    }

    #[inline(always)]
    unsafe fn store<const FROM: u8>(&mut self, to: *mut f32) {
        // SAFETY: by this function's contract.
        unsafe { asm!("tilestored [{} + {}], tmm{}", in(reg) to, in(reg) 64usize, const FROM, options(nostack)) };
    }

    #[inline(always)]
    fn multiply_add<const SUM: u8, const LEFT: u8, const RIGHT: u8>(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUM, const LEFT, const RIGHT, options(nostack, nomem)) };
    }
}
