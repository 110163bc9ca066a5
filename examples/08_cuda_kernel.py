"""Reading CUDA kernels, from naive to fused, run on the CPU thread by thread (needs g++)."""

import numpy as np

from igcnn import Tensor
from igcnn.backend import to_device, to_host
from igcnn.errors import KernelError
from igcnn.functional import interleaved_group_conv2d
from igcnn.inspection.cuda import annotated
from igcnn.kernels.convolution import launch_convolution_formula, launch_convolution_forward
from igcnn.kernels.interleaved_group_convolution import fused_unit, launch_igc_forward
from igcnn.kernels.launch import emulation, following
from igcnn.kernels.permutation import permutation_forward
from igcnn.layers.interleaved_group_convolution import interleaved_group_conv2d_steps

rng = np.random.default_rng(0)
N, L, M, H, W = 2, 3, 2, 8, 8
C = L * M
GROUPS = (1, 1), (1, 1), L  # stride, padding, groups of the primary convolution


def on_device(*shape):
    return to_device(rng.standard_normal(shape).astype(np.float32), "emu")


x, w1, w2 = on_device(N, C, H, W), on_device(C, M, 3, 3), on_device(C, L, 1, 1)

# A channel permutation moves numbers and computes nothing: thread i finds the image, channel and
# pixel of result i, and fetches the one number that belongs there. Below each line stands what
# thread 70 of block 0 read and wrote on it.
with following(block=0, thread=70) as launches:
    y = permutation_forward(x, L)
print(annotated(launches[0]))
assert np.array_equal(to_host(y), permutation_forward(to_host(x), L))
print("Reorder(3) by this kernel: equal to NumPy's, bit for bit\n")


# A loop that goes one too far. On a GPU it would write somewhere; here every access is watched.
def one_too_far(stem, text):
    return text.replace("i < N * C * pixels", "i <= N * C * pixels")


try:
    with emulation(checked=True, edit=one_too_far):
        permutation_forward(x, L)
except KernelError as error:
    print(f"with i <= instead of i <: {error}\n")
else:
    raise AssertionError("the fault was not found")

# The primary convolution: the formula as a kernel, then the one that is shipped, whose work is
# done by a helper that the gradient of the input has in common with it.
expected = interleaved_group_conv2d(*(Tensor(to_host(a)) for a in (x, w1, w2)), L=L).data
outputs = []
for convolve, helper in (
    (launch_convolution_formula, None),
    (launch_convolution_forward, "convolve"),
):
    outputs.append(on_device(N, C, H, W))
    with following(block=0, thread=0) as launches:
        convolve(x, w1, outputs[-1], *GROUPS)
    print(annotated(launches[0], helper), "\n")
np.testing.assert_allclose(*map(to_host, outputs), atol=1e-5)

# The whole unit in four launches; in two, with both permutations folded into the second
# convolution as arithmetic on its indices; and in one, where the primary output never leaves the
# block that computed it. That one also leaves what the batch norm after it is computed from.
unit = fused_unit((C, H, W), w1.shape, GROUPS, M, shared_bytes=48 << 10)


def four(x, w1, w2):
    return interleaved_group_conv2d_steps(Tensor(x), Tensor(w1), Tensor(w2), L=L).data


def two(x, w1, w2):
    return interleaved_group_conv2d(Tensor(x), Tensor(w1), Tensor(w2), L=L).data


def one(x, w1, w2):
    z, partial = on_device(N, C, H, W), on_device(C, unit.blocks(N), 3)
    launch_igc_forward(unit, x, None, w1, w2, z, partial)
    return z


table = ["                        launches   read  written   shared read  written   bytes"]
for name, compute in {
    "naive, four steps": four,
    "permutations folded in": two,
    "fused": one,
}.items():
    with following(block=0, thread=0) as launches:
        y = compute(x, w1, w2)
    np.testing.assert_allclose(to_host(y), expected, atol=1e-4)
    moved = np.sum([launch.traffic for launch in launches], axis=0)
    table.append("{:22} {:9} {:8,} {:8,} {:12,} {:9,}".format(name, len(launches), *moved))
print(annotated(launches[0]), "\n")
print("\n".join(table))
