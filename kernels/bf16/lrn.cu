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
