//! The one table of tolerances. Each is relative to the largest magnitude of the tensor it is applied to.

/// An operation in f32 against the same in f64: sums of up to some thousand terms, each rounded to 6e-8.
pub const OPERATION: f64 = 5e-6;
/// A product on tensor cores against the same rounded factors in f64: as above, but the cores add up eight or sixteen
/// products at a time with fewer bits.
pub const TENSOR_CORE: f64 = 2e-5;
/// What a device stores in bf16 against f64: half a unit in the last of 8 bits, and of what is computed from it a little
/// more.
pub const BF16_MAPS: f64 = 4e-3;
/// A convolution with few multiplications in bf16 against the unrounded one in f64: what is rounded, to 2e-3, are the
/// values at the points, of which those that count less are the larger ones.
pub const WINOGRAD_BF16: f64 = 3e-2;
/// Activations, gradients and test logits of a small net against PyTorch in f64; f32 PyTorch itself gets 2e-6.
pub const GOLDEN: f64 = 2e-5;
/// Losses of ten steps against PyTorch in f64; f32 PyTorch itself gets 3e-7.
pub const GOLDEN_LOSS: f64 = 1e-5;
/// Parameters after ten steps against PyTorch in f64; f32 PyTorch itself gets 2e-7. Leaving out weight decay, or
/// applying it to biases, changes them by 1e-5 and must be noticed.
pub const GOLDEN_FINAL: f64 = 4e-6;
/// Logits and gradients of recipes at their own size against PyTorch in f64; f32 PyTorch itself gets 3e-6. Of a gradient
/// it is the length, and the product with a vector of random signs, in parts of the length.
pub const FULL_SIZE: f64 = 1e-5;
/// The same gradients where rounding decides which pixel of a pool's window is the largest, or whether a unit is above 0:
/// half a million of them are decided, the closest by 4e-7 of the largest value. Each that is decided otherwise sends a
/// gradient elsewhere: with a few of them f32 PyTorch gets 8e-3 and the program 2e-2. The test looks whether there are any.
pub const FULL_SIZE_TIES: f64 = 5e-2;
/// Losses at full size, before any update; f32 PyTorch itself gets 1e-7.
pub const FULL_SIZE_LOSS: f64 = 1e-6;
/// Losses of three steps at full size; f32 PyTorch itself gets 1.6e-6: Adam's first update is the rate times the sign of
/// a gradient, however small that is.
pub const FULL_SIZE_STEPS: f64 = 1e-5;
/// Two streams against one merged network, both in f32: sums of the same terms in another order.
pub const MERGED: f64 = 1e-5;
/// Held-out loss after learning for 30 steps, one precision against another: twice the standard deviation (0.08) that
/// six seeds of the same training give in fp32. Absolute.
pub const LEARNED: f64 = 0.16;

/// Compares with a reference; the message names the worst element. NaN is never close.
pub fn assert_close(name: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}: number of elements");
    let scale = expected.iter().fold(1e-30, |max: f64, v| max.max(v.abs()));
    let error = |(a, e): (&f32, &f64)| if a.is_nan() { f64::INFINITY } else { (f64::from(*a) - e).abs() / scale };
    let worst = actual.iter().zip(expected).map(error).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((at, error)) = worst {
        assert!(
            error <= tolerance,
            "{name}[{at}]: {} is not {} within {tolerance:e} of {scale}: {error:e}",
            actual[at],
            expected[at]
        );
    }
}
