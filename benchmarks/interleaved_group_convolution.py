"""The unit of the paper, both convolutions and permutations, against PyTorch.

pip install -e ".[bench]" && python benchmarks/interleaved_group_convolution.py
"""

import numpy as np
import torch
from operation import Case, images, normal, run

from igcnn import functional as F
from igcnn.kernels.convolution import Packed, compiled_sum_partials
from igcnn.kernels.geometry import convolution_fields
from igcnn.kernels.interleaved_group_convolution import (
    compiled_igc_backward,
    compiled_igc_forward,
    compiled_igc_pack,
)
from igcnn.kernels.lanes import stored, stored_gradient


def reorder(x, b):
    """Return Reorder(b): y[c] = x[(c mod b)·(C/b) + c div b]."""
    N, C, H, W = x.shape
    return x.reshape(N, b, C // b, H, W).transpose(1, 2).reshape(N, C, H, W)


def case(L, M, shape):
    """Return the case of L partitions of M channels."""
    conv2d = torch.nn.functional.conv2d
    sizes = convolution_fields(shape[1:], shape[1:], (3, 3), (1, 1), (1, 1), L) | {"S": M}

    def compiled(batch, gy, x, *weights):
        """Return the functions of a Case."""
        x, gy = batch.put(x), batch.put(gy)
        y, gx = batch.array(*x.shape), batch.array(*x.shape)
        packed = [Packed(batch.array(w.size), batch.array(w.size)) for w in weights]
        gradients = [np.empty_like(w) for w in weights]
        partials = [batch.array(batch.jobs(shape[2]), *w.shape) for w in weights]

        def forward():
            compiled_igc_pack(batch, weights, None, packed, sizes, wait=True)
            compiled_igc_forward(batch, stored(x), packed, y, sizes)

        def backward():
            arrays = stored_gradient(gy), stored(x), packed, gx, {}, partials
            compiled_igc_backward(batch, *arrays, sizes)
            for part, total in zip(partials, gradients, strict=True):
                compiled_sum_partials(part, total, wait=total is gradients[-1])

        return forward, backward, lambda: [batch.get(y), batch.get(gx), *gradients]

    def theirs(x, primary, secondary):
        p = conv2d(x, primary, padding=1, groups=L)
        return reorder(conv2d(reorder(p, L), secondary, groups=M), M)

    return Case(
        [images(*shape), normal(L * M, M, 3, 3), normal(L * M, L, 1, 1)],
        lambda x, primary, secondary: F.interleaved_group_conv2d(x, primary, secondary, L=L),
        theirs,
        compiled,
    )


CASES = {
    "L24 M2, 32×32, batch 64": case(24, 2, (64, 48, 32, 32)),
    "L24 M8, 8×8, batch 64": case(24, 8, (64, 192, 8, 8)),
    "L100 M2, 56×56, batch 8": case(100, 2, (8, 200, 56, 56)),
}


if __name__ == "__main__":
    run("interleaved_group_convolution", __doc__, CASES)
