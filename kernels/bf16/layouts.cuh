// What the bf16 kernels take by value, as the host computed it, and how their numbers lie in memory. Maps are N H W C in
// bf16; C is a multiple of 8, and channels beyond the real count are 0. A dense layer's rows are maps of one pixel. So a
// vector of 8 values, 16 bytes, is a piece of one pixel: all kernels read and write such vectors. Filters are K R S C.
// All offsets fit in 31 bits; the host checks.
#pragma once

#include "ptx.cuh"
#include "shapes.cuh"

typedef unsigned short bf16;

// Stride 1: a convolution with a larger one comes as one over blocks of pixels ("space to depth", see augment.cu).
struct Conv {
    unsigned n, h, w, c, k, r, s, p, q, pad;
};

// A filter of r x s over `channels`, as filters over blocks of block x block pixels: rows x columns of them.
struct Absent {
    unsigned r, s, block, channels, rows, columns;
};

// c is the real count of channels, `padded` the one in memory; a map has `pixels`.
struct Lrn {
    unsigned n, c, padded, pixels, window;
    float k, alpha, beta;
};

// Windows of window x window pixels in maps of h x w.
struct SpatialLrn {
    Lrn norm;
    unsigned h, w;
};

struct Pool {
    unsigned n, c, h, w, window, stride, p, q, all_ties;
    Divisor by_chunks, by_w, by_h;  // a chunk is a vector of 8 channels
};

// The input as rows x columns of blocks of block x block pixels, `padded` values each.
struct Augment {
    AugmentShape image;
    unsigned block, pad, rows, columns, padded;
};

// Real units are numbered channel by channel, as in N C H W.
struct Dropout {
    DropoutShape units;
    unsigned pixels, padded;
};

// The number of this thread in the launch.
static __device__ unsigned element() { return blockIdx.x * blockDim.x + threadIdx.x; }

static __device__ float to_float(bf16 value) { return __uint_as_float(static_cast<unsigned>(value) << 16); }

// max(x, 0), but NaN stays: a diverged run must be seen in the loss.
static __device__ float relu(float x) { return x <= 0.f ? 0.f : x; }

// Eight neighbouring channels of a pixel, in fp32.
struct Vector {
    float v[8];
};

static __device__ Vector unpack(const uint4& words) {
    const unsigned w[4] = {words.x, words.y, words.z, words.w};
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] = __uint_as_float(i % 2 ? w[i / 2] & 0xffff0000u : w[i / 2] << 16);
    }
    return vector;
}

// Rounds to bf16, ties to even.
static __device__ uint4 pack(const Vector& x) {
    return uint4{to_bf16x2(x.v[0], x.v[1]), to_bf16x2(x.v[2], x.v[3]), to_bf16x2(x.v[4], x.v[5]), to_bf16x2(x.v[6], x.v[7])};
}

static __device__ Vector load(const bf16* from, size_t vector) { return unpack(reinterpret_cast<const uint4*>(from)[vector]); }

static __device__ void store(bf16* to, size_t vector, const Vector& x) { reinterpret_cast<uint4*>(to)[vector] = pack(x); }

// Four neighbouring sums.
struct Four {
    float v[4];

    __device__ void add(const Four& more) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            v[i] += more.v[i];
        }
    }
};

static __device__ Four load4(const float* from, size_t four) {
    const float4 x = reinterpret_cast<const float4*>(from)[four];
    return {x.x, x.y, x.z, x.w};
}

static __device__ void store4(float* to, size_t four, const Four& x) {
    reinterpret_cast<float4*>(to)[four] = float4{x.v[0], x.v[1], x.v[2], x.v[3]};
}

static __device__ void store4(bf16* to, size_t four, const Four& x) {
    reinterpret_cast<uint2*>(to)[four] = uint2{to_bf16x2(x.v[0], x.v[1]), to_bf16x2(x.v[2], x.v[3])};
}
