// The structs that kernels take by value: shapes as the host computed them (src/backend/cuda/kernels.rs defines the
// same). The letters are the field's: N C H W in, K R S filters, P Q out. All offsets fit in 31 bits; the host checks.
#pragma once

// Division of x < 2^31 by d, prepared by the host: three instructions instead of some thirty.
struct Divisor {
    unsigned d, multiplier, shift;

    __device__ unsigned quotient(unsigned x) const { return (__umulhi(x, multiplier) + x) >> shift; }
};

struct AugmentShape {
    unsigned n, c, side, resize, channels, size;
    float scale;
    unsigned centred_mean;
};

struct ConvShape {
    unsigned n, c, h, w, k, r, s, p, q, stride, pad;
    Divisor by_rs, by_s, by_pq, by_q, by_hw, by_w, by_stride;
};

struct DenseShape {
    unsigned n, inputs, outputs;
};

struct LrnShape {
    unsigned n, c, pixels, window;
    float k, alpha, beta;
};

// Windows of window x window pixels in maps of h x w.
struct SpatialLrnShape {
    LrnShape norm;
    unsigned h, w;
};

struct PoolShape {
    unsigned n, c, h, w, window, stride, p, q, all_ties;
};

// Windows that contain a place of a map, along one side: those from `first` to before `end`.
struct Windows {
    unsigned first, end;
};

static __device__ Windows windows_with(unsigned place, unsigned window, unsigned stride, unsigned count) {
    return {place < window ? 0 : (place - window) / stride + 1, min(place / stride + 1, count)};
}

struct DropoutShape {
    unsigned n, elems, first_unit;
    float factor;
    unsigned masked, always, threshold;
    unsigned key[2], step[2];
};

struct SoftmaxShape {
    unsigned n, classes, first;
};

// How the summed dimension of a product is cut: block z sums the indices from z * depth on.
struct Split {
    unsigned count, depth;
};
