// From an image's bytes to the network's input (paper, sections 2 and 4.1), as kernels/augment.cu, but as the first
// convolution reads it here: a block of t x t pixels, t the convolution's stride, is one pixel with t * t * c channels, (row
// in the block, column in the block, channel). So that convolution's stride becomes 1 and its 3 channels become enough for
// copies of 16 bytes; its padding is written out. Contract: src/backend/mod.rs.
//
// A CUDA block makes up to AUGMENT_ROOM values of one row of blocks. Neighbouring threads read neighbouring bytes of a line
// and put the values to their places in shared memory, then write them out in the order of memory.
#include "layouts.cuh"

constexpr unsigned AUGMENT_ROOM = 4096;

// A window is its row, its column, whether it is mirrored, and the bits of three shifts and of a factor.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    augment(Augment shape, const unsigned char* __restrict__ pixels, const unsigned* __restrict__ windows,
            const float* __restrict__ mean, bf16* __restrict__ y) {
    __shared__ float4 room[AUGMENT_ROOM / 4];
    float* values = reinterpret_cast<float*>(room);
    const AugmentShape& image = shape.image;
    const unsigned channels = image.channels, stride = shape.padded + 4;  // 4: for different banks
    const unsigned first = blockIdx.x * (AUGMENT_ROOM / stride), columns = min(AUGMENT_ROOM / stride, shape.columns - first);
    const unsigned top = blockIdx.y, n = blockIdx.z;
    const unsigned* window = windows + 7 * n;
    const int t = shape.block, size = image.size, side = image.side, resize = image.resize, p = top * t - shape.pad;
    const float scale = image.scale * __uint_as_float(window[6]);
    // The corner of the mean that is subtracted.
    const int margin = (resize - size) / 2, mean_row = image.centred_mean ? margin : window[0];
    const int mean_col = image.centred_mean ? margin : window[1];
    // Where row p, column 0 of the window lies among the bytes, which begin at its corner where the image was cropped.
    const int corner = side == size ? p * side : static_cast<int>(window[0] + p) * side + static_cast<int>(window[1]);

    for (unsigned at = threadIdx.x; at < columns * t; at += ELEMENT_THREADS) {
        const int q = first * t + at - shape.pad, column = window[2] ? size - 1 - q : q;
        float* to = values + at / t * stride + at % t * channels;
        for (unsigned channel = 0; channel < channels; ++channel) {
            const int c = image.c == 1 ? 0 : channel;
            const float shift = __uint_as_float(window[3 + c]);
            int byte = static_cast<int>(n * image.c + c) * side * side + corner + column;
            int middle = (c * resize + mean_row + p) * resize + mean_col + (image.centred_mean ? q : column);
#pragma unroll 4
            for (int row = 0; row < t; ++row) {
                // Negative rows and columns are huge.
                const bool inside = static_cast<unsigned>(p + row) < size & static_cast<unsigned>(q) < size;
                to[row * t * channels + channel] = inside ? (pixels[byte] + shift - mean[middle]) * scale : 0.f;
                byte += side, middle += resize;
            }
        }
        for (unsigned absent = t * t * channels; absent < shape.padded && at % t == 0; ++absent) {
            to[absent] = 0.f;
        }
    }
    __syncthreads();

    const unsigned fours = shape.padded / 4, place = ((n * shape.rows + top) * shape.columns + first) * fours;
    for (unsigned at = threadIdx.x; at < columns * fours; at += ELEMENT_THREADS) {
        store4(y, place + at, load4(values + at / fours * stride, at % fours));
    }
}
