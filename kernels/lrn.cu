// Local response normalization over neighbouring channels (paper 3.3): y_i = x_i / s_i^beta, s_i = k + alpha * the sum
// of x_j^2 over the window around i. Contracts: src/backend/mod.rs.
//
// One thread a pixel goes through its channels; a warp's pixels are neighbours in memory. The window's terms move
// through registers, so that every value is read from memory once. Sums are taken anew for every channel, in the order
// of the channels: a running sum would lose bits.
#include "shapes.cuh"

// s^-beta; the paper's beta of 3/4 by two square roots instead of a power function.
static __device__ float inverse_power(float s, float beta) {
    if (beta == 0.75f) {
        const float root = sqrtf(s);
        return 1.f / (root * sqrtf(root));
    }
    return powf(s, -beta);
}

// The newest COUNT values; index 0 is the oldest. Loops over it must unroll to keep it in registers.
template <int COUNT>
struct Ring {
    float values[COUNT] = {};

    __device__ void push(float value) {
#pragma unroll
        for (int i = 0; i + 1 < COUNT; ++i) {
            values[i] = values[i + 1];
        }
        values[COUNT - 1] = value;
    }
    __device__ float sum() const {
        float sum = 0.f;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            sum += values[i];
        }
        return sum;
    }
};

// Windows reach HALF channels to each side; `lead` is the channel that enters the window around `i`.
template <int HALF>
static __device__ void forward(const LrnShape& shape, const float* x, float* y) {
    Ring<2 * HALF + 1> squares;
    Ring<HALF + 1> centres;
    const int channels = shape.c;
    for (int lead = 0; lead < channels + HALF; ++lead) {
        const float entering = lead < channels ? x[lead * shape.pixels] : 0.f;
        squares.push(entering * entering);
        centres.push(entering);
        const int i = lead - HALF;
        if (i >= 0) {
            const float s = shape.k + shape.alpha * squares.sum();
            y[i * shape.pixels] = centres.values[0] * inverse_power(s, shape.beta);
        }
    }
}

// dx_i = dy_i / s_i^beta - 2 alpha beta x_i * the sum of t_j over the window around i, t_j = dy_j x_j / s_j^(beta + 1).
// s of channel j is known HALF channels after it is read, the sum of t around i HALF channels later.
template <int HALF>
static __device__ void backward(const LrnShape& shape, const float* x, const float* dy, float* dx) {
    Ring<2 * HALF + 1> squares, terms, inputs;
    Ring<HALF + 1> scaled;
    const float factor = 2.f * shape.alpha * shape.beta;
    const int channels = shape.c;
    for (int lead = 0; lead < channels + 2 * HALF; ++lead) {
        const float entering = lead < channels ? x[lead * shape.pixels] : 0.f;
        squares.push(entering * entering);
        inputs.push(entering);
        const int j = lead - HALF;
        float term = 0.f, gradient = 0.f;
        if (j >= 0 && j < channels) {
            const float s = shape.k + shape.alpha * squares.sum(), power = inverse_power(s, shape.beta);
            gradient = dy[j * shape.pixels] * power;
            term = gradient * inputs.values[HALF] / s;
        }
        terms.push(term);
        scaled.push(gradient);
        const int i = lead - 2 * HALF;
        if (i >= 0) {
            dx[i * shape.pixels] = scaled.values[0] - factor * inputs.values[0] * terms.sum();
        }
    }
}

// Any window, by computing s anew wherever it is needed.
static __device__ float scale(const LrnShape& shape, const float* x, int i) {
    const int half = shape.window / 2, channels = shape.c;
    float sum = 0.f;
    for (int j = max(i - half, 0); j < min(i + half + 1, channels); ++j) {
        sum += x[j * shape.pixels] * x[j * shape.pixels];
    }
    return shape.k + shape.alpha * sum;
}

extern "C" __global__ void __launch_bounds__(LRN_THREADS)
    lrn_forward(LrnShape shape, const float* __restrict__ x, float* __restrict__ y) {
    const unsigned pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= shape.n * shape.pixels) {
        return;
    }
    const unsigned n = pixel / shape.pixels, first = n * (shape.c - 1) * shape.pixels + pixel;
    x += first;
    y += first;
    if (shape.window == 5) {
        forward<2>(shape, x, y);
        return;
    }
    for (int i = 0; i < static_cast<int>(shape.c); ++i) {
        y[i * shape.pixels] = x[i * shape.pixels] * inverse_power(scale(shape, x, i), shape.beta);
    }
}

extern "C" __global__ void __launch_bounds__(LRN_THREADS)
    lrn_backward(LrnShape shape, const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ dx) {
    const unsigned pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= shape.n * shape.pixels) {
        return;
    }
    const unsigned n = pixel / shape.pixels, first = n * (shape.c - 1) * shape.pixels + pixel;
    x += first;
    dy += first;
    dx += first;
    if (shape.window == 5) {
        backward<2>(shape, x, dy, dx);
        return;
    }
    const int half = shape.window / 2, channels = shape.c;
    for (int i = 0; i < channels; ++i) {
        float sum = 0.f, gradient = 0.f;
        for (int j = max(i - half, 0); j < min(i + half + 1, channels); ++j) {
            const float s = scale(shape, x, j), scaled = dy[j * shape.pixels] * inverse_power(s, shape.beta);
            sum += scaled * x[j * shape.pixels] / s;
            gradient = j == i ? scaled : gradient;
        }
        dx[i * shape.pixels] = gradient - 2.f * shape.alpha * shape.beta * x[i * shape.pixels] * sum;
    }
}

// Normalization within maps: one thread a value, which computes s anew for every pixel of its window.

static __device__ float spatial_scale(const SpatialLrnShape& shape, const float* map, int h, int w) {
    const int half = shape.norm.window / 2, rows = shape.h, columns = shape.w;
    float sum = 0.f;
    for (int r = max(h - half, 0); r < min(h + half + 1, rows); ++r) {
        for (int s = max(w - half, 0); s < min(w + half + 1, columns); ++s) {
            sum += map[r * columns + s] * map[r * columns + s];
        }
    }
    return shape.norm.k + shape.norm.alpha * sum;
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    spatial_lrn_forward(SpatialLrnShape shape, const float* __restrict__ x, float* __restrict__ y) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, pixel = at % shape.norm.pixels;
    if (at < shape.norm.n * shape.norm.c * shape.norm.pixels) {
        const float s = spatial_scale(shape, x + at - pixel, pixel / shape.w, pixel % shape.w);
        y[at] = x[at] * inverse_power(s, shape.norm.beta);
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    spatial_lrn_backward(SpatialLrnShape shape, const float* __restrict__ x, const float* __restrict__ dy,
                         float* __restrict__ dx) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, pixel = at % shape.norm.pixels;
    if (at >= shape.norm.n * shape.norm.c * shape.norm.pixels) {
        return;
    }
    const float *map = x + at - pixel, *gradients = dy + at - pixel;
    const int half = shape.norm.window / 2, rows = shape.h, columns = shape.w, h = pixel / shape.w, w = pixel % shape.w;
    float sum = 0.f, gradient = 0.f;
    for (int r = max(h - half, 0); r < min(h + half + 1, rows); ++r) {
        for (int s = max(w - half, 0); s < min(w + half + 1, columns); ++s) {
            const int near = r * columns + s;
            const float scale = spatial_scale(shape, map, r, s), scaled = gradients[near] * inverse_power(scale, shape.norm.beta);
            sum += scaled * map[near] / scale;
            gradient = r == h && s == w ? scaled : gradient;
        }
    }
    dx[at] = gradient - 2.f * shape.norm.alpha * shape.norm.beta * x[at] * sum;
}
