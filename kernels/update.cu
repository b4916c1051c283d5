// The optimizers' updates, one thread a weight: bound by memory, each value is read and written once. Contracts: Update
// in src/backend/mod.rs.

static __device__ unsigned element() { return blockIdx.x * blockDim.x + threadIdx.x; }

// v = momentum v - decay w - lr dw;  w = w + v (paper, section 5); decay is weight decay times learning rate.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    update_sgd(unsigned elems, float lr, float momentum, float decay, const float* __restrict__ dw, float* __restrict__ w,
               float* __restrict__ v) {
    const unsigned i = element();
    if (i < elems) {
        v[i] = momentum * v[i] - decay * w[i] - lr * dw[i];
        w[i] += v[i];
    }
}

// Adam (Kingma and Ba, 2015); rate and root correct both moments for their start at 0.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    update_adam(unsigned elems, float rate, float root, float beta1, float beta2, float epsilon, float weight_decay,
                const float* __restrict__ dw, float* __restrict__ w, float* __restrict__ m, float* __restrict__ v) {
    const unsigned i = element();
    if (i < elems) {
        const float gradient = dw[i] + weight_decay * w[i];
        m[i] = beta1 * m[i] + (1.f - beta1) * gradient;
        v[i] = beta2 * v[i] + (1.f - beta2) * gradient * gradient;
        w[i] -= rate * m[i] / (sqrtf(v[i]) / root + epsilon);
    }
}
