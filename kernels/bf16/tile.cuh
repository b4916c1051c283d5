// The one product of bf16 matrices behind convolution and dense layers: out(row, column) = the sum over depth of a(row,
// depth) * b(column, depth), on tensor cores, with fp32 sums.
//
// Tiling. A block of 128 threads computes ROWS x COLUMNS sums, DEPTH = 32 products at a time; each of its four warps a
// quarter, ROWS / 2 x COLUMNS / 2, as ROWS / 32 x COLUMNS / 16 tensor-core tiles of 16 x 8. Both factors' next 32 of the depth, a stage,
// come to shared memory by asynchronous copies of 16 bytes. There are three stages: while one is multiplied the next two
// are on their way, and one barrier a stage is enough.
//
// A stage holds a factor as it lies in memory, so that every copy is of 8 neighbours there:
//   depth in rows     SIZE rows of 32 values: 4 chunks of 16 bytes each (x, w, and dy where its channels are the depth)
//   depth in columns  32 rows of SIZE values: SIZE / 8 chunks each      (where pixels or images are the depth)
// ldmatrix reads eight rows' chunks at once. Chunks change places within a row (XOR with the row's number), so that those
// eight, and the chunks that eight neighbouring threads copy, lie in different banks.
//
// Where few tiles make up the output, gridDim.z blocks share a tile's depth, and reduce_parts (sums.cu) adds their sums
// in order: the same bits on every GPU of one architecture.
#pragma once

#include "layouts.cuh"

constexpr unsigned THREADS = 128, DEPTH = 32, STAGES = 3;

// One factor's part of a stage. Four neighbouring threads copy four chunks of a row at a time, all threads those of 32 rows;
// where the depth lies in rows the next copies are 32 rows further, else 4 chunks.
template <unsigned SIZE, bool DEPTH_IN_COLUMNS>
struct Factor {
    static constexpr unsigned BYTES = SIZE * DEPTH * 2;
    static constexpr unsigned ROW_BYTES = (DEPTH_IN_COLUMNS ? SIZE : DEPTH) * 2;
    static constexpr unsigned COPIES = SIZE / 32;

    static __device__ unsigned chunk() { return threadIdx.x % 4; }
    // In columns, eight neighbouring threads copy to rows 4 apart, whose chunks lie in different banks.
    static __device__ unsigned row() {
        const unsigned t = threadIdx.x;
        return DEPTH_IN_COLUMNS ? t / 32 * 8 + t / 4 % 2 * 4 + t / 8 % 4 : t / 4;
    }
    static __device__ unsigned place(unsigned row, unsigned chunk) {
        return row * ROW_BYTES + (chunk ^ (DEPTH_IN_COLUMNS ? row % 8 : row / 2 % 4)) * 16;
    }
    static __device__ unsigned copy_place(unsigned i) {
        const unsigned first = place(row(), chunk());
        return DEPTH_IN_COLUMNS ? first ^ i * 64 : first + i * 32 * ROW_BYTES;
    }
};

// Where a lane finds, in a stage, its rows of the pieces of 16 (of SIZE) x 16 (deep) that ldmatrix reads as four 8 x 8
// matrices; FIRST: as the first operand of mma, else as the second of two. Few numbers, that the loop adds constants to.
template <unsigned SIZE, unsigned PIECES, bool DEPTH_IN_COLUMNS, bool FIRST>
struct Pieces {
    typedef Factor<SIZE, DEPTH_IN_COLUMNS> Place;
    unsigned starts[DEPTH_IN_COLUMNS ? PIECES : DEPTH / 16];

    __device__ explicit Pieces(unsigned first) {
        const unsigned lane = threadIdx.x % 32, low = lane % 16, half = lane / 16, row = lane % 8, quarter = lane / 8 % 2;
#pragma unroll
        for (unsigned i = 0; i < sizeof starts / sizeof *starts; ++i) {
            if (DEPTH_IN_COLUMNS) {
                const unsigned chunk = first / 8 + 2 * i;
                starts[i] = FIRST ? Place::place(row + half * 8, chunk + quarter) : Place::place(low, chunk + half);
            } else {
                starts[i] = FIRST ? Place::place(first + low, 2 * i + half) : Place::place(first + row + half * 8, 2 * i + quarter);
            }
            starts[i] = kept(starts[i]);
        }
    }
    __device__ unsigned at(unsigned piece, unsigned deep) const {
        return DEPTH_IN_COLUMNS ? starts[piece] + deep * SIZE * 2 : starts[deep / 16] + piece * 16 * DEPTH * 2;
    }
};

// Shared memory of a block: 36 to 48 KiB.
template <unsigned ROWS, unsigned COLUMNS>
struct __align__(128) Ring {
    unsigned char stages[STAGES][(ROWS + COLUMNS) * DEPTH * 2];
};

template <unsigned ROWS, unsigned COLUMNS, bool A_IN_COLUMNS, bool B_IN_COLUMNS>
struct Tile {
    typedef Factor<ROWS, A_IN_COLUMNS> A;
    typedef Factor<COLUMNS, B_IN_COLUMNS> B;
    static constexpr unsigned STAGE = A::BYTES + B::BYTES, HEIGHT = ROWS / 2, WIDTH = COLUMNS / 2;
    float sums[HEIGHT / 16][WIDTH / 8][4] = {};
    SharedAddress first, to_a[A::COPIES], to_b[B::COPIES];

    __device__ explicit Tile(Ring<ROWS, COLUMNS>& ring) : first(shared_address(&ring)) {
#pragma unroll
        for (unsigned i = 0; i < A::COPIES; ++i) {
            to_a[i] = kept(first + A::copy_place(i));
        }
#pragma unroll
        for (unsigned i = 0; i < B::COPIES; ++i) {
            to_b[i] = kept(first + A::BYTES + B::copy_place(i));
        }
    }
    // Copy i of the stage that begins `stage` bytes after the first.
    __device__ void copy_a(unsigned i, unsigned stage, const bf16* from, bool there) const { copy16(to_a[i] + stage, from, there); }
    __device__ void copy_b(unsigned i, unsigned stage, const bf16* from, bool there) const { copy16(to_b[i] + stage, from, there); }

    static __device__ unsigned warp_row() { return threadIdx.x / 64 * HEIGHT; }
    static __device__ unsigned warp_column() { return threadIdx.x / 32 % 2 * WIDTH; }

    Pieces<ROWS, HEIGHT / 16, A_IN_COLUMNS, true> pieces_a{warp_row()};
    Pieces<COLUMNS, WIDTH / 16, B_IN_COLUMNS, false> pieces_b{warp_column()};

    __device__ void multiply(SharedAddress stage) {
#pragma unroll
        for (unsigned deep = 0; deep < DEPTH; deep += 16) {
            unsigned a[HEIGHT / 16][4];
#pragma unroll
            for (unsigned i = 0; i < HEIGHT / 16; ++i) {
                ldmatrix<A_IN_COLUMNS>(a[i], stage + pieces_a.at(i, deep));
            }
#pragma unroll
            for (unsigned j = 0; j < WIDTH / 8; j += 2) {
                unsigned b[4];
                ldmatrix<B_IN_COLUMNS>(b, stage + A::BYTES + pieces_b.at(j / 2, deep));
#pragma unroll
                for (unsigned i = 0; i < HEIGHT / 16; ++i) {
                    mma_bf16(sums[i][j], a[i], {b[0], b[1]});
                    mma_bf16(sums[i][j + 1], a[i], {b[2], b[3]});
                }
            }
        }
    }

    // Sums over `steps` stages. fetch(stage) starts the copies of the next 32 of the depth.
    template <class Fetch>
    __device__ void run(unsigned steps, Fetch fetch) {
#pragma unroll
        for (unsigned stage = 0; stage < STAGES - 1; ++stage) {
            if (stage < steps) {
                fetch(stage * STAGE);
            }
            commit_copies();
        }
        // Once around the ring, so that all addresses in it are constants.
        for (unsigned step = 0; step < steps; step += STAGES) {
#pragma unroll
            for (unsigned stage = 0; stage < STAGES; ++stage) {
                if (step + stage == steps) {
                    return;
                }
                wait_for_copies<STAGES - 2>();
                // Now this stage is there for all threads, and none reads any more the one that is filled next.
                __syncthreads();
                if (step + stage + STAGES - 1 < steps) {
                    fetch((stage + STAGES - 1) % STAGES * STAGE);
                }
                commit_copies();
                multiply(first + stage * STAGE);
            }
        }
    }

    // Calls put(row, column, sums) for every four neighbours in a row. mma leaves a lane two columns of each tile; lanes
    // exchange them in pairs, so that a store fills whole sectors of 32 bytes.
    template <class Put>
    __device__ void each_four(Put put) const {
        const unsigned lane = threadIdx.x % 32, odd = lane % 2;
#pragma unroll
        for (unsigned i = 0; i < HEIGHT / 8; ++i) {
#pragma unroll
            for (unsigned j = 0; j < WIDTH / 8; j += 2) {
                const float* left = sums[i / 2][j] + i % 2 * 2;
                const float* right = sums[i / 2][j + 1] + i % 2 * 2;
                const float x = __shfl_xor_sync(~0u, odd ? left[0] : right[0], 1);
                const float y = __shfl_xor_sync(~0u, odd ? left[1] : right[1], 1);
                const Four four = odd ? Four{x, y, right[0], right[1]} : Four{left[0], left[1], x, y};
                put(warp_row() + 8 * i + lane / 4, warp_column() + 8 * (j + odd) + lane % 4 / 2 * 4, four);
            }
        }
    }
};
