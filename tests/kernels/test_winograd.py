"""Which convolutions are computed by Winograd's algorithm, and how their launches are cut."""

import pytest

from igcnn.kernels import winograd
from igcnn.kernels.convolution import compiled_convolution_parts
from igcnn.kernels.geometry import convolution_fields
from igcnn.kernels.lanes import JOBS, Lanes

LANES = Lanes(16, "float32")


def sizes(C, H, W, D, kernel=(3, 3), stride=(1, 1), padding=(1, 1), groups=1):
    OH, OW = (
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip((H, W), kernel, stride, padding, strict=True)
    )
    return convolution_fields((C, H, W), (D, OH, OW), kernel, stride, padding, groups)


def test_dense_ones_of_stride_1():
    assert winograd.suits(LANES, sizes(64, 8, 8, 64))
    assert not winograd.suits(Lanes(1, "float32", least=1), sizes(64, 8, 8, 64))
    assert not winograd.suits(LANES, sizes(3, 32, 32, 16))
    assert winograd.suits(LANES, sizes(8, 32, 32, 16))
    assert not winograd.suits(LANES, sizes(8, 32, 32, 8))
    assert winograd.suits(LANES, sizes(64, 3, 3, 64))
    assert not winograd.suits(LANES, sizes(64, 2, 2, 64))
    assert not winograd.suits(LANES, sizes(64, 1, 32, 64))
    assert not winograd.suits(LANES, sizes(64, 8, 8, 64, groups=2))
    assert not winograd.suits(LANES, sizes(64, 8, 8, 64, stride=(2, 2)))
    assert not winograd.suits(LANES, sizes(64, 8, 8, 64, padding=(0, 1)))
    assert not winograd.suits(LANES, sizes(64, 8, 8, 64, kernel=(1, 1), padding=(0, 0)))


@pytest.mark.parametrize("N", [1, 8, 16, 17, 40, 64, 100])
@pytest.mark.parametrize("C", [16, 64, 512])
@pytest.mark.parametrize("side", [3, 4, 7, 8, 14, 28, 32, 33, 56])
def test_enough_jobs(N, C, side):
    lanes, shape = Lanes(N, "float32"), sizes(C, side, side, C)
    parts = compiled_convolution_parts(lanes, shape)
    cuts = [
        winograd.cut_forward(lanes, shape),
        winograd.cut_backward_input(lanes, shape),
        winograd.cut_backward_weight(lanes, shape),
    ]
    for cut, part in zip(cuts, parts[:3], strict=True):
        assert cut.jobs >= (JOBS if C >= 64 or side in (28, 32, 56) else 2)
        assert part == cut.parts == (lanes.blocks if cut.by_channels else cut.jobs)
    # the statistics count the rows of each part
    assert side % parts.rows == 0
    assert parts.forward == lanes.blocks or parts.rows == 4
