// Dense layers: y = x w^T + bias and its gradients. x, y: N rows; w: outputs x inputs. Contracts: src/backend/mod.rs.
#include "gemm.cuh"

// A row-major matrix whose rows are the product's rows (or columns) and whose columns are its depth.
struct DepthInRows {
    static constexpr bool ALONG_DEPTH = true;
    typedef unsigned Index;
    const float* matrix;
    unsigned columns;

    __device__ Index index(unsigned row) const { return row * columns; }
    __device__ unsigned depth(unsigned column) const { return column; }
    __device__ float at(Index row, unsigned column) const { return matrix[row + column]; }
};

// The same transposed: its rows are the product's depth.
struct DepthInColumns {
    static constexpr bool ALONG_DEPTH = false;
    typedef unsigned Index;
    const float* matrix;
    unsigned columns;

    __device__ Index index(unsigned column) const { return column; }
    __device__ unsigned depth(unsigned row) const { return row * columns; }
    __device__ float at(Index column, unsigned row) const { return matrix[row + column]; }
};

// Sums go to N rows of units: row is the unit, column the image.
struct Units {
    unsigned units;
    float* out;
    const float* bias;
    bool adds;

    __device__ unsigned place(unsigned row, unsigned column) const { return column * units + row; }
    __device__ void write(unsigned row, unsigned place, float sum) const {
        out[place] = sum + (adds ? out[place] : bias ? bias[row] : 0.f);
    }
};

// Sums go to a row-major matrix.
struct Matrix {
    unsigned columns;
    float* out;

    __device__ unsigned place(unsigned row, unsigned column) const { return row * columns + column; }
    __device__ void write(unsigned, unsigned place, float sum) const { out[place] = sum; }
};

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    dense_forward(DenseShape shape, Split split, const float* __restrict__ x, const float* __restrict__ w,
                  const float* __restrict__ bias, float* y, float* partials) {
    __shared__ Tiles tiles;
    multiply(tiles, DepthInRows{w, shape.inputs}, DepthInRows{x, shape.inputs},
             Units{shape.outputs, y, bias, bias == nullptr}, split, shape.outputs, shape.n, shape.inputs, partials);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    dense_backward_input(DenseShape shape, Split split, const float* __restrict__ dy, const float* __restrict__ w,
                         float* __restrict__ dx, float* partials) {
    __shared__ Tiles tiles;
    multiply(tiles, DepthInColumns{w, shape.inputs}, DepthInRows{dy, shape.outputs},
             Units{shape.inputs, dx, nullptr, false}, split, shape.inputs, shape.n, shape.outputs, partials);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
    dense_backward_weight(DenseShape shape, Split split, const float* __restrict__ x, const float* __restrict__ dy,
                          float* __restrict__ dw, float* partials) {
    __shared__ Tiles tiles;
    multiply(tiles, DepthInColumns{dy, shape.outputs}, DepthInColumns{x, shape.inputs}, Matrix{shape.inputs, dw}, split,
             shape.outputs, shape.inputs, shape.n, partials);
}

// One thread a unit: a batch is short.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    dense_backward_bias(DenseShape shape, const float* __restrict__ dy, float* __restrict__ dbias) {
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    if (unit >= shape.outputs) {
        return;
    }
    float sum = 0.f;
    for (unsigned n = 0; n < shape.n; ++n) {
        sum += dy[n * shape.outputs + unit];
    }
    dbias[unit] = sum;
}
