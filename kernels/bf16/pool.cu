// Max pooling (paper 3.4), average pooling, and their gradients, with any window: one thread for 8 channels of a pixel. With
// the paper's windows, relu_lrn_pool.cu does max pooling. Contracts: src/backend/mod.rs.
#include "layouts.cuh"

// One thread for 8 outputs.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    max_pool_forward(Pool f, const bf16* __restrict__ x, bf16* __restrict__ y) {
    const unsigned at = element(), chunks = f.c / 8, q = at / chunks % f.q, p = at / chunks / f.q % f.p;
    const unsigned n = at / chunks / f.q / f.p;
    if (n >= f.n) {
        return;
    }
    const unsigned corner = ((n * f.h + p * f.stride) * f.w + q * f.stride) * chunks + at % chunks;
    Vector largest = load(x, corner);
    for (unsigned r = 0; r < f.window; ++r) {
        for (unsigned s = 0; s < f.window; ++s) {
            const Vector values = load(x, corner + (r * f.w + s) * chunks);
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                // A NaN stays: a diverged run must be seen in the loss.
                largest.v[i] = largest.v[i] >= values.v[i] || isnan(largest.v[i]) ? largest.v[i] : values.v[i];
            }
        }
    }
    store(y, at, largest);
}

// One thread for 8 inputs: it looks at the windows that contain them, in row order, and takes the gradients of those whose
// maximum they are: the first one, or with all_ties any. So no two threads write to one place, and the order of the sum is fixed.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    max_pool_backward(Pool f, const bf16* __restrict__ x, const bf16* __restrict__ y, const bf16* __restrict__ dy,
                      bf16* __restrict__ dx) {
    const unsigned at = element(), chunks = f.c / 8, w = at / chunks % f.w, h = at / chunks / f.w % f.h;
    const unsigned n = at / chunks / f.w / f.h;
    if (n >= f.n) {
        return;
    }
    const Windows rows = windows_with(h, f.window, f.stride, f.p), columns = windows_with(w, f.window, f.stride, f.q);
    const Vector mine = load(x, at);
    Vector sum = {};
    for (unsigned p = rows.first; p < rows.end; ++p) {
        for (unsigned q = columns.first; q < columns.end; ++q) {
            const unsigned out = ((n * f.p + p) * f.q + q) * chunks + at % chunks;
            const unsigned corner = ((n * f.h + p * f.stride) * f.w + q * f.stride) * chunks + at % chunks;
            const unsigned last_r = h - p * f.stride, last_s = w - q * f.stride;  // these inputs' place in the window
            const Vector largest = load(y, out), gradient = load(dy, out);
            unsigned taken = 0;  // bit i: channel i has its maximum before
            for (unsigned r = 0; r <= last_r && !f.all_ties; ++r) {
                for (unsigned s = 0; s < (r < last_r ? f.window : last_s); ++s) {
                    const Vector values = load(x, corner + (r * f.w + s) * chunks);
#pragma unroll
                    for (unsigned i = 0; i < 8; ++i) {
                        taken |= values.v[i] == largest.v[i] ? 1u << i : 0u;
                    }
                }
            }
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                sum.v[i] += mine.v[i] == largest.v[i] && !(taken >> i & 1) ? gradient.v[i] : 0.f;
            }
        }
    }
    store(dx, at, sum);
}

static __device__ void add_to(Vector& sum, const Vector& x) {
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        sum.v[i] += x.v[i];
    }
}

// The sum divided by the values of a window.
static __device__ void store_mean(bf16* to, unsigned at, Vector sum, const Pool& f) {
    const float share = fast_reciprocal(f.window * f.window);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        sum.v[i] *= share;
    }
    store(to, at, sum);
}

// One thread for 8 outputs. Without the 4 (blocks of a multiprocessor) the compiler aims at more, and spills registers.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 4)
    avg_pool_forward(Pool f, const bf16* __restrict__ x, bf16* __restrict__ y) {
    const unsigned at = element(), chunks = f.c / 8, q = at / chunks % f.q, p = at / chunks / f.q % f.p;
    const unsigned n = at / chunks / f.q / f.p;
    if (n >= f.n) {
        return;
    }
    const unsigned corner = ((n * f.h + p * f.stride) * f.w + q * f.stride) * chunks + at % chunks;
    Vector sum = {};
    for (unsigned r = 0; r < f.window; ++r) {
        for (unsigned s = 0; s < f.window; ++s) {
            add_to(sum, load(x, corner + (r * f.w + s) * chunks));
        }
    }
    store_mean(y, at, sum, f);
}

// One thread for 8 inputs: it adds up the windows that contain them, in row order.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 4)
    avg_pool_backward(Pool f, const bf16* __restrict__ dy, bf16* __restrict__ dx) {
    const unsigned at = element(), chunks = f.c / 8, w = at / chunks % f.w, h = at / chunks / f.w % f.h;
    const unsigned n = at / chunks / f.w / f.h;
    if (n >= f.n) {
        return;
    }
    const Windows rows = windows_with(h, f.window, f.stride, f.p), columns = windows_with(w, f.window, f.stride, f.q);
    Vector sum = {};
    for (unsigned p = rows.first; p < rows.end; ++p) {
        for (unsigned q = columns.first; q < columns.end; ++q) {
            add_to(sum, load(dy, ((n * f.p + p) * f.q + q) * chunks + at % chunks));
        }
    }
    store_mean(dx, at, sum, f);
}
