// Convolution (cross-correlation) over bf16 maps as implicit GEMM (paper 3.5); taps outside the image read 0. No matrix of
// windows lies in memory: the copies of 16 bytes pick 8 channels of a tap of a window from the image. Contracts:
// src/backend/mod.rs; a dense layer is the convolution of one pixel.
//
//   conv_forward          rows: windows (n, p, q); columns: filters; depth: (r, s, c)
//                         also the gradient of the input, with dy for x and the rotated filters (rotate_filters)
//   conv_backward_weight  rows: filters; columns: (r, s, c); depth: windows (n, p, q)
#include "tile.cuh"

// A number of three digits, whose two lower ones may start at any place, and the offset in memory that goes with it. It
// walks in equal steps, so that the divisions are done once.
//   a window: low is its column q, high its row p, top the image n
//   a chunk of 8 channels of a tap: low is the chunk, high the column s, top the row r
struct Walk {
    int low, high, top, offset;
};

// A step, the ends of the lower digits, their sizes, and what else the offset gains where one begins again.
struct Step {
    Walk by;
    int low_end, high_end, low_size, high_size, low_turn, high_turn;

    __device__ void advance(Walk& walk) const {
        walk.low += by.low, walk.high += by.high, walk.top += by.top, walk.offset += by.offset;
        if (walk.low >= low_end) {
            walk.low -= low_size, ++walk.high, walk.offset += low_turn;
        }
        if (walk.high >= high_end) {
            walk.high -= high_size, ++walk.top, walk.offset += high_turn;
        }
    }
};

// A window; the offset is where its corner would be without padding.
static __device__ Walk window(const Conv& f, unsigned at) {
    const int q = at % f.q, p = at / f.q % f.p, n = at / f.q / f.p;
    return {q, p, n, static_cast<int>(((n * f.h + p) * f.w + q) * f.c)};
}

// Steps of `count` windows whose rows and columns are counted from `row` and `column` on.
static __device__ Step windows(const Conv& f, unsigned count, int row, int column) {
    const int p = f.p, q = f.q, c = f.c;
    return {window(f, count), q + column, p + row, q, p, static_cast<int>(f.w - f.q) * c, static_cast<int>((f.h - f.p) * f.w) * c};
}

static __device__ Walk tap(const Conv& f, unsigned at) {
    const unsigned chunks = f.c / 8;
    const int chunk = at % chunks, s = at / chunks % f.s, r = at / chunks / f.s;
    return {chunk, s, r, static_cast<int>((r * f.w + s) * f.c + chunk * 8)};
}

static __device__ Step taps(const Conv& f, unsigned count) {
    const int chunks = f.c / 8, s = f.s;
    return {tap(f, count), chunks, s, chunks, s, 0, static_cast<int>((f.w - f.s) * f.c)};
}

// A row above all images.
constexpr int NOWHERE = -0x40000000;

// Whether the image has this row and column; negative ones are huge.
static __device__ bool inside(const Conv& f, int row, int column) {
    return static_cast<unsigned>(row) < f.h & static_cast<unsigned>(column) < f.w;
}

constexpr unsigned ROWS = 128;  // windows of a forward tile

// bias, start: null for none. sums: null where y is written.
template <unsigned COLUMNS>
static __device__ void forward(Ring<ROWS, COLUMNS>& ring, const Conv& f, const Split& split, const bf16* x, const bf16* w,
                               const float* bias, const float* start, float* sums, bf16* y) {
    typedef Tile<ROWS, COLUMNS, false, false> Product;
    typedef typename Product::A A;
    typedef typename Product::B B;
    const unsigned rows = f.n * f.p * f.q, first_row = blockIdx.x * ROWS, first_column = blockIdx.y * COLUMNS;
    const unsigned depth = f.r * f.s * f.c, from = blockIdx.z * split.depth, end = min(from + split.depth, depth);

    // This thread's rows: the window's corner, in the padding perhaps.
    const int pad = f.pad;
    int row[A::COPIES], column[A::COPIES], corner[A::COPIES];
    Walk walk = window(f, first_row + A::row());
    const Step next_row = windows(f, 32, 0, 0);
#pragma unroll
    for (unsigned i = 0; i < A::COPIES; ++i) {
        row[i] = first_row + A::row() + i * 32 < rows ? walk.high - pad : NOWHERE;
        column[i] = walk.low - pad;
        corner[i] = walk.offset - static_cast<int>((f.pad * f.w + f.pad) * f.c);
        next_row.advance(walk);
    }
    // And its filters; those that do not exist read the last one, for sums that nobody stores.
    unsigned filter[B::COPIES];
#pragma unroll
    for (unsigned i = 0; i < B::COPIES; ++i) {
        filter[i] = min(first_column + B::row() + i * 32, f.k - 1) * depth;
    }
    unsigned at = from + A::chunk() * 8;
    Walk here = tap(f, at / 8);
    const Step next_stage = taps(f, DEPTH / 8);

    Product product(ring);
    product.run((end - from + DEPTH - 1) / DEPTH, [&](unsigned stage) {
        const bool more = at < end;
        const int r = more ? here.top : NOWHERE, s = here.high;
#pragma unroll
        for (unsigned i = 0; i < A::COPIES; ++i) {
            product.copy_a(i, stage, x + (corner[i] + here.offset), inside(f, row[i] + r, column[i] + s));
        }
#pragma unroll
        for (unsigned i = 0; i < B::COPIES; ++i) {
            product.copy_b(i, stage, w + (filter[i] + at), more);
        }
        at += DEPTH;
        next_stage.advance(here);
    });

    const size_t part = static_cast<size_t>(blockIdx.z) * rows * f.k / 4;
    product.each_four([&](unsigned row, unsigned column, Four four) {
        row += first_row, column += first_column;
        if (row < rows && column < f.k) {
            const size_t place = (static_cast<size_t>(row) * f.k + column) / 4;
            if (bias) {
                four.add(load4(bias, column / 4));
            }
            if (start) {
                four.add(load4(start, place));
            }
            if (sums) {
                store4(sums, part + place, four);
            } else {
                store4(y, place, four);
            }
        }
    });
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_forward_128(Conv f, Split split, const bf16* __restrict__ x, const bf16* __restrict__ w, const float* __restrict__ bias,
                     const float* __restrict__ start, float* __restrict__ sums, bf16* __restrict__ y) {
    __shared__ Ring<ROWS, 128> ring;
    forward(ring, f, split, x, w, bias, start, sums, y);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_forward_96(Conv f, Split split, const bf16* __restrict__ x, const bf16* __restrict__ w, const float* __restrict__ bias,
                    const float* __restrict__ start, float* __restrict__ sums, bf16* __restrict__ y) {
    __shared__ Ring<ROWS, 96> ring;
    forward(ring, f, split, x, w, bias, start, sums, y);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_forward_64(Conv f, Split split, const bf16* __restrict__ x, const bf16* __restrict__ w, const float* __restrict__ bias,
                    const float* __restrict__ start, float* __restrict__ sums, bf16* __restrict__ y) {
    __shared__ Ring<ROWS, 64> ring;
    forward(ring, f, split, x, w, bias, start, sums, y);
}

constexpr unsigned TAPS = 128;  // columns of a tile of the gradient; its rows fit the filters

template <unsigned FILTERS>
static __device__ void backward_weight(Ring<FILTERS, TAPS>& ring, const Conv& f, const Split& split, const bf16* x, const bf16* dy,
                                       float* parts) {
    typedef Tile<FILTERS, TAPS, true, true> Product;
    typedef typename Product::A A;
    typedef typename Product::B B;
    const unsigned columns = f.r * f.s * f.c, first_row = blockIdx.x * FILTERS, first_column = blockIdx.y * TAPS;
    const unsigned from = blockIdx.z * split.depth, end = min(from + split.depth, f.n * f.p * f.q);

    // This thread's window and pixel of each stage, and how many are left from it on.
    const unsigned at = from + A::row();
    int left = end - at;
    Walk here = window(f, at);
    const Step next_stage = windows(f, DEPTH, 0, 0);
    // Its filters, 8 at a time, and its 8 channels of some taps: where they do not exist, no bytes and no row.
    const unsigned filter = first_row + A::chunk() * 8, column = first_column + B::chunk() * 8;
    const bf16* gradients = dy + (static_cast<size_t>(at) * f.k + filter);
    const int pad = f.pad;
    int row[B::COPIES], tap_column[B::COPIES], offset[B::COPIES];
#pragma unroll
    for (unsigned i = 0; i < B::COPIES; ++i) {
        const Walk mine = tap(f, (column + 32 * i) / 8);
        row[i] = column + 32 * i < columns ? mine.top - pad : NOWHERE, tap_column[i] = mine.high - pad;
        offset[i] = mine.offset - static_cast<int>((f.pad * f.w + f.pad) * f.c);
    }

    Product product(ring);
    product.run((end - from + DEPTH - 1) / DEPTH, [&](unsigned stage) {
        const bool more = left > 0;
        const int first = more ? here.high : NOWHERE;
#pragma unroll
        for (unsigned i = 0; i < A::COPIES; ++i) {
            product.copy_a(i, stage, gradients + 32 * i, more & (filter + 32 * i < f.k));
        }
#pragma unroll
        for (unsigned i = 0; i < B::COPIES; ++i) {
            product.copy_b(i, stage, x + (here.offset + offset[i]), inside(f, first + row[i], here.low + tap_column[i]));
        }
        left -= DEPTH, gradients += DEPTH * f.k;
        next_stage.advance(here);
    });

    product.each_four([&](unsigned row, unsigned column, const Four& four) {
        row += first_row, column += first_column;
        if (row < f.k && column < columns) {
            store4(parts, ((static_cast<size_t>(blockIdx.z) * f.k + row) * columns + column) / 4, four);
        }
    });
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_backward_weight_128(Conv f, Split split, const bf16* __restrict__ x, const bf16* __restrict__ dy, float* __restrict__ parts) {
    __shared__ Ring<128, TAPS> ring;
    backward_weight(ring, f, split, x, dy, parts);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_backward_weight_64(Conv f, Split split, const bf16* __restrict__ x, const bf16* __restrict__ dy, float* __restrict__ parts) {
    __shared__ Ring<64, TAPS> ring;
    backward_weight(ring, f, split, x, dy, parts);
}
