//! Single instructions at values where a wrong meaning shows: ties, signs, NaN, the order of halves.

use super::faults::run;
use alexnet_split_ptx::arithmetic::to_bf16;
use alexnet_split_ptx::instructions::{Factors, LANES};
use alexnet_split_ptx::mma;

/// What %r9 is after an instruction.
#[test]
fn instructions_mean_what_the_isa_says() {
    let cases = [
        // The first argument is the upper half; ties go to even.
        ("cvt.rn.bf16x2.f32 %r9, 0f3F800000, 0f40000000;", 0x3f80_4000),
        ("cvt.rn.bf16x2.f32 %r9, 0f3F808000, 0f3F818000;", 0x3f80_3f82),
        // Ties go away from 0.
        ("cvt.rna.tf32.f32 %r9, 0fBF801000;", 0xbf80_2000),
        // (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24, and 0 if the product is rounded.
        ("fma.rn.f32 %r9, 0f3F800800, 0f3F800800, 0fBF801000;", 0x3380_0000),
        ("fma.rm.f32 %r9, 0f3F800000, 0f3F800000, 0fB3000000;", 0x3f7f_ffff),
        ("mul.rn.f32 %r9, 0f3F800800, 0f3F800800;", 0x3f80_1000),
        ("add.f32 %r9, 0f7F800000, 0fFF800000;", 0x7fff_ffff),
        ("max.f32 %r9, 0f7FC00000, 0f3F800000;", 0x3f80_0000),
        ("max.f32 %r9, 0f80000000, 0f00000000;", 0),
        ("neg.f32 %r9, 0f00000000;", 0x8000_0000),
        ("copysign.f32 %r9, 0fBF800000, 0f40400000;", 0xc040_0000),
        ("ex2.approx.ftz.f32 %r9, 0f40400000;", 0x4100_0000),
        ("ex2.approx.ftz.f32 %r9, 0fC3020000;", 0), // 2^-130
        ("lg2.approx.f32 %r9, 0f41000000;", 0x4040_0000),
        ("rcp.approx.ftz.f32 %r9, 0f40800000;", 0x3e80_0000),
        ("sqrt.rn.f32 %r9, 0f40000000;", 0x3fb5_04f3),
        ("div.rn.f32 %r9, 0f3F800000, 0f40400000;", 0x3eaa_aaab),
        ("cvt.rzi.s32.f32 %r9, 0f50000000;", 0x7fff_ffff),
        ("cvt.rzi.s32.f32 %r9, 0f7FC00000;", 0),
        ("cvt.rni.f32.f32 %r9, 0f40200000;", 0x4000_0000), // 2.5
        ("cvt.rmi.f32.f32 %r9, 0fBF000000;", 0xbf80_0000),
        ("cvt.sat.f32.f32 %r9, 0f40400000;", 0x3f80_0000),
        ("mul.hi.u32 %r9, -1, -1;", 0xffff_fffe),
        ("mul.wide.s32 %rd7, -2, 3; shr.u64 %rd7, %rd7, 32; cvt.u32.u64 %r9, %rd7;", 0xffff_ffff),
        ("mul.wide.u32 %rd7, -2, 3; shr.u64 %rd7, %rd7, 32; cvt.u32.u64 %r9, %rd7;", 2),
        ("mad.lo.s32 %r9, 3, -4, 5;", -7i32 as u32),
        ("shl.b32 %r9, 1, 40;", 0),
        ("shr.s32 %r9, -8, 40;", 0xffff_ffff),
        ("bfi.b32 %r9, 5, -1, 4, 3;", 0xffff_ffdf),
        ("prmt.b32 %r9, 0x03020100, 0x87060504, 0xf531;", 0xff05_0301),
        ("setp.lt.s32 %p2, -1, 0; selp.b32 %r9, 1, 2, %p2;", 1),
        ("setp.lt.u32 %p2, -1, 0; selp.b32 %r9, 1, 2, %p2;", 2),
        ("setp.neu.f32 %p2, 0f7FC00000, 0f7FC00000; selp.b32 %r9, 1, 2, %p2;", 1),
        ("setp.ne.f32 %p2, 0f7FC00000, 0f7FC00000; selp.b32 %r9, 1, 2, %p2;", 2),
        ("setp.gtu.f32 %p2, 0f7FC00000, 0f00000000; selp.b32 %r9, 1, 2, %p2;", 1),
        ("mov.b32 %r9, {%rs1, %rs2};", 0x0002_0001),
        ("mov.b32 {%rs3, %rs4}, 0x00050006; cvt.u32.u16 %r9, %rs4;", 5),
    ];
    for (text, expected) in cases {
        let body = format!("mov.u16 %rs1, 1; mov.u16 %rs2, 2; {text} st.global.u32 [%rd3], %r9;");
        let (words, _) = run(&body, 1, 32).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(words[7], expected, "{text}: {:#x}, not {expected:#x}", words[7]);
    }
}

/// Where branches part the lanes each goes its way, and all meet again.
#[test]
fn lanes_part_and_meet() {
    let body = "
        mov.u32 %r9, 0;
        mov.u32 %r3, 0;
        $L_loop:
        add.s32 %r9, %r9, %r1;
        add.s32 %r3, %r3, 1;
        setp.lt.u32 %p1, %r3, %r1;
        @%p1 bra $L_loop;
        bar.sync 0;
        st.global.u32 [%rd3], %r9;";
    let (words, counts) = run(body, 1, 32).unwrap();
    assert!((0..32).all(|lane: u32| words[lane as usize] == lane * lane), "{words:?}");
    assert_eq!(counts.by_opcode()["bar.sync"], 1);
}

/// The product of whole matrices, put into registers as the ISA's figures say for each lane.
#[test]
fn matrices_are_multiplied() {
    let a = |row: usize, column: usize| ((row * 7 + column * 3) % 11) as f32 - 5.;
    let b = |row: usize, column: usize| ((row * 5 + column * 2) % 7) as f32 - 3.;
    let c = |row: usize, column: usize| (row * 8 + column) as f32;
    let (group, t) = (|lane: usize| lane / 4, |lane: usize| lane % 4);
    let pair = |even: f32, odd: f32| to_bf16(even.to_bits()) | to_bf16(odd.to_bits()) << 16;
    for (factors, depth) in [(Factors::Bf16, 16), (Factors::Tf32, 8)] {
        let bf16 = factors == Factors::Bf16;
        let of_a = |register: usize, lane: usize| {
            let row = group(lane) + register % 2 * 8;
            let column = if bf16 { 2 * t(lane) + register / 2 * 8 } else { t(lane) + register / 2 * 4 };
            if bf16 { pair(a(row, column), a(row, column + 1)) } else { a(row, column).to_bits() }
        };
        let of_b = |register: usize, lane: usize| {
            let row = if bf16 { 2 * t(lane) + register * 8 } else { t(lane) + register * 4 };
            if bf16 { pair(b(row, group(lane)), b(row + 1, group(lane))) } else { b(row, group(lane)).to_bits() }
        };
        let place = |register: usize, lane: usize| (group(lane) + register / 2 * 8, 2 * t(lane) + register % 2);
        let of_c = |register, lane| c(place(register, lane).0, place(register, lane).1).to_bits();
        let lanes = |f: &dyn Fn(usize) -> u32| std::array::from_fn(f);
        let d = mma::multiply(
            factors,
            std::array::from_fn(|register| lanes(&|lane| of_a(register, lane))),
            std::array::from_fn(|register| lanes(&|lane| of_b(register, lane))),
            std::array::from_fn(|register| lanes(&|lane| of_c(register, lane))),
        );
        for (register, lane) in (0..4 * LANES).map(|i| (i / LANES, i % LANES)) {
            let (row, column) = place(register, lane);
            let expected = c(row, column) + (0..depth).map(|k| a(row, k) * b(k, column)).sum::<f32>();
            assert_eq!(f32::from_bits(d[register][lane]), expected, "{factors:?} row {row} column {column}");
        }
    }
}

/// A lane gets two neighbours of a row, or, transposed, of a column.
#[test]
fn matrices_are_loaded() {
    let rows =
        std::array::from_fn(|row| std::array::from_fn(|i| (row * 8 + 2 * i + ((row * 8 + 2 * i + 1) << 16)) as u32));
    let (straight, transposed) = (mma::fragment(&rows, false), mma::fragment(&rows, true));
    assert_eq!((straight[0], straight[5], straight[31]), (0x1_0000, 0x000b_000a, 0x003f_003e));
    assert_eq!((transposed[0], transposed[5], transposed[31]), (0x8_0000, 0x0019_0011, 0x003f_0037));
}
