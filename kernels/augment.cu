// From an image's bytes to the network's input: scale, crop, mirror, subtract the mean (paper, sections 2 and 4.1).
// Bytes cross to the GPU, a quarter of what floats would take. Contract: src/backend/mod.rs.
#include "shapes.cuh"

// Two neighbours along an axis and the weight of the second.
struct Tap {
    unsigned first, second;
    float weight;
};

// Where position `at` of `resize` lies along an axis of `size` pixels whose image's shorter side is `shorter`: pixel
// centres are aligned, and a longer side is cut equally at both ends.
static __device__ Tap tap(unsigned at, unsigned size, unsigned shorter, unsigned resize) {
    const float cut = static_cast<float>(size - shorter) / 2.f;
    const float place = (static_cast<float>(at) + 0.5f) * static_cast<float>(shorter) / static_cast<float>(resize) - 0.5f + cut;
    const float inside = fminf(fmaxf(place, 0.f), static_cast<float>(size - 1));
    const unsigned first = static_cast<unsigned>(inside);
    return {first, min(first + 1, size - 1), inside - static_cast<float>(first)};
}

// One thread a value of the input; a window is its row, its column, whether it is mirrored, and three shifts' bits.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    augment(AugmentShape shape, const unsigned char* __restrict__ pixels, const unsigned* __restrict__ windows,
            const float* __restrict__ mean, float* __restrict__ y) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, size = shape.size;
    if (at >= shape.n * shape.channels * size * size) {
        return;
    }
    const unsigned q = at % size, p = at / size % size, map = at / size / size;
    const unsigned n = map / shape.channels, c = shape.c == 1 ? 0 : map % shape.channels;
    const unsigned* window = windows + 6 * n;
    const unsigned column = window[2] ? size - 1 - q : q, row = window[0] + p, col = window[1] + column;
    const unsigned shorter = min(shape.h, shape.w), resize = shape.cropped ? size : shape.resize;
    const Tap down = tap(shape.cropped ? p : row, shape.h, shorter, resize);
    const Tap across = tap(shape.cropped ? column : col, shape.w, shorter, resize);
    const unsigned char* plane = pixels + (n * shape.c + c) * shape.h * shape.w;
    const unsigned char *above = plane + down.first * shape.w, *below = plane + down.second * shape.w;
    const float left = above[across.first] + down.weight * (below[across.first] - above[across.first]);
    const float right = above[across.second] + down.weight * (below[across.second] - above[across.second]);
    const float value = left + across.weight * (right - left);
    const float shift = __uint_as_float(window[3 + c]);
    y[at] = (value + shift - mean[(c * shape.resize + row) * shape.resize + col]) * shape.scale;
}
