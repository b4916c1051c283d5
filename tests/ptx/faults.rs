//! Small kernels by hand, each right but for one mistake: what the interpreter says of it.

use alexnet_split_ptx::counts::Counts;
use alexnet_split_ptx::machine::{Fault, Launch};
use alexnet_split_ptx::memory::{Buffer, Global};
use alexnet_split_ptx::parse;

/// A kernel of `body` with 64 words of shared memory, which gets the address of 256 words of global memory in %rd1, its
/// thread's number in %r1, and four times that in %r2.
fn kernel(body: &str) -> String {
    format!(
        "// PTX
        .visible .entry made(
            .param .u64 made_param_0
        )
        {{
            .reg .pred %p<8>;
            .reg .b16 %rs<8>;
            .reg .b32 %r<32>;
            .reg .b64 %rd<8>;
            .shared .align 16 .b8 tile[256];
            ld.param.u64 %rd1, [made_param_0];
            mov.u32 %r1, %tid.x;
            shl.b32 %r2, %r1, 2;
            cvt.u64.u32 %rd2, %r2;
            add.s64 %rd3, %rd1, %rd2; // the address of the thread's word
            {body}
            ret;
        }}"
    )
}

/// Runs it by `blocks` blocks of `threads` threads on words 0, 1, 2...; the words after it.
pub fn run(body: &str, blocks: u32, threads: u32) -> Result<(Vec<u32>, Counts), Fault> {
    let kernel = parse::parse(&kernel(body)).unwrap().remove(0);
    // All but the last 128 words are written.
    let mut words: Vec<u32> = (0..256).map(|word| if word < 128 { word } else { u32::MAX }).collect();
    let address = 0x7f00_0000_0000;
    // SAFETY: the words live longer, and nobody else uses them.
    let buffer = unsafe { Buffer::new(address, 1024, words.as_mut_ptr().cast()) };
    let global = Global::new(vec![buffer]);
    let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
    let parameters = &address.to_le_bytes();
    let counts = Launch { kernel: &kernel, grid, block, parameters, global: &global, limit: 1000 }.run()?;
    drop(global);
    Ok((words, counts))
}

/// Stores a word of each thread to shared memory, and loads the next thread's.
const EXCHANGE: &str = "
    st.shared.u32 [%r2], %r1;
    bar.sync 0;
    xor.b32 %r3, %r2, 4;
    ld.shared.u32 %r4, [%r3];
    st.global.u32 [%rd3], %r4;";

/// Copies 16 bytes for each of 16 threads to shared memory, and loads the next thread's first word.
const COPY: &str = "
    setp.lt.u32 %p1, %r1, 16;
    shl.b32 %r3, %r1, 4;
    cvt.u64.u32 %rd4, %r3;
    add.s64 %rd5, %rd1, %rd4;
    @%p1 cp.async.cg.shared.global [%r3], [%rd5], 16;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.sync 0;
    xor.b32 %r4, %r3, 16;
    @%p1 ld.shared.u32 %r5, [%r4];
    @%p1 st.global.u32 [%rd3], %r5;";

/// All blocks read the same words, and each writes one that the others read.
const OVERLAP: &str = "
    ld.global.u32 %r5, [%rd3];
    mov.u32 %r3, %ctaid.x;
    mad.lo.s32 %r4, %r3, 4, %r2;
    cvt.u64.u32 %rd4, %r4;
    add.s64 %rd5, %rd1, %rd4;
    setp.eq.s32 %p1, %r1, 31;
    @%p1 st.global.u32 [%rd5], %r5;";

/// The mistake in the body that a change makes, and what must be said of it.
fn assert_found(body: &str, [old, new]: [&str; 2], threads: u32, expected: &str) {
    assert!(body.contains(old), "{old}");
    let fault = run(&body.replacen(old, new, 1), 1, threads).unwrap_err();
    let text = fault.to_string();
    assert!(text.contains(expected), "{new:?} for {old:?}: {text}, not {expected}");
    assert!(text.contains("kernel made, line ") && text.contains("block [0, 0, 0], thread "), "{text}");
}

#[test]
fn right_kernels_run() {
    let (words, counts) = run(EXCHANGE, 1, 64).unwrap();
    assert!((0..64).all(|thread| words[thread] == thread as u32 ^ 1), "{words:?}");
    assert_eq!(counts.by_opcode()["bar.sync"], 2);
    assert_eq!((&counts.kernel[..], counts.lines[0].line), ("made", 11));
    let (words, counts) = run(COPY, 1, 64).unwrap();
    assert!((0..16).all(|thread| words[thread] == (thread as u32 ^ 1) * 4), "{words:?}");
    let copies = counts.total("cp.async.cg");
    assert_eq!((copies.sectors, copies.ideal_sectors, copies.wavefronts, copies.ideal_wavefronts), (8, 8, 2, 2));
}

#[test]
fn wrong_accesses_are_found() {
    let cases = [
        ("ld.global.u32 %r3, [%rd3+1024];", "is 4 bytes beyond a buffer of 1024 bytes"),
        ("ld.global.u32 %r3, [%rd2];", "is in no buffer"),
        ("ld.global.u32 %r3, [%rd3+2];", "not a multiple of 4"),
        ("ld.global.v2.u32 {%r3, %r4}, [%rd3];", "not a multiple of 8"),
        ("ld.global.u32 %r3, [%rd3+512];", "read before it is written"),
        ("st.global.u32 [%rd3+960], %r1;", "beyond a buffer"),
        ("st.shared.u32 [%r2+192], %r1;", "beyond the block's 256 bytes"),
        ("st.shared.u32 [%r2+2], %r1;", "not a multiple of 4"),
        ("ld.shared.u32 %r3, [%r2];", "shared address 0 is read before it is written"),
        ("add.s32 %r3, %r4, 1;", "a register is read before it is written"),
        ("$L_1:\nbra.uni $L_1;", "does not end"),
    ];
    for (body, expected) in cases {
        assert_found(body, [body, body], 32, expected);
    }
}

#[test]
fn races_are_found() {
    let none = "bar.sync 0;";
    assert_found(EXCHANGE, [none, ""], 64, "race: read here, written by thread");
    assert_found(EXCHANGE, [none, "bar.warp.sync -1;"], 64, "race: read here");
    assert_found(EXCHANGE, ["[%r2], %r1;", "[tile], %r1;"], 64, "race: written here, written by thread 0");
    assert_found(
        EXCHANGE,
        ["ld.shared.u32 %r4, [%r3];", "ld.shared.u32 %r4, [%r3]; st.shared.u32 [%r2], %r1;"],
        64,
        "race: written here, read by thread",
    );
    assert_found(EXCHANGE, ["[%rd3], %r4;", "[%rd1], %r4;"], 64, "race: written here, written by thread 0");
    // Every block writes the same words, and one reads what another writes.
    let fault = run("st.global.u32 [%rd3], %r1;", 8, 32).unwrap_err().to_string();
    assert!(fault.contains("race: written here, written by block"), "{fault}");
    let fault = run(OVERLAP, 2, 32).unwrap_err().to_string();
    assert!(fault.contains("race: "), "{fault}");
    // With a barrier between, a block may.
    run(&EXCHANGE.replace("[%rd3], %r4;", "[%rd3], %r4; bar.sync 0; ld.global.u32 %r5, [%rd1];"), 1, 64).unwrap();
}

#[test]
fn barriers_and_warps_in_part_are_found() {
    let some = "setp.lt.u32 %p2, %r1, 32; @%p2 bra $L_1; bar.sync 0;\n$L_1:\nbar.sync 0;";
    assert_found(
        some,
        ["bar", "bar"],
        64,
        "not all threads of the block come to this barrier: thread 32 waits at line",
    );
    assert_found("setp.lt.u32 %p2, %r1, 32; @%p2 ret; bar.sync 0;", ["bar", "bar"], 64, "thread 0 has ended");
    assert_found("setp.lt.u32 %p2, %r1, 5; @%p2 bar.sync 0;", ["bar", "bar"], 64, "a barrier for a part of the warp");
    let shuffle = "shfl.sync.bfly.b32 %r3|%p1, %r1, 1, 31, -1; st.global.u32 [%rd3], %r3;";
    assert!((0..32).all(|lane| run(shuffle, 1, 32).unwrap().0[lane] == lane as u32 ^ 1));
    let part = "setp.lt.u32 %p2, %r1, 7; @%p2 ";
    assert_found(shuffle, ["shfl", &format!("{part}shfl")], 32, "all lanes of the warp must run this together");
    let mma = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r3, %r4, %r5, %r6}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, \
               {%r1, %r1, %r1, %r1};";
    run(mma, 1, 32).unwrap();
    assert_found(mma, ["mma", &format!("{part}mma")], 32, "thread 7: all lanes of the warp must run this together");
    assert_found(shuffle, ["shfl", "shfl"], 48, "thread 48: all lanes");
    let matrix = "bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r3];";
    assert_found(COPY, ["bar.sync 0;", &matrix.replace("ldm", &format!("{part}ldm"))], 32, "all lanes of the warp");
    assert_found(COPY, ["bar.sync 0;", &matrix.replace("bar.sync 0;", "")], 32, "race: read here");
}

#[test]
fn copies_without_their_wait_are_found() {
    let (wait, barrier) = ("cp.async.wait_group 0;", "bar.sync 0;");
    assert_found(
        COPY,
        [wait, ""],
        32,
        "read while an asynchronous copy of thread 1 of the block may still write there",
    );
    assert_found(COPY, [wait, "cp.async.wait_group 1;"], 32, "read while an asynchronous copy");
    assert_found(COPY, [barrier, ""], 32, "race: read here, written by thread 1");
    assert_found(COPY, ["cp.async.commit_group;", ""], 32, "read while an asynchronous copy");
    assert_found(COPY, ["[%r3], [%rd5], 16;", "[%r3+4], [%rd5], 16;"], 32, "not a multiple of 16");
    let only = COPY.split(wait).next().unwrap();
    assert_found(only, ["cp", "cp"], 32, "ends before the asynchronous copy");
    // Zeros in place of what is not read.
    let zeros = COPY.replace("[%rd5], 16;", "[%rd2], 16, %r6;").replace("shl.b32 %r3", "mov.u32 %r6, 0; shl.b32 %r3");
    assert_eq!(run(&zeros, 1, 32).unwrap().0[..16], [0; 16]);
}

#[test]
fn unknown_instructions_are_refused_by_name() {
    for (text, expected) in [
        ("add.sat.s32 %r3, %r1, 1;", "kernel made, line 16, \"add.sat.s32 %r3, %r1, 1\": unknown opcode add.sat.s32"),
        ("atom.global.add.u32 %r3, [%rd3], 1;", "unknown opcode atom.global.add.u32"),
        ("ld.local.u32 %r3, [%r2];", "unknown opcode ld.local.u32"),
        ("add.s32 %r3, %x1, 1;", "unknown name \"%x1\""),
    ] {
        let problem = parse::parse(&kernel(text)).err().unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
}
