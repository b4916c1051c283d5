//! What the kernels of bf16 ask of memory where channels are multiples of 8: of global memory no more sectors than their
//! bytes fill, of shared memory no bank twice in a turn.

use alexnet_split::backend::{ConvShape, DenseShape, Precision};

use crate::device;
use crate::products::{self, BF16};

#[test]
fn products_in_bf16_touch_whole_sectors_and_no_bank_twice() {
    let Some((backend, log)) = device::backend(Precision::Bf16) else { return };
    // Tiles of each size, some of them not full; the first layer's blocks of pixels.
    for (c, k) in [(16, 128), (48, 96), (32, 64), (128, 48)] {
        let conv = ConvShape { c, h: 6, w: 5, k, r: 3, s: 3, p: 6, q: 5, stride: 1, pad: 1, blocks: 2 };
        products::one_convolution(&backend, &conv, 5, BF16);
    }
    let first = ConvShape { c: 3, h: 27, w: 27, k: 48, r: 11, s: 11, p: 5, q: 5, stride: 4, pad: 0, blocks: 2 };
    products::one_convolution(&backend, &first, 3, BF16);
    let dense = DenseShape { inputs: 256, outputs: 128, pixels: 1, blocks: 2, logits: false };
    products::one_dense(&backend, &dense, 130, BF16);

    let log = log.lock().unwrap();
    assert!(log.faults.is_empty(), "{}", log.faults.join("\n"));
    let mut kernels = 0;
    for (kernel, counts) in log.counts.iter().filter(|(name, _)| name.starts_with("conv") || name.starts_with("dense"))
    {
        kernels += 1;
        for line in &counts.lines {
            let (opcode, tally) = (&line.opcode, line.tally);
            let (sectors, turns) = ([tally.sectors, tally.ideal_sectors], [tally.wavefronts, tally.ideal_wavefronts]);
            assert_eq!(sectors[0], sectors[1], "{kernel}, line {}: {opcode}: sectors, and at best", line.line);
            assert_eq!(turns[0], turns[1], "{kernel}, line {}: {opcode}: turns of the banks, and at best", line.line);
        }
        let asked = counts.total("");
        assert!(asked.global_requests > 0 && asked.shared_requests > 0, "{kernel}");
    }
    assert_eq!(kernels, 6, "three of conv_forward, two of conv_backward_weight, dense_backward_input");
}
