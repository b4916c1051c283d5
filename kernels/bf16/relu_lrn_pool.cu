// ReLU, local response normalization over 5 channels and max pooling of 3 x 3 windows, 2 apart, in one (paper 3.1, 3.3, 3.4):
// nothing between x and y goes to memory. Same bits as by pointwise.cu, lrn.cu and pool.cu one after another. Contracts:
// src/backend/mod.rs.
//
// A normalized value is not negative, so as bf16 it is ordered like its bits. A key is those bits, then 8 - the value's place
// in its window in row order: the largest key of a window is that of its first maximum. A NaN is the largest.
#include "lrn.cuh"

constexpr unsigned SIDE = 3, STRIDE = 2, LAST_PLACE = SIDE * SIDE - 1;
constexpr unsigned HALF = 2;        // channels to each side of the 8 that a thread has
constexpr unsigned RUN = 4;         // windows in a row that a thread does; two share a column
constexpr unsigned PLACE_BITS = 4;  // in a word for 8 channels

// ReLU of x and the window's scale for 8 channels of a pixel.
struct Pixel {
    float x[8];
    Scale scales[8];

    __device__ Pixel(const Lrn& f, const bf16* x_of_all, unsigned pixel, unsigned chunk) {
        const unsigned chunks = f.padded / 8;
        const unsigned* words = reinterpret_cast<const unsigned*>(x_of_all) + 4 * (pixel * chunks + chunk);
        const unsigned left = chunk > 0 ? words[-1] : 0, right = chunk + 1 < chunks ? words[4] : 0;
        const Vector mine = unpack(*reinterpret_cast<const uint4*>(words)), others = unpack({left, right, 0, 0});
        float squares[HALF + 8 + HALF];
#pragma unroll
        for (unsigned i = 0; i < HALF; ++i) {
            squares[i] = square(relu(others.v[i]));
            squares[HALF + 8 + i] = square(relu(others.v[HALF + i]));
        }
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            x[i] = relu(mine.v[i]);
            squares[HALF + i] = square(x[i]);
        }
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            scales[i] = scale(f, squares[i] + squares[i + 1] + squares[i + 2] + squares[i + 3] + squares[i + 4]);
        }
    }
};

// One thread for 8 channels of RUN windows in a row: it goes through their columns of three pixels. places: see above, one
// word for 8 channels of a window; null where no gradient will be asked for.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    relu_lrn_max_pool_forward(Lrn lrn, Pool f, const bf16* __restrict__ x, bf16* __restrict__ y, unsigned* __restrict__ places) {
    const unsigned at = element(), chunks = f.c / 8, runs = (f.q + RUN - 1) / RUN, chunk = at % chunks;
    const unsigned first = at / chunks % runs * RUN, p = at / chunks / runs % f.p, n = at / chunks / runs / f.p;
    if (n >= f.n) {
        return;
    }
    const unsigned corner = (n * f.h + p * STRIDE) * f.w + first * STRIDE, columns = min(RUN, f.q - first) * STRIDE;
    unsigned keys[8] = {};
    for (unsigned column = 0; column <= columns; ++column) {
        unsigned news[8] = {};  // as if it were a window's first column
#pragma unroll
        for (unsigned r = 0; r < SIDE; ++r) {
            const Pixel pixel(lrn, x, corner + r * f.w + column, chunk);
#pragma unroll
            for (unsigned i = 0; i < 8; i += 2) {
                const unsigned values = to_bf16x2(pixel.x[i] * pixel.scales[i].power, pixel.x[i + 1] * pixel.scales[i + 1].power);
                news[i] = max(news[i], values << 16 | (LAST_PLACE - r * SIDE));
                news[i + 1] = max(news[i + 1], (values & 0xffff0000u) | (LAST_PLACE - r * SIDE));
            }
        }
        const unsigned s = column == 0 ? 0 : column % STRIDE ? 1 : 2;
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            keys[i] = max(keys[i], news[i] - s);
        }
        if (s == 2) {
            const unsigned out = ((n * f.p + p) * f.q + first + column / STRIDE - 1) * chunks + chunk;
            unsigned place = 0;
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                place |= (keys[i] & 15) << PLACE_BITS * i;
            }
            const auto two = [&](unsigned i) { return (keys[i + 1] & 0xffff0000u) | keys[i] >> 16; };
            reinterpret_cast<uint4*>(y)[out] = uint4{two(0), two(2), two(4), two(6)};
            if (places) {
                places[out] = place;
            }
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                keys[i] = news[i];
            }
        }
    }
}

// The gradient at 8 channels of a pixel of pooling's input, rounded: of the windows that it is the first maximum of, in row
// order. Of the windows in a row, 3 wide and 2 apart, a pixel at an even place is in two, as the last and the first, at an
// odd place in one.
static __device__ Vector pooled_gradient(const Pool& f, unsigned pixel, unsigned chunk, const unsigned* places, const bf16* dy) {
    const unsigned row = f.by_w.quotient(pixel), w = pixel - row * f.w, n = f.by_h.quotient(row), h = row - n * f.h;
    const unsigned last_p = h / STRIDE, last_q = w / STRIDE, chunks = f.c / 8;
    Vector sum = {};
    for (unsigned p = h > 0 && h % 2 == 0 ? last_p - 1 : last_p; p <= last_p && p < f.p; ++p) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned q = last_q - 1 + i, out = ((n * f.p + p) * f.q + q) * chunks + chunk;
            const bool there = i == 0 ? w > 0 && w % 2 == 0 : q < f.q;
            const unsigned place = LAST_PLACE - (h - p * STRIDE) * SIDE - (w - q * STRIDE);
            // Four bits of a channel whose maximum is here are 0. No place is 15.
            const unsigned others = (there ? places[out] : ~0u) ^ place * 0x11111111u;
            const Vector gradient = unpack(there ? reinterpret_cast<const uint4*>(dy)[out] : uint4{0, 0, 0, 0});
#pragma unroll
            for (unsigned channel = 0; channel < 8; ++channel) {
                if ((others & 15u << PLACE_BITS * channel) == 0) {
                    sum.v[channel] += gradient.v[channel];
                }
            }
        }
    }
    return unpack(pack(sum));
}

// x, which becomes its gradient. One thread for 8 channels of a pixel, a block for as many whole pixels as it has threads:
// so only the block itself needs what it overwrites, and threads give their neighbours the outer terms of normalization's
// gradient.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    relu_lrn_max_pool_backward(Lrn lrn, Pool f, bf16* x, const unsigned* __restrict__ places, const bf16* __restrict__ dy) {
    __shared__ float4 outer[ELEMENT_THREADS];
    const unsigned chunks = f.c / 8, pixels = f.by_chunks.quotient(ELEMENT_THREADS), t = threadIdx.x;
    const unsigned mine = f.by_chunks.quotient(t), chunk = t - mine * chunks, first = blockIdx.x * pixels, number = first + mine;
    const bool works = mine < pixels && number < f.n * f.h * f.w;
    const Pixel pixel(lrn, x, works ? number : first, chunk);
    Vector gradients = {};
    if (works) {
        gradients = pooled_gradient(f, number, chunk, places, dy);
    }
    float terms[HALF + 8 + HALF];
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        terms[HALF + i] = term(pixel.scales[i], pixel.x[i], gradients.v[i]);
    }
    outer[t] = float4{terms[2], terms[3], terms[8], terms[9]};
    __syncthreads();
    if (!works) {
        return;
    }
    const float4 left = chunk > 0 ? outer[t - 1] : float4{0.f, 0.f, 0.f, 0.f};
    const float4 right = chunk + 1 < chunks ? outer[t + 1] : float4{0.f, 0.f, 0.f, 0.f};
    terms[0] = left.z, terms[1] = left.w, terms[10] = right.x, terms[11] = right.y;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        const float sum = terms[i] + terms[i + 1] + terms[i + 2] + terms[i + 3] + terms[i + 4];
        const float dx = gradient(lrn, pixel.scales[i], pixel.x[i], gradients.v[i], sum);
        gradients.v[i] = pixel.x[i] > 0.f ? dx : 0.f;
    }
    store(x, number * chunks + chunk, gradients);
}
