// From an image's bytes to the network's input (paper, sections 2 and 4.1), as kernels/augment.cu, but as the first
// convolution reads it here: a block of t x t pixels, t the convolution's stride, is one pixel with t * t * c channels, (row
// in the block, column in the block, channel). So that convolution's stride becomes 1 and its 3 channels become enough for
// copies of 16 bytes; its padding is written out. Contract: src/backend/mod.rs.
#include "layouts.cuh"

// One thread for 8 channels of a block. A window is its row, its column, whether it is mirrored, and three shifts' bits.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    augment(Augment shape, const unsigned char* __restrict__ pixels, const unsigned* __restrict__ windows,
            const float* __restrict__ mean, bf16* __restrict__ y) {
    const AugmentShape& image = shape.image;
    const unsigned at = element(), chunks = shape.padded / 8, place = at / chunks;
    const unsigned left = place % shape.columns, top = place / shape.columns % shape.rows, n = place / shape.columns / shape.rows;
    if (n >= image.n) {
        return;
    }
    const unsigned* window = windows + 6 * n;
    const bool cropped = image.side == image.size;  // then an image's bytes begin at the window's corner
    const unsigned first = at % chunks * 8, pixel = first / image.channels;
    unsigned channel = first % image.channels, column = pixel % shape.block, row = pixel / shape.block;
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        // Before the first row and column numbers are huge.
        const unsigned p = top * shape.block + row - shape.pad, q = left * shape.block + column - shape.pad;
        vector.v[i] = 0.f;
        if (row < shape.block && p < image.size && q < image.size) {
            const unsigned c = image.c == 1 ? 0 : channel, side = window[2] ? image.size - 1 - q : q;
            const unsigned whole_row = window[0] + p, whole_column = window[1] + side;
            const unsigned line = (n * image.c + c) * image.side + (cropped ? p : whole_row);
            const float value = pixels[line * image.side + (cropped ? side : whole_column)];
            const float difference = mean[(c * image.resize + whole_row) * image.resize + whole_column];
            vector.v[i] = (value + __uint_as_float(window[3 + c]) - difference) * image.scale;
        }
        if (++channel == image.channels) {
            channel = 0;
            if (++column == shape.block) {
                column = 0, ++row;
            }
        }
    }
    store(y, at, vector);
}
