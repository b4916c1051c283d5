// From an image's bytes to the network's input: crop, mirror, subtract the mean (paper, sections 2 and 4.1).
// Bytes cross to the GPU, a quarter of what floats would take. Contract: src/backend/mod.rs.
#include "shapes.cuh"

// One thread a value of the input; a window is its row, its column, whether it is mirrored, and the bits of three shifts and
// of a factor.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    augment(AugmentShape shape, const unsigned char* __restrict__ pixels, const unsigned* __restrict__ windows,
            const float* __restrict__ mean, float* __restrict__ y) {
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, size = shape.size;
    if (at >= shape.n * shape.channels * size * size) {
        return;
    }
    const unsigned q = at % size, p = at / size % size, map = at / size / size;
    const unsigned n = map / shape.channels, c = shape.c == 1 ? 0 : map % shape.channels;
    const unsigned* window = windows + 7 * n;
    const unsigned column = window[2] ? size - 1 - q : q, row = window[0] + p, col = window[1] + column;
    // Bytes of the window alone begin at its corner.
    const bool cropped = shape.side == size;
    const unsigned line = (n * shape.c + c) * shape.side + (cropped ? p : row);
    const float value = pixels[line * shape.side + (cropped ? column : col)];
    const float shift = __uint_as_float(window[3 + c]), scale = shape.scale * __uint_as_float(window[6]);
    const unsigned margin = (shape.resize - size) / 2;
    const unsigned mean_row = shape.centred_mean ? margin + p : row, mean_col = shape.centred_mean ? margin + q : col;
    y[at] = (value + shift - mean[(c * shape.resize + mean_row) * shape.resize + mean_col]) * scale;
}
