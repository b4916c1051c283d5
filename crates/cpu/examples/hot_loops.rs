//! Refers to every operation that the paper's network spends its time in, so that a build of this has their machine code
//! and no other's: for `scripts/check_loops.py`, which reads it. Does nothing.

use alexnet_split_cpu::{conv, dense, lrn, pool, relu_lrn_max_pool};

fn main() {
    std::hint::black_box([
        conv::conv_forward as *const (),
        conv::conv_backward_input as *const (),
        conv::conv_backward_weight as *const (),
        dense::dense_forward as *const (),
        dense::dense_backward_input as *const (),
        dense::dense_backward_weight as *const (),
        lrn::lrn_forward as *const (),
        lrn::lrn_backward as *const (),
        pool::max_pool_forward as *const (),
        pool::max_pool_backward as *const (),
        relu_lrn_max_pool::relu_lrn_max_pool_forward as *const (),
        relu_lrn_max_pool::relu_lrn_max_pool_backward as *const (),
    ]);
}
