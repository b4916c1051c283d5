// The one matrix product behind convolution and dense layers: out(row, column) = the sum over depth of a(row, depth) *
// b(depth, column). No matrix lies in memory as such: loaders say where an element comes from (implicit GEMM), and the
// output says where a sum goes.
//
// Tiling. A block of GEMM_THREADS = 128 threads computes TILE_ROWS x TILE_COLS = 64 x 128 sums, TILE_DEPTH = 16 products at a time.
// Both operands' tiles lie in shared memory, [depth][row] and [depth][column], twice: while one pair is multiplied the
// next is fetched into registers and then stored to the other, so that a step needs one barrier. Rows are padded by 8
// words: then the fragments' words (depth t, row group) lie in 32 different banks.
//
//   fp32: each thread has 8 x 8 sums and reads 4 x float4 a depth for 64 multiply-adds.
//   tf32: each warp has 32 x 64 sums, as 2 x 8 tensor-core tiles of 16 x 8. Operands are rounded when they are stored to
//   shared memory, once. Sums are fp32 always.
//
// Where few tiles make up the output, gridDim.z blocks share a tile's depth and write raw sums, which reduce_partials
// (pointwise.cu) adds in their order: the same bits on every GPU of one architecture. No kernel here spills registers.
#pragma once

#include "ptx.cuh"
#include "shapes.cuh"

#define FP32 0
#define TF32 1

constexpr unsigned PAD = 8;
static_assert(GEMM_THREADS == 128 && TILE_ROWS == 64 && TILE_COLS == 128 && TILE_DEPTH == 16, "the threads' shares are made for these");

// Both operands' tiles, twice.
struct __align__(16) Tiles {
    unsigned a[2][TILE_DEPTH][TILE_ROWS + PAD];
    unsigned b[2][TILE_DEPTH][TILE_COLS + PAD];
};

// One operand on its way to shared memory. A thread carries pairs of neighbouring depths: of one row (or column) where
// neighbouring rows are neighbours in memory (Loader::ALONG_DEPTH false), else of several rows at the same depths; so
// neighbouring threads read neighbouring addresses. SIZE is the tile's number of rows (or columns).
template <class Loader, unsigned SIZE>
struct Carrier {
    static constexpr unsigned PAIRS = SIZE * TILE_DEPTH / 2 / GEMM_THREADS;
    static constexpr unsigned INDICES = Loader::ALONG_DEPTH ? PAIRS : 1;

    typename Loader::Index index[INDICES];
    bool inside[INDICES];
    float values[PAIRS][2];

    static __device__ unsigned row(unsigned pair) {
        return Loader::ALONG_DEPTH ? threadIdx.x / (TILE_DEPTH / 2) + pair * (GEMM_THREADS / (TILE_DEPTH / 2))
                                   : threadIdx.x % SIZE;
    }

    // In pairs of depths.
    static __device__ unsigned depth(unsigned pair) {
        return Loader::ALONG_DEPTH ? threadIdx.x % (TILE_DEPTH / 2) : threadIdx.x / SIZE * PAIRS + pair;
    }

    // Everything that does not change with depth is computed once.
    __device__ void start(const Loader& loader, unsigned first, unsigned size) {
#pragma unroll
        for (unsigned i = 0; i < INDICES; ++i) {
            inside[i] = first + row(i) < size;
            index[i] = loader.index(inside[i] ? first + row(i) : 0);
        }
    }

    // Reads the tile that begins at depth `from`; beyond `end` and beyond the matrix there are zeros.
    __device__ void fetch(const Loader& loader, unsigned from, unsigned end) {
#pragma unroll
        for (unsigned pair = 0; pair < PAIRS; ++pair) {
            const unsigned i = Loader::ALONG_DEPTH ? pair : 0;
#pragma unroll
            for (unsigned odd = 0; odd < 2; ++odd) {
                const unsigned at = from + 2 * depth(pair) + odd;
                values[pair][odd] = inside[i] && at < end ? loader.at(index[i], loader.depth(at)) : 0.f;
            }
        }
    }

    template <unsigned STRIDE>
    __device__ void store(unsigned (&tile)[TILE_DEPTH][STRIDE]) const {
#pragma unroll
        for (unsigned pair = 0; pair < PAIRS; ++pair) {
#pragma unroll
            for (unsigned odd = 0; odd < 2; ++odd) {
#if PRECISION == TF32
                tile[2 * depth(pair) + odd][row(pair)] = to_tf32(values[pair][odd]);
#else
                tile[2 * depth(pair) + odd][row(pair)] = __float_as_uint(values[pair][odd]);
#endif
            }
        }
    }
};

#if PRECISION == FP32

// A thread's 8 x 8 sums: rows in a row, columns as two groups of four, 64 apart, which keeps a warp's reads of B in
// different banks.
struct Sums {
    static constexpr unsigned COUNT = 64;
    float sums[8][8] = {};

    static __device__ unsigned row(unsigned i) { return threadIdx.x / 16 * 8 + i / 8; }
    static __device__ unsigned column(unsigned i) { return threadIdx.x % 16 * 4 + i % 4 + i % 8 / 4 * 64; }
    __device__ float at(unsigned i) const { return sums[i / 8][i % 8]; }

    __device__ void multiply(const Tiles& tiles, unsigned half) {
#pragma unroll
        for (unsigned depth = 0; depth < TILE_DEPTH; ++depth) {
            __align__(16) float a[8], b[8];
#pragma unroll
            for (unsigned i = 0; i < 8; i += 4) {
                *reinterpret_cast<uint4*>(a + i) = *reinterpret_cast<const uint4*>(&tiles.a[half][depth][row(0) + i]);
                *reinterpret_cast<uint4*>(b + i) = *reinterpret_cast<const uint4*>(&tiles.b[half][depth][column(i)]);
            }
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 8; ++j) {
                    sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
                }
            }
        }
    }
};

#else

// A thread's part of its warp's 2 x 8 tensor-core tiles.
struct Sums {
    static constexpr unsigned COUNT = 64;
    float sums[2][8][4] = {};

    static __device__ unsigned warp_row() { return threadIdx.x / 64 * 32; }
    static __device__ unsigned warp_column() { return threadIdx.x / 32 % 2 * 64; }
    static __device__ unsigned group() { return threadIdx.x % 32 / 4; }
    static __device__ unsigned t() { return threadIdx.x % 4; }
    static __device__ unsigned row(unsigned i) { return warp_row() + i / 32 * 16 + group() + i % 4 / 2 * 8; }
    static __device__ unsigned column(unsigned i) { return warp_column() + i / 4 % 8 * 8 + 2 * t() + i % 2; }
    __device__ float at(unsigned i) const { return sums[i / 32][i / 4 % 8][i % 4]; }

    __device__ void multiply(const Tiles& tiles, unsigned half) {
#pragma unroll
        for (unsigned depth = 0; depth < TILE_DEPTH; depth += 8) {
            const auto& upper_a = tiles.a[half][depth + t()];
            const auto& lower_a = tiles.a[half][depth + t() + 4];
            unsigned a[2][4];
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                const unsigned row = warp_row() + i * 16 + group();
                a[i][0] = upper_a[row];
                a[i][1] = upper_a[row + 8];
                a[i][2] = lower_a[row];
                a[i][3] = lower_a[row + 8];
            }
#pragma unroll
            for (unsigned j = 0; j < 8; ++j) {
                const unsigned column = warp_column() + j * 8 + group();
                const unsigned b[2] = {tiles.b[half][depth + t()][column], tiles.b[half][depth + t() + 4][column]};
#pragma unroll
                for (unsigned i = 0; i < 2; ++i) {
                    mma_tf32(sums[i][j], a[i], b);
                }
            }
        }
    }
};

#endif

// Computes this block's tile of a (rows x depth) times b (depth x columns) and hands every sum to `output`.
template <class A, class B, class Output>
static __device__ void multiply(Tiles& tiles, const A& a, const B& b, const Output& output, const Split& split,
                                unsigned rows, unsigned columns, unsigned depth, float* partials) {
    const unsigned first_row = blockIdx.y * TILE_ROWS, first_column = blockIdx.x * TILE_COLS;
    const unsigned from = blockIdx.z * split.depth, end = min(from + split.depth, depth);
    Carrier<A, TILE_ROWS> carry_a;
    Carrier<B, TILE_COLS> carry_b;
    carry_a.start(a, first_row, rows);
    carry_b.start(b, first_column, columns);
    carry_a.fetch(a, from, end);
    carry_b.fetch(b, from, end);
    carry_a.store(tiles.a[0]);
    carry_b.store(tiles.b[0]);
    __syncthreads();
    Sums sums;
    unsigned half = 0;
    for (unsigned at = from; at < end; at += TILE_DEPTH) {
        const bool more = at + TILE_DEPTH < end;
        if (more) {
            carry_a.fetch(a, at + TILE_DEPTH, end);
            carry_b.fetch(b, at + TILE_DEPTH, end);
        }
        sums.multiply(tiles, half);
        half ^= 1;
        if (more) {
            // Nobody reads these tiles any more: all have passed the barrier after their last use.
            carry_a.store(tiles.a[half]);
            carry_b.store(tiles.b[half]);
        }
        __syncthreads();
    }
    float* part = partials + static_cast<size_t>(blockIdx.z) * rows * columns;
#pragma unroll
    for (unsigned i = 0; i < Sums::COUNT; ++i) {
        const unsigned row = first_row + Sums::row(i), column = first_column + Sums::column(i);
        if (row < rows && column < columns) {
            const unsigned place = output.place(row, column);
            if (split.count == 1) {
                output.write(row, place, sums.at(i));
            } else {
                part[place] = sums.at(i);
            }
        }
    }
}
