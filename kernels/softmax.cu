// Softmax and cross-entropy over classes that may be on two streams: each sends the other three numbers per image (the
// maximum, the sum of exponentials, the label's logit), and both compute the same loss, to the bit. Contracts:
// src/backend/mod.rs. One block of SOFTMAX_THREADS threads an image; sums are trees over the threads, so their order is
// fixed.
#include "shapes.cuh"

// With BF16_MAPS rows are padded to a multiple of 8 classes, and the logits' gradient is bf16, 0 in the padding.
#if BF16_MAPS
#include "layouts.cuh"
typedef bf16 Gradient;
static __device__ unsigned row_size(unsigned classes) { return (classes + 7) / 8 * 8; }
static __device__ Gradient to_gradient(float x) { return static_cast<bf16>(to_bf16x2(x, 0.f)); }
#else
typedef float Gradient;
static __device__ unsigned row_size(unsigned classes) { return classes; }
static __device__ Gradient to_gradient(float x) { return x; }
#endif

// The larger of two, NaN if either is.
static __device__ float larger(float a, float b) { return a > b || isnan(a) ? a : b; }

static __device__ float minus_infinity() { return __uint_as_float(0xff800000u); }

static __device__ float add_up(float a, float b) { return a + b; }

// All threads' values combined by a tree; every thread gets the result. `scratch` may be used again at once.
template <class Combine>
static __device__ float over_threads(float (&scratch)[SOFTMAX_THREADS], float value, Combine combine) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = SOFTMAX_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            scratch[threadIdx.x] = combine(scratch[threadIdx.x], scratch[threadIdx.x + half]);
        }
        __syncthreads();
    }
    const float result = scratch[0];
    __syncthreads();
    return result;
}

extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    softmax_stats(SoftmaxShape shape, const float* __restrict__ logits, const unsigned* __restrict__ labels,
                  float* __restrict__ stats) {
    __shared__ float scratch[SOFTMAX_THREADS];
    const unsigned image = blockIdx.x;
    const float* row = logits + image * row_size(shape.classes);
    float largest = minus_infinity();
    for (unsigned i = threadIdx.x; i < shape.classes; i += SOFTMAX_THREADS) {
        largest = larger(largest, row[i]);
    }
    largest = over_threads(scratch, largest, larger);
    float sum = 0.f;
    for (unsigned i = threadIdx.x; i < shape.classes; i += SOFTMAX_THREADS) {
        sum += expf(row[i] - largest);
    }
    sum = over_threads(scratch, sum, add_up);
    if (threadIdx.x == 0) {
        const unsigned label = labels[image] - shape.first;  // huge where the label's class is before this stream's
        stats[3 * image] = largest;
        stats[3 * image + 1] = sum;
        stats[3 * image + 2] = label < shape.classes ? row[label] : minus_infinity();
    }
}

extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    softmax_cross_entropy(SoftmaxShape shape, const float* __restrict__ logits, const unsigned* __restrict__ labels,
                          const float* __restrict__ ours, const float* __restrict__ theirs, Gradient* __restrict__ dlogits,
                          float* __restrict__ scores) {
    __shared__ float scratch[SOFTMAX_THREADS];
    const unsigned image = blockIdx.x, label = labels[image];
    float largest = ours[3 * image], sum = ours[3 * image + 1], label_logit = ours[3 * image + 2];
    if (theirs) {
        // Symmetric in the two streams, so that both get the same bits.
        const float their_largest = theirs[3 * image], whole = larger(largest, their_largest);
        const float our_part = sum * expf(largest - whole), their_part = theirs[3 * image + 1] * expf(their_largest - whole);
        sum = __fadd_rn(our_part, their_part);
        largest = whole;
        label_logit = fmaxf(label_logit, theirs[3 * image + 2]);
    }
    const float* row = logits + image * row_size(shape.classes);
    Gradient* gradient = dlogits + image * row_size(shape.classes);
    float above = 0.f;
    for (unsigned i = threadIdx.x; i < shape.classes; i += SOFTMAX_THREADS) {
        const unsigned place = i + shape.first;
        const float one_hot = place == label ? 1.f : 0.f;
        gradient[i] = to_gradient((expf(row[i] - largest) / sum - one_hot) / static_cast<float>(shape.n));
        above += row[i] > label_logit || (row[i] == label_logit && place < label) ? 1.f : 0.f;
    }
    for (unsigned i = shape.classes + threadIdx.x; i < row_size(shape.classes); i += SOFTMAX_THREADS) {
        gradient[i] = to_gradient(0.f);
    }
    above = over_threads(scratch, above, add_up);
    if (threadIdx.x == 0) {
        scores[2 * image] = logf(sum) + largest - label_logit;
        scores[2 * image + 1] = above;
    }
}
