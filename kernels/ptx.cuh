// Tensor-core instructions as inline PTX, so that no CUDA header is needed, with the same computation beside each, in
// plain C++ for the software device of the tests. Layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k8 /
// m16n8k16": with group = lane / 4 and t = lane % 4, a lane holds of A (16 x k, rows) the words of rows group and group
// + 8 at depths t and t + 4, of B (k x 8) those of column group at the same depths, and of C (16 x 8) columns 2t and 2t
// + 1 of rows group and group + 8. A word is one tf32 number or two bf16 numbers of neighbouring depths, the even one
// low. ldmatrix is in "Warp-level matrix load instruction: ldmatrix", cp.async in "Data Movement and Conversion".
#pragma once

#ifndef SOFTGPU

// A place in shared memory.
typedef unsigned SharedAddress;

static __device__ SharedAddress shared_address(const void* place) {
    return static_cast<unsigned>(__cvta_generic_to_shared(place));
}

// The same number, which the compiler takes for a new one: it keeps it in a register and does not compute it again and again.
static __device__ unsigned kept(unsigned x) { return __shfl_xor_sync(~0u, x, 0); }

// Starts a copy of 16 bytes from global to shared memory; where not `there`, 16 zeros, and `from` may be any address. It
// goes through L1: the taps of a convolution read the same lines again and again.
static __device__ void copy16(SharedAddress to, const void* from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16u : 0u) : "memory");
}

// Makes a group of this thread's copies since the last group.
static __device__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the newest LEFT groups of this thread are there.
template <int LEFT>
static __device__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four matrices of 8 rows x 16 bytes: lane i gives the address of row i % 8 of matrix i / 8, and gets of each matrix word
// lane % 4 of row lane / 4; TRANSPOSED: of its transpose, a matrix of two-byte numbers.
template <bool TRANSPOSED>
static __device__ void ldmatrix(unsigned (&words)[4], SharedAddress row) {
    if (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(row)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(row)
                     : "memory");
    }
}

// To 10 bits of mantissa, ties away from 0.
static __device__ unsigned to_tf32(float x) {
    unsigned word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return word;
}

// Two numbers to 7 bits of mantissa each, ties to even.
static __device__ unsigned to_bf16x2(float even, float odd) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(odd), "f"(even));
    return word;
}

// c += a b, eight deep.
static __device__ void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a b, sixteen deep.
static __device__ void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// One instruction each, off by a few units in the last place; numbers below the normal ones count as 0.
static __device__ float fast_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ float fast_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else

static float fast_log2(float x) { return log2f(x); }
static float fast_exp2(float x) { return exp2f(x); }
static float fast_reciprocal(float x) { return 1.f / x; }

typedef unsigned char* SharedAddress;

static SharedAddress shared_address(void* place) { return static_cast<SharedAddress>(place); }

template <class Number>
static Number kept(Number x) {
    return x;
}

static void copy16(SharedAddress to, const void* from, bool there) {
    *reinterpret_cast<uint4*>(to) = there ? *static_cast<const uint4*>(from) : uint4(0, 0, 0, 0);
}

static void commit_copies() {}

template <int LEFT>
static void wait_for_copies() {}

template <bool TRANSPOSED>
static void ldmatrix(unsigned (&words)[4], SharedAddress row) {
    const auto rows = softgpu::warp_share(row);
    const unsigned i = softgpu::lane() / 4, j = softgpu::lane() % 4 * 2;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const auto at = [&](unsigned row, unsigned column) {
            return unsigned{reinterpret_cast<const unsigned short*>(rows[8 * matrix + row])[column]};
        };
        words[matrix] = TRANSPOSED ? at(j + 1, i) << 16 | at(j, i) : at(i, j + 1) << 16 | at(i, j);
    }
}

static unsigned to_tf32(float x) {
    if (isnan(x)) {
        return 0x7fffe000u;
    }
    return (__float_as_uint(x) + 0x1000u) & ~0x1fffu;
}

static unsigned to_bf16(float x) {
    if (isnan(x)) {
        return 0x7fffu;
    }
    const unsigned word = __float_as_uint(x);
    return (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
}

static unsigned to_bf16x2(float even, float odd) { return to_bf16(odd) << 16 | to_bf16(even); }

// The words that one lane holds of A and B.
struct MmaWords {
    unsigned a[4], b[2];
};

// c += a b over eight depths of words; `product` multiplies two words.
template <class Product>
static void mma_words(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Product product) {
    const auto lanes = softgpu::warp_share(MmaWords{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    const unsigned group = softgpu::lane() / 4, t = softgpu::lane() % 4;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned lower = i / 2, column = 2 * t + i % 2;
        for (unsigned depth = 0; depth < 8; ++depth) {
            const unsigned right = depth / 4;
            c[i] = product(lanes[group * 4 + depth % 4].a[lower + 2 * right], lanes[column * 4 + depth % 4].b[right], c[i]);
        }
    }
}

static void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_words(c, a, b, [](unsigned x, unsigned y, float sum) {
        return fmaf(__uint_as_float(x), __uint_as_float(y), sum);
    });
}

static void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_words(c, a, b, [](unsigned x, unsigned y, float sum) {
        sum = fmaf(__uint_as_float(x << 16), __uint_as_float(y << 16), sum);
        return fmaf(__uint_as_float(x & 0xffff0000u), __uint_as_float(y & 0xffff0000u), sum);
    });
}

#endif
