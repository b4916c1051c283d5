// From an image's bytes to the network's input (paper, sections 2 and 4.1), as kernels/augment.cu, but as the first
// convolution reads it here: a block of t x t pixels, t the convolution's stride, is one pixel with t * t * c channels, (row
// in the block, column in the block, channel). So that convolution's stride becomes 1 and its 3 channels become enough for
// copies of 16 bytes; its padding is written out. Contract: src/backend/mod.rs.
//
// A CUDA block makes up to AUGMENT_ROOM values of each of AUGMENT_ROWS rows of blocks. A thread has a column of pixels: so
// neighbouring threads read neighbouring bytes. It puts the values to their places in shared memory, from where they are
// written in the order of memory.
#include "layouts.cuh"

constexpr unsigned AUGMENT_ROOM = 4096, AUGMENT_ROWS = 4;

// A window is its row, its column, whether it is mirrored, and the bits of three shifts and of a factor.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    augment(Augment shape, const unsigned char* __restrict__ pixels, const unsigned* __restrict__ windows,
            const float* __restrict__ mean, bf16* __restrict__ y) {
    __shared__ float4 room[AUGMENT_ROOM / 4];
    float* values = reinterpret_cast<float*>(room);
    const AugmentShape& image = shape.image;
    const int t = shape.block, size = image.size, side = image.side, resize = image.resize;
    const unsigned channels = image.channels, stride = shape.padded + 4;  // 4: for different banks
    const unsigned most = min(AUGMENT_ROOM / stride, ELEMENT_THREADS / shape.block), first = blockIdx.x * most;
    const unsigned columns = min(most, shape.columns - first), n = blockIdx.z, line = t * channels;

    const unsigned* window = windows + 7 * n;
    const int q = first * t + threadIdx.x - shape.pad, column = window[2] ? size - 1 - q : q;
    // Where row 0 of the window's column lies among the mean's values, or of its centre's, and among the bytes, which begin
    // at the window's corner where the image was cropped.
    const int margin = (resize - size) / 2;
    const int in_mean = image.centred_mean ? margin * resize + margin + q
                                           : static_cast<int>(window[0]) * resize + static_cast<int>(window[1]) + column;
    const int in_image = side == size ? column : static_cast<int>(window[0]) * side + static_cast<int>(window[1]) + column;
    const bool works = threadIdx.x < columns * t;
    const float scale = image.scale * __uint_as_float(window[6]);
    // Negative ones are huge.
    const unsigned reached = static_cast<unsigned>(q) < size ? size : 0;
    const unsigned to = threadIdx.x / t * stride + threadIdx.x % t * channels;
    for (unsigned absent = t * line; works && absent < shape.padded && threadIdx.x % t == 0; ++absent) {
        values[to + absent] = 0.f;
    }
    // The thread's first four values of the row in memory, and what is between them and the next ones.
    const unsigned fours = shape.padded / 4, first_block = threadIdx.x / fours, first_four = threadIdx.x % fours;
    const unsigned blocks_a_turn = ELEMENT_THREADS / fours, fours_a_turn = ELEMENT_THREADS % fours;

    const unsigned end = min((blockIdx.y + 1) * AUGMENT_ROWS, shape.rows);
    for (unsigned top = blockIdx.y * AUGMENT_ROWS; top < end; ++top) {
        const int p = static_cast<int>(top * t) - static_cast<int>(shape.pad);
        for (unsigned channel = 0; works && channel < channels; ++channel) {
            const int c = image.c == 1 ? 0 : channel;
            const unsigned char* byte = pixels + (((static_cast<int>(n * image.c) + c) * side + p) * side + in_image);
            const float* average = mean + ((c * resize + p) * resize + in_mean);
            const float shift = __uint_as_float(window[3 + c]);
            unsigned place = to + channel;
#pragma unroll 4
            for (int row = 0; row < t; ++row) {
                values[place] = static_cast<unsigned>(p + row) < reached ? (*byte + shift - *average) * scale : 0.f;
                byte += side, average += resize, place += line;
            }
        }
        __syncthreads();
        bf16* out = y + 4 * (((n * shape.rows + top) * shape.columns + first) * fours + threadIdx.x);
        for (unsigned block = first_block, four = first_four; block < columns; out += 4 * ELEMENT_THREADS) {
            store4(out, 0, load4(values + block * stride, four));
            block += blocks_a_turn, four += fours_a_turn;
            if (four >= fours) {
                four -= fours, ++block;
            }
        }
        __syncthreads();
    }
}
