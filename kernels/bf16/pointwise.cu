// Element-wise operations on bf16 maps, one thread for 8 values: bound by memory. Values are computed in fp32 and rounded
// once. Contracts: src/backend/mod.rs.
#include "layouts.cuh"
#include "philox.cuh"

// y = f(x) and y = f(x, y) for every value; x and y may be one.
template <class Function>
static __device__ void each(unsigned vectors, const bf16* x, bf16* y, Function f) {
    const unsigned at = element();
    if (at < vectors) {
        Vector vector = load(x, at);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            vector.v[i] = f(vector.v[i]);
        }
        store(y, at, vector);
    }
}

template <class Function>
static __device__ void each_pair(unsigned vectors, const bf16* x, bf16* y, Function f) {
    const unsigned at = element();
    if (at < vectors) {
        const Vector other = load(x, at);
        Vector vector = load(y, at);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            vector.v[i] = f(other.v[i], vector.v[i]);
        }
        store(y, at, vector);
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) relu_forward(unsigned vectors, bf16* y) {
    each(vectors, y, y, relu);
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) relu_backward(unsigned vectors, const bf16* __restrict__ y, bf16* dy) {
    each_pair(vectors, y, dy, [](float y, float dy) { return y > 0.f ? dy : 0.f; });
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) tanh_forward(unsigned vectors, bf16* y) {
    each(vectors, y, y, [](float y) { return tanhf(y); });
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) tanh_backward(unsigned vectors, const bf16* __restrict__ y, bf16* dy) {
    each_pair(vectors, y, dy, [](float y, float dy) { return dy * (1.f - y * y); });
}

// Of `c` channels. The padding behind them stays 0, as the gradients of the next layer's weights want it, although the
// sigmoid of 0 is not 0.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) sigmoid_forward(unsigned vectors, unsigned c, bf16* y) {
    unsigned channel = element() % ((c + 7) / 8) * 8;
    each(vectors, y, y, [&](float y) { return channel++ < c ? 1.f / (1.f + expf(-y)) : 0.f; });
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) sigmoid_backward(unsigned vectors, const bf16* __restrict__ y, bf16* dy) {
    each_pair(vectors, y, dy, [](float y, float dy) { return dy * (y * (1.f - y)); });
}

// y = y + x
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) add(unsigned vectors, const bf16* __restrict__ x, bf16* y) {
    each_pair(vectors, x, y, [](float x, float y) { return y + x; });
}

// Dropout forward, and backward with x = y. Which units are kept is said in kernels/pointwise.cu; numbers follow the
// channels, so that of maps of one pixel four neighbours share a random block, else each value has its own.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) dropout(Dropout shape, const bf16* x, bf16* y) {
    const unsigned at = element(), chunks = shape.padded / 8;
    const unsigned pixel = at / chunks % shape.pixels, sample = at / chunks / shape.pixels;
    const DropoutShape& units = shape.units;
    unsigned unit = units.first_unit + at % chunks * 8 * shape.pixels + pixel, block = ~0u;
    unsigned words[4] = {};
    each(units.n * shape.pixels * chunks, x, y, [&](float x) {
        bool kept = true;
        if (units.masked && !units.always) {
            if (unit / 4 != block) {
                block = unit / 4;
                words[0] = block, words[1] = sample, words[2] = units.step[0], words[3] = units.step[1];
                philox(units.key, words);
            }
            const unsigned word = unit % 4 < 2 ? (unit % 4 == 0 ? words[0] : words[1]) : (unit % 4 == 2 ? words[2] : words[3]);
            kept = word < units.threshold;
            unit += shape.pixels;
        }
        return kept ? x * units.factor : 0.f;
    });
}
