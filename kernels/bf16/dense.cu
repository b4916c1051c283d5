// The gradient of a dense layer's input, dx = dy w: rows are images, columns inputs, depth outputs, along which w lies in
// columns. Forward and the gradient of w are those of a convolution of one pixel (conv.cu). Tiling: tile.cuh.
#include "tile.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    dense_backward_input(unsigned n, unsigned inputs, unsigned outputs, Split split, const bf16* __restrict__ dy,
                         const bf16* __restrict__ w, float* __restrict__ sums, bf16* __restrict__ dx) {
    __shared__ Ring<128, 64> ring;
    typedef Tile<128, 64, false, true> Product;
    typedef Product::A A;
    typedef Product::B B;
    const unsigned first_row = blockIdx.x * 128, first_column = blockIdx.y * 64;
    const unsigned from = blockIdx.z * split.depth, end = min(from + split.depth, outputs);
    const unsigned image = first_row + A::row(), column = first_column + B::chunk() * 8;
    unsigned at_a = from + A::chunk() * 8, at_b = from + B::row();

    Product product(ring);
    product.run((end - from + DEPTH - 1) / DEPTH, [&](unsigned stage) {
#pragma unroll
        for (unsigned i = 0; i < A::COPIES; ++i) {
            const unsigned row = image + i * 32;
            product.copy_a(i, stage, dy + (row * outputs + at_a), row < n && at_a < end);
        }
#pragma unroll
        for (unsigned i = 0; i < B::COPIES; ++i) {
            product.copy_b(i, stage, w + (at_b * inputs + column + i * 32), at_b < end && column + i * 32 < inputs);
        }
        at_a += DEPTH, at_b += DEPTH;
    });

    const size_t part = static_cast<size_t>(blockIdx.z) * n * inputs / 4;
    product.each_four([&](unsigned row, unsigned column, const Four& four) {
        row += first_row, column += first_column;
        if (row < n && column < inputs) {
            const size_t place = (static_cast<size_t>(row) * inputs + column) / 4;
            if (sums) {
                store4(sums, part + place, four);
            } else {
                store4(dx, place, four);
            }
        }
    });
}
