// Convolution (cross-correlation) as implicit GEMM: forward, both gradients, and the bias's. Contracts:
// src/backend/mod.rs. Activations are N C H W, filters K C R S, outputs N K P Q; taps outside the image read 0. Paper
// 3.5.
#include "gemm.cuh"

// Rows of the forward product: the filters as they lie in memory, K x CRS.
struct FilterRows {
    static constexpr bool ALONG_DEPTH = true;
    typedef unsigned Index;
    const float* w;
    unsigned crs;

    __device__ Index index(unsigned k) const { return k * crs; }
    __device__ unsigned depth(unsigned crs_index) const { return crs_index; }
    __device__ float at(Index filter, unsigned tap) const { return w[filter + tap]; }
};

// A tap (c, r, s): where it lies in an image relative to the window's corner, and which row and column of the window it
// is.
struct Tap {
    unsigned offset, r, s;
};

static __device__ Tap tap(const ConvShape& shape, unsigned crs) {
    const unsigned c = shape.by_rs.quotient(crs), rs = crs - c * shape.by_rs.d;
    const unsigned r = shape.by_s.quotient(rs), s = rs - r * shape.s;
    return {(c * shape.h + r) * shape.w + s, r, s};
}

// A window (n, p, q): its corner in the image, which padding may put before the first row or column, hence signed.
struct Window {
    int offset, h, w;
};

static __device__ Window window(const ConvShape& shape, unsigned npq) {
    const unsigned n = shape.by_pq.quotient(npq), pq = npq - n * shape.by_pq.d;
    const unsigned p = shape.by_q.quotient(pq), q = pq - p * shape.q;
    const int h = static_cast<int>(p * shape.stride) - static_cast<int>(shape.pad);
    const int w = static_cast<int>(q * shape.stride) - static_cast<int>(shape.pad);
    const int image = static_cast<int>(n * shape.c * shape.h * shape.w);
    return {image + h * static_cast<int>(shape.w) + w, h, w};
}

static __device__ float image_at(const ConvShape& shape, const float* x, const Window& window, const Tap& tap) {
    // A negative row or column becomes a huge one.
    const bool inside = window.h + tap.r < shape.h && window.w + tap.s < shape.w;
    return inside ? x[window.offset + static_cast<int>(tap.offset)] : 0.f;
}

// Columns of the forward product: the windows; neighbouring ones lie side by side in the image.
struct WindowColumns {
    static constexpr bool ALONG_DEPTH = false;
    typedef Window Index;
    const ConvShape& shape;
    const float* x;

    __device__ Index index(unsigned npq) const { return window(shape, npq); }
    __device__ Tap depth(unsigned crs) const { return tap(shape, crs); }
    __device__ float at(const Index& window, const Tap& tap) const { return image_at(shape, x, window, tap); }
};

// Columns of the weight gradient's product: the taps; its depth are the windows.
struct TapColumns {
    static constexpr bool ALONG_DEPTH = true;
    typedef Tap Index;
    const ConvShape& shape;
    const float* x;

    __device__ Index index(unsigned crs) const { return tap(shape, crs); }
    __device__ Window depth(unsigned npq) const { return window(shape, npq); }
    __device__ float at(const Index& tap, const Window& window) const { return image_at(shape, x, window, tap); }
};

// Rows of the weight gradient's product: dy's maps of one filter in all images.
struct GradientRows {
    static constexpr bool ALONG_DEPTH = true;
    typedef unsigned Index;
    const ConvShape& shape;
    const float* dy;

    __device__ Index index(unsigned k) const { return k * shape.by_pq.d; }
    __device__ unsigned depth(unsigned npq) const {
        const unsigned n = shape.by_pq.quotient(npq);
        return npq + n * (shape.k - 1) * shape.by_pq.d;  // (n * K) * PQ + pq
    }
    __device__ float at(Index map, unsigned pixel) const { return dy[map + pixel]; }
};

// Rows of the input gradient's product: a channel's taps in all filters; depth is (k, r, s).
struct ChannelRows {
    static constexpr bool ALONG_DEPTH = true;
    typedef unsigned Index;
    const ConvShape& shape;
    const float* w;

    __device__ Index index(unsigned c) const { return c * shape.by_rs.d; }
    __device__ unsigned depth(unsigned krs) const {
        const unsigned k = shape.by_rs.quotient(krs);
        return krs + k * (shape.c - 1) * shape.by_rs.d;  // (k * C) * RS + rs
    }
    __device__ float at(Index channel, unsigned tap) const { return w[channel + tap]; }
};

// Columns of the input gradient's product: the pixels (n, h, w). Tap (r, s) of filter k brings the gradient of the
// window whose corner lies r rows and s columns before the pixel, if there is one: only every stride-th place has a
// window.
struct PixelColumns {
    static constexpr bool ALONG_DEPTH = false;
    struct Index {
        unsigned image, h, w;
    };
    const ConvShape& shape;
    const float* dy;

    __device__ Index index(unsigned nhw) const {
        const unsigned n = shape.by_hw.quotient(nhw), hw = nhw - n * shape.by_hw.d;
        const unsigned h = shape.by_w.quotient(hw), w = hw - h * shape.w;
        return {n * shape.k * shape.by_pq.d, h + shape.pad, w + shape.pad};
    }
    __device__ Tap depth(unsigned krs) const {
        const unsigned k = shape.by_rs.quotient(krs), rs = krs - k * shape.by_rs.d;
        const unsigned r = shape.by_s.quotient(rs), s = rs - r * shape.s;
        return {k * shape.by_pq.d, r, s};
    }
    __device__ float at(const Index& pixel, const Tap& tap) const {
        if (pixel.h < tap.r || pixel.w < tap.s) {
            return 0.f;
        }
        const unsigned h = pixel.h - tap.r, w = pixel.w - tap.s;
        const unsigned p = shape.by_stride.quotient(h), q = shape.by_stride.quotient(w);
        const bool window = p * shape.stride == h && q * shape.stride == w && p < shape.p && q < shape.q;
        return window ? dy[pixel.image + tap.offset + p * shape.q + q] : 0.f;
    }
};

// Sums go to maps: column (n, pixel) of row k to n, k, pixel.
struct Maps {
    const Divisor& by_pixels;
    unsigned maps;
    float* out;
    const float* bias;
    bool adds;

    __device__ unsigned place(unsigned row, unsigned column) const {
        const unsigned n = by_pixels.quotient(column);
        return column + (n * (maps - 1) + row) * by_pixels.d;  // (n * maps + row) * pixels + pixel
    }
    __device__ void write(unsigned row, unsigned place, float sum) const {
        out[place] = sum + (adds ? out[place] : bias ? bias[row] : 0.f);
    }
};

// Sums go to a row-major matrix.
struct Matrix {
    unsigned columns;
    float* out;

    __device__ unsigned place(unsigned row, unsigned column) const { return row * columns + column; }
    __device__ void write(unsigned, unsigned place, float sum) const { out[place] = sum; }
};

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    conv_forward(ConvShape shape, Split split, const float* __restrict__ x, const float* __restrict__ w,
                 const float* __restrict__ bias, float* y, float* partials) {
    __shared__ Tiles tiles;
    const unsigned crs = shape.c * shape.by_rs.d;
    const Maps maps = {shape.by_pq, shape.k, y, bias, bias == nullptr};
    multiply(tiles, FilterRows{w, crs}, WindowColumns{shape, x}, maps, split, shape.k, shape.n * shape.by_pq.d, crs,
             partials);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    conv_backward_input(ConvShape shape, Split split, const float* __restrict__ dy, const float* __restrict__ w,
                        float* __restrict__ dx, float* partials) {
    __shared__ Tiles tiles;
    const Maps maps = {shape.by_hw, shape.c, dx, nullptr, false};
    multiply(tiles, ChannelRows{shape, w}, PixelColumns{shape, dy}, maps, split, shape.c, shape.n * shape.by_hw.d,
             shape.k * shape.by_rs.d, partials);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    conv_backward_weight(ConvShape shape, Split split, const float* __restrict__ x, const float* __restrict__ dy,
                         float* __restrict__ dw, float* partials) {
    __shared__ Tiles tiles;
    const unsigned crs = shape.c * shape.by_rs.d;
    multiply(tiles, GradientRows{shape, dy}, TapColumns{shape, x}, Matrix{crs, dw}, split, shape.k, crs,
             shape.n * shape.by_pq.d, partials);
}

// A block sums one filter's maps: each thread takes one pixel in ELEMENT_THREADS, then a tree adds them, in a fixed order.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    conv_backward_bias(ConvShape shape, const float* __restrict__ dy, float* __restrict__ dbias) {
    __shared__ float sums[ELEMENT_THREADS];
    const unsigned pixels = shape.by_pq.d, k = blockIdx.x;
    float sum = 0.f;
    for (unsigned at = threadIdx.x; at < shape.n * pixels; at += ELEMENT_THREADS) {
        const unsigned n = shape.by_pq.quotient(at);
        sum += dy[(n * (shape.k - 1) + k) * pixels + at];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = ELEMENT_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        dbias[k] = sums[0];
    }
}
