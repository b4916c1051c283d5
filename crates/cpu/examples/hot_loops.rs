//! Refers to every operation that the paper's network spends its time in, so that a build of this has their machine code
//! and no other's: for `scripts/check_loops.py`, which reads it. Does nothing.

use alexnet_split_cpu::{Fp32, conv, dense, lrn, pool, relu_lrn_max_pool};

fn main() {
    std::hint::black_box([
        conv::conv_forward::<Fp32> as *const (),
        conv::conv_backward_input::<Fp32> as *const (),
        conv::conv_backward_weight::<Fp32> as *const (),
        dense::dense_forward::<Fp32> as *const (),
        dense::dense_backward_input::<Fp32> as *const (),
        dense::dense_backward_weight::<Fp32> as *const (),
        lrn::lrn_forward as *const (),
        lrn::lrn_backward as *const (),
        pool::max_pool_forward as *const (),
        pool::max_pool_backward as *const (),
        relu_lrn_max_pool::relu_lrn_max_pool_forward as *const (),
        relu_lrn_max_pool::relu_lrn_max_pool_backward as *const (),
    ]);
}
