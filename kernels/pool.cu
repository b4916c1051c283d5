// Max pooling (paper 3.4), average pooling, and their gradients. Contracts: src/backend/mod.rs.
#include "shapes.cuh"

// One thread an output.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    max_pool_forward(PoolShape shape, const float* __restrict__ x, float* __restrict__ y) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= shape.n * shape.c * shape.p * shape.q) {
        return;
    }
    const unsigned q = at % shape.q, p = at / shape.q % shape.p, map = at / shape.q / shape.p;
    const float* corner = x + (map * shape.h + p * shape.stride) * shape.w + q * shape.stride;
    float largest = corner[0];
    for (unsigned r = 0; r < shape.window; ++r) {
        for (unsigned s = 0; s < shape.window; ++s) {
            const float value = corner[r * shape.w + s];
            // A NaN stays: a diverged run must be seen in the loss.
            largest = largest > value || isnan(largest) ? largest : value;
        }
    }
    y[at] = largest;
}

// Whether row r, column s gets the gradient of the window at `corner`: it has the maximum, and no place before it in row
// order has it, or that does not count.
static __device__ bool is_taker(const PoolShape& shape, const float* corner, float largest, unsigned r, unsigned s) {
    for (unsigned at = 0; at < r * shape.window + s && !shape.all_ties; ++at) {
        if (corner[at / shape.window * shape.w + at % shape.window] == largest) {
            return false;
        }
    }
    return corner[r * shape.w + s] == largest;
}

// One thread an input: it looks at the windows that contain it, in row order, and takes the gradients of those whose
// maximum it is: the first one, or with all_ties any. So no two threads write to one place, and the order of the sum is fixed.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    max_pool_backward(PoolShape shape, const float* __restrict__ x, const float* __restrict__ y,
                      const float* __restrict__ dy, float* __restrict__ dx) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= shape.n * shape.c * shape.h * shape.w) {
        return;
    }
    const unsigned w = at % shape.w, h = at / shape.w % shape.h, map = at / shape.w / shape.h;
    const Windows rows = windows_with(h, shape.window, shape.stride, shape.p);
    const Windows columns = windows_with(w, shape.window, shape.stride, shape.q);
    float sum = 0.f;
    for (unsigned p = rows.first; p < rows.end; ++p) {
        for (unsigned q = columns.first; q < columns.end; ++q) {
            const unsigned out = (map * shape.p + p) * shape.q + q;
            const float* corner = x + (map * shape.h + p * shape.stride) * shape.w + q * shape.stride;
            if (is_taker(shape, corner, y[out], h - p * shape.stride, w - q * shape.stride)) {
                sum += dy[out];
            }
        }
    }
    dx[at] = sum;
}

// One thread an output.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    avg_pool_forward(PoolShape shape, const float* __restrict__ x, float* __restrict__ y) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= shape.n * shape.c * shape.p * shape.q) {
        return;
    }
    const unsigned q = at % shape.q, p = at / shape.q % shape.p, map = at / shape.q / shape.p;
    const float* corner = x + (map * shape.h + p * shape.stride) * shape.w + q * shape.stride;
    float sum = 0.f;
    for (unsigned r = 0; r < shape.window; ++r) {
        for (unsigned s = 0; s < shape.window; ++s) {
            sum += corner[r * shape.w + s];
        }
    }
    y[at] = sum / (shape.window * shape.window);
}

// One thread an input: it adds up the windows that contain it, in row order.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    avg_pool_backward(PoolShape shape, const float* __restrict__ dy, float* __restrict__ dx) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= shape.n * shape.c * shape.h * shape.w) {
        return;
    }
    const unsigned w = at % shape.w, h = at / shape.w % shape.h, map = at / shape.w / shape.h;
    const Windows rows = windows_with(h, shape.window, shape.stride, shape.p);
    const Windows columns = windows_with(w, shape.window, shape.stride, shape.q);
    float sum = 0.f;
    for (unsigned p = rows.first; p < rows.end; ++p) {
        for (unsigned q = columns.first; q < columns.end; ++q) {
            sum += dy[(map * shape.p + p) * shape.q + q];
        }
    }
    dx[at] = sum / (shape.window * shape.window);
}
