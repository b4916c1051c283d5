// The optimizers' updates, one thread for four weights: bound by memory, each value is read and written once. The products
// read bf16 copies of the weights, their shadows, in the same order; biases have none. Contracts: Update in src/backend/mod.rs.
#include "layouts.cuh"

// Every shadow but those of updates: of weights that the host wrote.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    make_shadow(unsigned elems, const float* __restrict__ w, bf16* __restrict__ shadow) {
    const unsigned four = element();
    if (four < elems / 4) {
        store4(shadow, four, load4(w, four));
    }
}

// v = momentum v - decay w - lr dw;  w = w + v (paper, section 5); decay is weight decay times learning rate.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    update_sgd(unsigned elems, float lr, float momentum, float decay, const float* __restrict__ dw, float* __restrict__ w,
               float* __restrict__ v, bf16* __restrict__ shadow) {
    const unsigned four = element();
    if (four >= elems / 4) {
        return;
    }
    const Four gradient = load4(dw, four);
    Four weight = load4(w, four), speed = load4(v, four);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        speed.v[i] = momentum * speed.v[i] - decay * weight.v[i] - lr * gradient.v[i];
        weight.v[i] += speed.v[i];
    }
    store4(v, four, speed);
    store4(w, four, weight);
    if (shadow) {
        store4(shadow, four, weight);
    }
}

// Adam (Kingma and Ba, 2015); rate and root correct both moments for their start at 0.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    update_adam(unsigned elems, float rate, float root, float beta1, float beta2, float epsilon, float weight_decay,
                const float* __restrict__ dw, float* __restrict__ w, float* __restrict__ m, float* __restrict__ v,
                bf16* __restrict__ shadow) {
    const unsigned four = element();
    if (four >= elems / 4) {
        return;
    }
    const Four gradients = load4(dw, four);
    Four weight = load4(w, four), mean = load4(m, four), square = load4(v, four);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        const float gradient = gradients.v[i] + weight_decay * weight.v[i];
        mean.v[i] = beta1 * mean.v[i] + (1.f - beta1) * gradient;
        square.v[i] = beta2 * square.v[i] + (1.f - beta2) * gradient * gradient;
        weight.v[i] -= rate * mean.v[i] / (sqrtf(square.v[i]) / root + epsilon);
    }
    store4(m, four, mean);
    store4(v, four, square);
    store4(w, four, weight);
    if (shadow) {
        store4(shadow, four, weight);
    }
}

// The second shadow of a convolution's filters K R S C, for the gradient of its input: C R S K with the taps rotated by 180
// degrees. One thread for 8 filters at one tap and channel; neighbouring threads read neighbouring channels.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    rotate_filters(unsigned k, unsigned r, unsigned s, unsigned c, const bf16* __restrict__ shadow, bf16* __restrict__ rotated) {
    const unsigned taps = r * s, channel = element() % c, tap = element() / c % taps, filter = element() / c / taps * 8;
    if (filter >= k) {
        return;
    }
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        vector.v[i] = to_float(shadow[((filter + i) * taps + tap) * c + channel]);
    }
    store(rotated, ((channel * taps + taps - 1 - tap) * k + filter) / 8, vector);
}
