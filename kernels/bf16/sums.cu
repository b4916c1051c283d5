// Sums of fp32 that come after the products, in a fixed order: of a cut product's parts, and of a gradient over pixels.
#include "layouts.cuh"

// Of four neighbours, the parts in their order.
static __device__ Four add_parts(const float* parts, unsigned elems, unsigned count, unsigned four) {
    Four sum = load4(parts, four);
    for (unsigned part = 1; part < count; ++part) {
        sum.add(load4(parts + static_cast<size_t>(part) * elems, four));
    }
    return sum;
}

// A product's value from its parts and the bias (null for none): to y, or in fp32 to `out` where y is null. One thread for
// four values.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    reduce_parts(unsigned rows, unsigned columns, unsigned count, const float* __restrict__ parts,
                 const float* __restrict__ bias, bf16* __restrict__ y, float* __restrict__ out) {
    const unsigned four = element(), elems = rows * columns;
    if (four >= elems / 4) {
        return;
    }
    Four sum = add_parts(parts, elems, count, four);
    if (bias) {
        sum.add(load4(bias, four % (columns / 4)));
    }
    if (y) {
        store4(y, four, sum);
    } else {
        store4(out, four, sum);
    }
}

// Whether filters have this weight, `tap` counts in K R S of the blocks' form. A block's channel is (row, column, channel) of
// the image's.
static __device__ bool exists(const Absent& f, unsigned tap, unsigned channel) {
    if (f.block == 1) {
        return channel < f.channels;
    }
    const unsigned row = tap / f.columns % f.rows * f.block + channel / f.channels / f.block;
    const unsigned column = tap % f.columns * f.block + channel / f.channels % f.block;
    return row < f.r && column < f.s && channel < f.block * f.block * f.channels;
}

// The gradient of a layer's weights from its parts; 0 where filters have none. A single part may be `out` itself.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    reduce_weights(unsigned elems, unsigned count, Absent absent, const float* parts, float* out) {
    const unsigned four = element();
    if (four >= elems / 4) {
        return;
    }
    Four sum = add_parts(parts, elems, count, four);
    const unsigned padded = (absent.block * absent.block * absent.channels + 7) / 8 * 8;
    const unsigned tap = 4 * four / padded, channel = 4 * four - tap * padded;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        sum.v[i] = exists(absent, tap, channel + i) ? sum.v[i] : 0.f;
    }
    store4(out, four, sum);
}

// The bias's gradient: part i sums rows i * per_part on, each channel's. A block takes 64 channels: 8 neighbouring threads
// each 8 of a row, the others the rows after it; then a tree over the threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    bias_gradient(unsigned rows, unsigned columns, unsigned per_part, const bf16* __restrict__ dy, float* __restrict__ parts) {
    __shared__ float sums[8][ELEMENT_THREADS];
    const unsigned column = blockIdx.y * 64 + threadIdx.x % 8 * 8;
    const unsigned from = blockIdx.x * per_part, end = column < columns ? min(from + per_part, rows) : 0;
    Vector sum = {};
    for (unsigned row = from + threadIdx.x / 8; row < end; row += ELEMENT_THREADS / 8) {
        const Vector more = load(dy, (static_cast<size_t>(row) * columns + column) / 8);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            sum.v[i] += more.v[i];
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        sums[i][threadIdx.x] = sum.v[i];
    }
    for (unsigned half = ELEMENT_THREADS / 2; half >= 8; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                sums[i][threadIdx.x] += sums[i][threadIdx.x + half];
            }
        }
    }
    if (threadIdx.x < 8 && column < columns) {
        const unsigned four = (blockIdx.x * columns + column) / 4, t = threadIdx.x;
        store4(parts, four, {sums[0][t], sums[1][t], sums[2][t], sums[3][t]});
        store4(parts, four + 1, {sums[4][t], sums[5][t], sums[6][t], sums[7][t]});
    }
}
