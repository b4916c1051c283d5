// Element-wise operations, one thread an element: bound by memory. Contracts: src/backend/mod.rs.
#include "philox.cuh"
#include "shapes.cuh"

static __device__ unsigned element() { return blockIdx.x * blockDim.x + threadIdx.x; }

// y = max(y, 0), but NaN stays: a diverged run must be seen in the loss.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) relu_forward(unsigned elems, float* y) {
    const unsigned i = element();
    if (i < elems) {
        y[i] = y[i] < 0.f ? 0.f : y[i];
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) relu_backward(unsigned elems, const float* __restrict__ y, float* dy) {
    const unsigned i = element();
    if (i < elems) {
        dy[i] = y[i] > 0.f ? dy[i] : 0.f;
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) tanh_forward(unsigned elems, float* y) {
    const unsigned i = element();
    if (i < elems) {
        y[i] = tanhf(y[i]);
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) tanh_backward(unsigned elems, const float* __restrict__ y, float* dy) {
    const unsigned i = element();
    if (i < elems) {
        dy[i] *= 1.f - y[i] * y[i];
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) sigmoid_forward(unsigned elems, float* y) {
    const unsigned i = element();
    if (i < elems) {
        y[i] = 1.f / (1.f + expf(-y[i]));
    }
}

extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) sigmoid_backward(unsigned elems, const float* __restrict__ y, float* dy) {
    const unsigned i = element();
    if (i < elems) {
        dy[i] *= y[i] * (1.f - y[i]);
    }
}

// y = y + x
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) add(unsigned elems, const float* __restrict__ x, float* y) {
    const unsigned i = element();
    if (i < elems) {
        y[i] += x[i];
    }
}

// Dropout forward, and backward with x = y: unit u of sample n is kept where word u % 4 of the random block at counter
// (u / 4, n, step) is below the threshold. The generator's ten rounds cost less than reading a stored mask would.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) dropout(DropoutShape shape, const float* x, float* y) {
    const unsigned i = element();
    if (i >= shape.n * shape.elems) {
        return;
    }
    bool kept = true;
    if (shape.masked && !shape.always) {
        const unsigned sample = i / shape.elems, unit = shape.first_unit + i % shape.elems;
        unsigned words[4] = {unit / 4, sample, shape.step[0], shape.step[1]};
        philox(shape.key, words);
        const unsigned word = unit % 4 < 2 ? (unit % 4 == 0 ? words[0] : words[1]) : (unit % 4 == 2 ? words[2] : words[3]);
        kept = word < shape.threshold;
    }
    y[i] = kept ? x[i] * shape.factor : 0.f;
}

// Adds up the parts of a cut product in their order: onto out itself (`adds`), the bias of the element's channel, or 0.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    reduce_partials(unsigned elems, unsigned count, const float* __restrict__ partials, const float* __restrict__ bias,
                    unsigned pixels, unsigned channels, unsigned adds, float* out) {
    const unsigned i = element();
    if (i >= elems) {
        return;
    }
    float sum = adds ? out[i] : bias ? bias[i / pixels % channels] : 0.f;
    for (unsigned part = 0; part < count; ++part) {
        sum += partials[static_cast<size_t>(part) * elems + i];
    }
    out[i] = sum;
}
