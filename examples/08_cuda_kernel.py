"""Reading a CUDA kernel and running it on the CPU, thread by thread (needs g++)."""

from importlib.resources import files

import numpy as np

from igcnn import Tensor
from igcnn.backend import to_device, to_host
from igcnn.errors import KernelError
from igcnn.functional import interleaved_group_conv2d
from igcnn.kernels.launch import emulation
from igcnn.kernels.permutation import permutation_forward
from igcnn.layers.interleaved_group_convolution import interleaved_group_conv2d_steps

rng = np.random.default_rng(0)

# A channel permutation moves numbers and computes nothing: thread i finds the image, channel and
# pixel of result i, and fetches the one number that belongs there.
print(files("igcnn.kernels").joinpath("permutation.cu").read_text())
x = rng.standard_normal((2, 6, 4, 5)).astype(np.float32)
on_device = to_device(x, "emu")
y = permutation_forward(on_device, 2)
assert np.array_equal(to_host(y), permutation_forward(x, 2))
print("Reorder(2) by this kernel: equal to NumPy's, bit for bit")


# A loop that goes one too far. On a GPU it would write somewhere; here every access is watched.
def one_too_far(stem, text):
    return text.replace("i < N * C * pixels", "i <= N * C * pixels")


try:
    with emulation(checked=True, edit=one_too_far):
        permutation_forward(on_device, 2)
except KernelError as error:
    print(f"with i <= instead of i <: {error}\n")
else:
    raise AssertionError("the fault was not found")

# The unit of the paper, naive: four operations, each of which writes all channels to memory and
# lets the next one read them again. Then with both permutations folded into the second
# convolution as arithmetic on its indices: nothing is moved any more.
L, M = 3, 2
weights = rng.standard_normal((L * M, M, 3, 3)), rng.standard_normal((L * M, L, 1, 1))
arrays = [x, *(w.astype(np.float32) for w in weights)]
expected = interleaved_group_conv2d(*map(Tensor, arrays), L=L).data
for name, function in {
    "naive, four steps": interleaved_group_conv2d_steps,
    "permutations folded in": interleaved_group_conv2d,
}.items():
    with emulation() as launched:
        y = function(*(Tensor(to_device(a, "emu")) for a in arrays), L=L)
    difference = np.abs(y.numpy() - expected).max()
    kernels = ", ".join(sorted({kernel for _, kernel, _ in launched}))
    print(f"{name}: {kernels}; difference to NumPy {difference:.1e}")
    assert difference < 1e-5

# Fused, the primary output never leaves the block that computed it: kernels/
# interleaved_group_convolution.cu, whose header tells what that costs in registers and memory.
