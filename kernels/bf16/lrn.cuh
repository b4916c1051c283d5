// The terms of local response normalization (paper 3.3), y_i = x_i / s_i^beta, s_i = k + alpha * the sum of x_j^2 over the
// window around i, for the kernels that do it alone (lrn.cu) and those that do it between ReLU and pooling
// (relu_lrn_pool.cu): both give the same bits. Therefore the compiler must not merge a product with the sum that it goes
// to; windows are summed in the order of the channels, and those that do not exist count as 0.
#pragma once

#include "layouts.cuh"

static __device__ float square(float x) { return __fmul_rn(x, x); }

struct Scale {
    float power, inverse;  // s^-beta, s^-1
};

static __device__ Scale scale(const Lrn& f, float squares) {
    const float s = fmaf(f.alpha, squares, f.k);
    return {fast_exp2(-f.beta * fast_log2(s)), fast_reciprocal(s)};
}

// Of the gradient, dx_i = dy_i / s_i^beta - 2 alpha beta x_i * the sum of terms over the window around i.
static __device__ float term(const Scale& s, float x, float dy) { return __fmul_rn(dy * s.power * x, s.inverse); }

static __device__ float gradient(const Lrn& f, const Scale& s, float x, float dy, float terms) {
    return fmaf(-2.f * f.alpha * f.beta * x, terms, dy * s.power);
}
