// Local response normalization over neighbouring channels (paper 3.3), with any window: one thread for 8 channels of a
// pixel goes through them and half a window to both sides, and adds each to the windows that have it. With the paper's
// windows, relu_lrn_pool.cu does it between its neighbours. Contracts: src/backend/mod.rs.
#include "lrn.cuh"

// For the 8 channels from `first` on the sum of value(j) over the windows around them.
template <class Value>
static __device__ Vector window_sums(const Lrn& f, int first, Value value) {
    const int half = f.window / 2, channels = f.padded;
    Vector sums = {};
    for (int j = max(first - half, 0); j < min(first + 8 + half, channels); ++j) {
        const float more = value(j);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int distance = j - first - i;
            sums.v[i] += distance <= half && -distance <= half ? more : 0.f;
        }
    }
    return sums;
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    lrn_forward(Lrn f, const bf16* __restrict__ x, bf16* __restrict__ y) {
    const unsigned at = element(), chunks = f.padded / 8;
    if (at >= f.n * f.pixels * chunks) {
        return;
    }
    const bf16* pixel = x + at / chunks * f.padded;
    const Vector squares = window_sums(f, at % chunks * 8, [&](int j) { return square(to_float(pixel[j])); });
    Vector vector = load(x, at);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] *= scale(f, squares.v[i]).power;
    }
    store(y, at, vector);
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    lrn_backward(Lrn f, const bf16* __restrict__ x, const bf16* __restrict__ dy, bf16* __restrict__ dx) {
    const unsigned at = element(), chunks = f.padded / 8;
    if (at >= f.n * f.pixels * chunks) {
        return;
    }
    const bf16* pixel = x + at / chunks * f.padded;
    const bf16* gradients = dy + at / chunks * f.padded;
    const int first = at % chunks * 8, half = f.window / 2, channels = f.padded;
    const auto scale_of = [&](int j) {
        float squares = 0.f;
        for (int i = max(j - half, 0); i < min(j + half + 1, channels); ++i) {
            squares += square(to_float(pixel[i]));
        }
        return scale(f, squares);
    };
    const Vector terms = window_sums(f, first, [&](int j) {
        return term(scale_of(j), to_float(pixel[j]), to_float(gradients[j]));
    });
    const Vector inputs = load(x, at), outputs = load(dy, at);
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] = gradient(f, scale_of(first + i), inputs.v[i], outputs.v[i], terms.v[i]);
    }
    store(dx, at, vector);
}

// Normalization within maps: one thread for 8 channels of a pixel, which computes s anew for every pixel of its window.

// Calls visit(row, column) for the pixels of the window around row h, column w.
template <class Visit>
static __device__ void each_near(const SpatialLrn& f, int h, int w, Visit visit) {
    const int half = f.norm.window / 2, rows = f.h, columns = f.w;
    for (int r = max(h - half, 0); r < min(h + half + 1, rows); ++r) {
        for (int s = max(w - half, 0); s < min(w + half + 1, columns); ++s) {
            visit(r, s);
        }
    }
}

// The sums of squares in the window around row h, column w; `map` is the vector of the map's first pixel.
static __device__ Vector squares_near(const SpatialLrn& f, const bf16* x, unsigned map, int h, int w) {
    Vector sums = {};
    each_near(f, h, w, [&](int r, int s) {
        const Vector values = load(x, map + (r * f.w + s) * (f.norm.padded / 8));
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            sums.v[i] += square(values.v[i]);
        }
    });
    return sums;
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    spatial_lrn_forward(SpatialLrn f, const bf16* __restrict__ x, bf16* __restrict__ y) {
    const unsigned at = element(), chunks = f.norm.padded / 8, pixel = at / chunks % f.norm.pixels;
    if (at >= f.norm.n * f.norm.pixels * chunks) {
        return;
    }
    const Vector squares = squares_near(f, x, at - pixel * chunks, pixel / f.w, pixel % f.w);
    Vector vector = load(x, at);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] *= scale(f.norm, squares.v[i]).power;
    }
    store(y, at, vector);
}

// Without the 2 (blocks of a multiprocessor) the compiler aims at more, and spills registers.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 2)
    spatial_lrn_backward(SpatialLrn f, const bf16* __restrict__ x, const bf16* __restrict__ dy, bf16* __restrict__ dx) {
    const unsigned at = element(), chunks = f.norm.padded / 8, pixel = at / chunks % f.norm.pixels;
    if (at >= f.norm.n * f.norm.pixels * chunks) {
        return;
    }
    const unsigned map = at - pixel * chunks;
    Vector terms = {}, mine = {};
    each_near(f, pixel / f.w, pixel % f.w, [&](int r, int s) {
        const Vector squares = squares_near(f, x, map, r, s);
        if (r * f.w + s == pixel) {
            mine = squares;
        }
        const Vector inputs = load(x, map + (r * f.w + s) * chunks), outputs = load(dy, map + (r * f.w + s) * chunks);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            terms.v[i] += term(scale(f.norm, squares.v[i]), inputs.v[i], outputs.v[i]);
        }
    });
    const Vector inputs = load(x, at), outputs = load(dy, at);
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] = gradient(f.norm, scale(f.norm, mine.v[i]), inputs.v[i], outputs.v[i], terms.v[i]);
    }
    store(dx, at, vector);
}
