"""Interleaving: two group convolutions that together see everything (the paper's L = 2, M = 3)."""

import numpy as np

from igcnn import Tensor
from igcnn.functional import conv2d, interleaved_group_conv2d, permute_channels

L, M = 2, 3
C = L * M

channels = Tensor(np.arange(C, dtype=float).reshape(1, C, 1, 1))
interleaved = permute_channels(channels, L)
print(f"{L} partitions of {M} channels:", np.split(np.arange(C), L))
print(
    f"{M} partitions of {L} after Reorder({L}):", np.split(interleaved.data.ravel().astype(int), M)
)
print("and Reorder(3) puts them back:", permute_channels(interleaved, M).data.ravel().astype(int))

rng = np.random.default_rng(0)
x = Tensor(rng.standard_normal((1, C, 7, 7)))
primary = Tensor(rng.standard_normal((C, M, 3, 3)))
secondary = Tensor(rng.standard_normal((C, L, 1, 1)))
y = interleaved_group_conv2d(x, primary, secondary, L=L)

# The composed kernel: W[(l, m), (l', m')] = W^d_m[l, l'] · W^p_l'[m, m'], one path for each pair
W_p = primary.data.reshape(L, M, M, 3, 3)  # l', m, m', row, column
W_d = secondary.data.reshape(M, L, L)  # m, l, l'
composed = np.einsum("mlk,kmnab->lmknab", W_d, W_p).reshape(C, C, 3, 3)
dense = conv2d(x, Tensor(composed), padding=1)

print("\none dense 3×3 convolution with the composed kernel gives the same:")
print("largest difference:", np.abs(y.data - dense.data).max())
print(f"parameters: {primary.size} + {secondary.size} interleaved, {composed.size} dense")
assert np.allclose(y.data, dense.data)
