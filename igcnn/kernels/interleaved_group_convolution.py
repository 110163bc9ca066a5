"""The second half of an interleaved group convolution, with both permutations folded in.

    y = P · W^d · Pᵀ · p        p = W^p · x
    gp = P · (W^d)ᵀ · Pᵀ · gy        gx = (W^p)ᵀ · gp

is the whole unit (paper, section 3): the primary group convolution W^p (kernels/convolution.py)
over L partitions, Pᵀ = Reorder(L), the secondary 1×1 group convolution W^d, and P = Reorder(M).
Here is everything after the primary one, the *mix* of its output p, for S secondary groups:

    y = Reorder(S) · W^d · Reorder(L) · p

On the CPU a permutation is a stride. Reading the channels as (L, C/L) and exchanging the two
axes is Reorder(L), so the mix is one batched matrix product on exchanged views. Only where a
secondary group holds more than one channel of each partition (S < C/L, the down-sampling unit
of resnet_igc) no single stride reaches its channels, and reshape makes a copy.

For backward p and W^d are kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .arguments import Arguments
from .checks import check_arrays
from .combine import DeviceNorm, launch_statistics
from .convolution import (
    BACKWARD_NUMBERS,
    FORWARD_NUMBERS,
    Packed,
    bands,
    launch_convolution_backward_input,
    launch_convolution_backward_weight,
    launch_convolution_forward,
    weight_slices,
)
from .geometry import Pair
from .lanes import Fields, Lanes, complete
from .launch import THREADS, WARP, launch, launch_each
from .sum_partials import sum_partials

Array = np.ndarray

STEM = "interleaved_group_convolution"
FORMULAS = f"{STEM}_v1"
INPUT_THREADS, WEIGHT_THREADS = 128, 256  # of a block, as in interleaved_group_convolution.cu
WEIGHT_BLOCKS = 132  # that stay and take tile after tile; fixed on all GPUs: same bits


def mix_forward(p: Array, w2: Array, L: int, secondary_groups: int) -> Array:
    """Return y of shape (N, C, H, W).

    Args:
        p: output of the primary convolution, (N, C, H, W).
        w2: secondary weights W^d, (C, C/secondary_groups, 1, 1).
        L: number of primary partitions.
        secondary_groups: number of secondary partitions; C/L gives the paper's unit.

    Raises:
        ShapeError: L or secondary_groups do not divide C, or w2 does not fit.
        DtypeError: p and w2 are not both float32 or both float64.
    """
    check_mix(p.shape[1], w2.shape, L, secondary_groups)
    check_arrays("interleaved_group_convolution", p, w2)
    N, C, H, W = p.shape
    if not is_on_cpu(p):
        y = empty(p.shape, p.dtype, p)
        launch_convolution_forward(contiguous(p), w2, y, *device_mix(C, L, secondary_groups))
        return y
    y = np.empty((C, H, W, N), p.dtype)
    matrices = w2.reshape(secondary_groups, C // secondary_groups, C // secondary_groups)
    np.matmul(matrices, _gather(p, L, secondary_groups), out=_scattered(y, secondary_groups))
    return y.transpose(3, 0, 1, 2)


def mix_backward_input(gy: Array, w2: Array, L: int, secondary_groups: int) -> Array:
    """Return gp, (N, C, H, W): Reorder(C/L) · W^dT · Reorder(C/S) · gy."""
    N, C, H, W = gy.shape
    if not is_on_cpu(gy):
        gp = empty(gy.shape, gy.dtype, gy)
        mix = device_mix(C, L, secondary_groups)
        launch_convolution_backward_input(contiguous(gy), w2, gp, *mix)
        return gp
    K = C // secondary_groups
    matrices = w2.reshape(secondary_groups, K, K).transpose(0, 2, 1)
    gp = np.empty((C, H, W, N), gy.dtype)
    planes = _scattered(_planes(gy), secondary_groups)
    if secondary_groups == C // L:
        # (L, C/L, H·W·N) → (C/L, L, H·W·N): written where Reorder(L) had read
        np.matmul(matrices, planes, out=gp.reshape(L, C // L, -1).transpose(1, 0, 2))
    else:
        mixed = np.matmul(matrices, planes).reshape(C // L, L, -1)
        gp.reshape(L, C // L, -1)[...] = mixed.transpose(1, 0, 2)
    return gp.transpose(3, 0, 1, 2)


def mix_backward_weight(
    gy: Array, p: Array, w2_shape: tuple[int, ...], L: int, secondary_groups: int
) -> Array:
    """Return gw2 of shape `w2_shape`: one product of matrices per secondary group."""
    if not is_on_cpu(gy):
        gw2 = empty(w2_shape, gy.dtype, gy)
        N, C, H, W = gy.shape
        slices = weight_slices(N, H * W, w2_shape, secondary_groups)
        partial = empty((slices, *w2_shape), gy.dtype, gy)
        mix = device_mix(C, L, secondary_groups)
        launch_convolution_backward_weight(contiguous(gy), contiguous(p), partial, *mix)
        sum_partials(partial, gw2)
        return gw2
    planes = _scattered(_planes(gy), secondary_groups)
    gw2 = np.matmul(planes, _gather(p, L, secondary_groups).transpose(0, 2, 1))
    return gw2.reshape(w2_shape)


def device_mix(C: int, L: int, secondary_groups: int) -> tuple[Pair, Pair, int, Pair]:
    """Return stride, padding, groups and branches that make a convolution on a GPU the mix."""
    return (1, 1), (0, 0), secondary_groups, (L, C // secondary_groups)


@dataclass(frozen=True)
class Unit:
    """Sizes of a unit that the fused kernels take, and how they cut it.

    Attributes:
        L: primary groups.
        M: channels of each, and secondary groups.
        H: rows of the images.
        W: columns.
        TH: rows of a block in forward and in the gradient of the input.
        G: primary groups in shared memory at once.
        WH: rows of a tile in the gradient of the weights.
        OT: outputs of a secondary group that a thread computes in forward.
        QT: for how many quads, four pixels side by side, it computes them.
    """

    L: int
    M: int
    H: int
    W: int
    TH: int
    G: int
    WH: int
    OT: int
    QT: int

    @property
    def lanes(self) -> int:
        """Threads that share the pixels of a block in forward."""
        return self.TH * self.W // (4 * self.QT)

    @property
    def threads(self) -> int:
        """Threads of a block in forward."""
        return self.lanes * (self.L // self.OT) * self.M

    @property
    def forward_bytes(self) -> int:
        """Shared memory of forward: tiles of x and p, and both weights."""
        tiles = self.G * self.M * (self.TH + 2 + self.TH) * self.W
        return 4 * (tiles + self._weights)

    @property
    def input_bytes(self) -> int:
        """Shared memory of the gradient of the input: tiles of dz and dp, and both weights."""
        tiles = (self.L + self.G) * self.M * (self.TH + 2) * self.W
        return 4 * (tiles + self._weights)

    @property
    def weight_bytes(self) -> int:
        """Shared memory of the gradient of the weights: tiles of x, dz, p and dp."""
        x_channel, channel = ((self.WH + halo) * self.W + 4 for halo in (2, 0))
        return 4 * self.L * self.M * (x_channel + 3 * channel)

    @property
    def _weights(self) -> int:
        return self.G * self.M * (9 * self.M + self.L)

    def blocks(self, N: int) -> int:
        """Return the blocks of forward: so many sums a channel has."""
        return N * (self.H // self.TH)

    def partial_shapes(
        self, N: int, blocks: int = WEIGHT_BLOCKS
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the partial sums of the two weights' gradients."""
        blocks = min(blocks, N * (self.H // self.WH))
        C = self.L * self.M
        return (blocks, C, self.M, 3, 3), (blocks, C, self.L, 1, 1)


def fused_unit(
    x_shape: tuple[int, ...],
    w1_shape: tuple[int, ...],
    geometry: tuple[Pair, Pair, int],
    secondary_groups: int,
    shared_bytes: int,
) -> Unit | None:
    """Return how the fused kernels compute a unit, None where the general ones must.

    Args:
        x_shape: (C, H, W).
        w1_shape: (C, M, KH, KW).
        geometry: stride, padding and L of the primary convolution.
        secondary_groups: S.
        shared_bytes: that a block of the device may have.
    """
    stride, padding, L = geometry
    C, H, W = x_shape
    M = C // L
    plain = (stride, padding, secondary_groups) == ((1, 1), (1, 1), M)
    if not plain or tuple(w1_shape) != (C, M, 3, 3) or L > 32 or L % 3 or M % 2 or M > 8:
        return None
    if W not in (4, 8, 16, 32, 64, 128):  # the quads of a row lie in one warp
        return None
    G = next(g for g in (8, 6, 4, 3) if L % g == 0)
    outputs = [o for o in range(12, 2, -1) if L % o == 0]
    # a whole image a block comes last: they would be too few
    heights = sorted((8, 4, 2), key=lambda TH: TH == H)
    for TH, WH, least, OT, QT in product(heights, (4, 2), (128, 32), outputs, (2, 1)):
        if H % TH or H % WH or TH * W // 4 % QT:
            continue
        unit = Unit(L, M, H, W, TH, G, WH, OT, QT)
        size = max(unit.forward_bytes, unit.input_bytes, unit.weight_bytes)
        whole = WARP % unit.lanes == 0 and unit.threads % WARP == 0
        if whole and least <= unit.threads <= 512 and size <= shared_bytes:
            return unit
    return None


@dataclass(frozen=True)
class Incoming:
    """What the gradient of z is computed from, where it is needed.

    Attributes:
        gy: gradient of what the unit ends in, y.
        y: read for mask WHERE_Y alone.
        z: output of the unit's convolutions.
        norm: the batch norm of z; its coefficients are there (combine.launch_combine_sums).
        mask: see combine.launch_combine_sums.
    """

    gy: Array
    y: Array
    z: Array
    norm: DeviceNorm
    mask: int

    def arguments(self) -> Arguments:
        """Return what every kernel of the backward pass takes, by name."""
        arguments: Arguments = {"gy": self.gy, "y": self.y, "z": self.z, "mask": self.mask}
        return arguments | self.norm.fields("mean coefficients scale shift")


def launch_igc_forward(
    unit: Unit,
    x: Array,
    x_norm: DeviceNorm | None,
    w1: Array,
    w2: Array,
    z: Array,
    partial: Array,
) -> None:
    """Write z, and into partial, (C, unit.blocks(N), 3), count, mean and Σ(z − mean)² by block.

    With x_norm the unit's input is max(scale·x + shift, 0).
    """
    arguments = entering_arguments(x, x_norm) | {"w1": w1, "w2": w2, "z": z, "partial": partial}
    kernel, sizes = "igc_forward_v2", (unit.blocks(len(x)), unit.threads)
    memory, defines = unit.forward_bytes, asdict(unit)
    launch(STEM, kernel, *sizes, shared_bytes=memory, defines=defines, **arguments)


def launch_igc_forward_formula(
    unit: Unit,
    x: Array,
    x_norm: DeviceNorm | None,
    w1: Array,
    w2: Array,
    z: Array,
    partial: Array,
) -> None:
    """Like launch_igc_forward, with the reference kernel; partial: sums of slices of z."""
    arguments = entering_arguments(x, x_norm) | {"w1": w1, "w2": w2, "z": z, "N": len(x)}
    launch_each(FORMULAS, "igc_forward_v1", z.size, defines=asdict(unit), **arguments)
    launch_statistics(z, partial)


def launch_igc_backward_input(
    unit: Unit, incoming: Incoming, w1: Array, w2: Array, gx: Array, accumulate: bool
) -> None:
    """Write, or add, the gradient of the unit's input into gx."""
    arguments = input_arguments(incoming, w1, w2, gx, accumulate)
    kernel, sizes = "igc_backward_input_v2", (unit.blocks(len(gx)), INPUT_THREADS)
    memory, defines = unit.input_bytes, asdict(unit)
    launch(STEM, kernel, *sizes, shared_bytes=memory, defines=defines, **arguments)


def launch_igc_backward_input_formula(
    unit: Unit, incoming: Incoming, w1: Array, w2: Array, gx: Array, accumulate: bool
) -> None:
    """Like launch_igc_backward_input, with the reference kernel."""
    arguments = input_arguments(incoming, w1, w2, gx, accumulate) | {"N": len(gx)}
    launch_each(FORMULAS, "igc_backward_input_v1", gx.size, defines=asdict(unit), **arguments)


def launch_igc_backward_weight(
    unit: Unit,
    incoming: Incoming,
    x: Array,
    x_norm: DeviceNorm | None,
    weights: tuple[Array, Array],
    partials: tuple[Array, Array],
) -> None:
    """Write the parts of both weights' gradients; partials as unit.partial_shapes says."""
    arguments = weight_arguments(incoming, x, x_norm, weights, partials)
    kernel, sizes = "igc_backward_weight_v2", (len(partials[0]), WEIGHT_THREADS)
    memory, defines = unit.weight_bytes, asdict(unit)
    launch(STEM, kernel, *sizes, shared_bytes=memory, defines=defines, **arguments)


def launch_igc_backward_weight_formula(
    unit: Unit,
    incoming: Incoming,
    x: Array,
    x_norm: DeviceNorm | None,
    weights: tuple[Array, Array],
    partials: tuple[Array, Array],
) -> None:
    """Like launch_igc_backward_weight, with the reference kernel."""
    arguments = weight_arguments(incoming, x, x_norm, weights, partials)
    grid = -(-sum(w.size for w in weights) // THREADS), len(partials[0])
    launch(FORMULAS, "igc_backward_weight_v1", grid, THREADS, defines=asdict(unit), **arguments)


def weight_arguments(
    incoming: Incoming,
    x: Array,
    x_norm: DeviceNorm | None,
    weights: tuple[Array, Array],
    partials: tuple[Array, Array],
) -> Arguments:
    """Return what every version of the kernel of the weights' gradients takes, by name."""
    arguments = incoming.arguments() | entering_arguments(x, x_norm, "x_") | {"N": len(x)}
    arguments |= {"w1": weights[0], "w2": weights[1]}
    return arguments | {"partial1": partials[0], "partial2": partials[1]}


def input_arguments(
    incoming: Incoming, w1: Array, w2: Array, gx: Array, accumulate: bool
) -> Arguments:
    """Return what every version of the kernel of the input's gradient takes, by name."""
    arguments: Arguments = {"w1": w1, "w2": w2, "gx": gx, "accumulate": accumulate}
    return incoming.arguments() | arguments


def entering_arguments(x: Array, x_norm: DeviceNorm | None, prefix: str = "") -> Arguments:
    """Return the unit's input and how it is normalised while it is loaded, by name."""
    scale, shift = (x_norm.scale, x_norm.shift) if x_norm else (None, None)
    normalised = {f"{prefix}scale": scale, f"{prefix}shift": shift}
    return normalised | {"x": x, "activate": x_norm is not None}


def check_mix(C: int, w2_shape: tuple[int, ...], L: int, secondary_groups: int) -> None:
    """Raise ShapeError unless C channels, W^d, L and the secondary groups fit each other."""
    if L < 1 or C % L:
        raise ShapeError(
            f"interleaved_group_convolution: {C} channels do not divide into L = {L} primary "
            f"partitions; choose an L that divides {C}"
        )
    if secondary_groups < 1 or C % secondary_groups:
        raise ShapeError(
            f"interleaved_group_convolution: {C} channels do not divide into "
            f"{secondary_groups} secondary groups; C/L = {C // L} is the paper's choice"
        )
    expected = (C, C // secondary_groups, 1, 1)
    if tuple(w2_shape) != expected:
        raise ShapeError(
            f"interleaved_group_convolution: secondary weights have shape {tuple(w2_shape)}, but "
            f"{C} channels in {secondary_groups} groups take {expected}"
        )


def _planes(x: Array) -> Array:
    """View (or copy) x, (N, C, H, W), as contiguous planes (C, H·W·N)."""
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0)).reshape(x.shape[1], -1)


def _gather(p: Array, L: int, secondary_groups: int) -> Array:
    """Return Reorder(L) of p as (S, C/S, H·W·N); a view where a stride can say it."""
    C = p.shape[1]
    # (C, HWN) → (L, C/L, HWN) → (C/L, L, HWN) → (S, C/S, HWN)
    planes = _planes(p).reshape(L, C // L, -1).transpose(1, 0, 2)
    return planes.reshape(secondary_groups, C // secondary_groups, -1)


def _scattered(y: Array, secondary_groups: int) -> Array:
    """View planes y, (C, …), so that writing (S, C/S, H·W·N) writes Reorder(S) of it."""
    C = y.shape[0]
    return y.reshape(C // secondary_groups, secondary_groups, -1).transpose(1, 0, 2)


def compiled_igc_pack(
    lanes: Lanes,
    weights: Sequence[Array],
    scale: Array | None,
    packed: Sequence[Packed],
    sizes: Fields,
    wait: bool,
) -> None:
    """Order both weights for the kernels, the second times a factor for each channel, (D,)."""
    fields = {"w1": weights[0], "w2": weights[1], "scale": scale, "wait": wait}
    for k, own in enumerate(packed, start=1):
        fields |= {f"forward{k}": own.forward, f"backward{k}": own.backward}
    lanes.launch(STEM, "igc_pack", sizes["S"], **fields, **sizes)


def compiled_igc_forward(
    lanes: Lanes,
    x: Fields,
    packed: Sequence[Packed],
    z: Array,
    sizes: Fields,
    sums: Array | None = None,
    bias: Array | None = None,
    skip: Array | None = None,
    relu: int = 0,
) -> None:
    """Write z; see compiled_convolution_forward. `sizes` has the secondary groups, S, too."""
    end = {"sums": sums, "bias": bias, "skip": skip, "relu": relu}
    fields = {"x": x, "z": z, "w1": packed[0].forward, "w2": packed[1].forward}
    fields |= end | sizes | bands(lanes, sizes, FORWARD_NUMBERS)
    lanes.launch(STEM, "igc_forward", lanes.jobs(sizes["OH"]), **fields)


def compiled_igc_backward(
    lanes: Lanes,
    gz: Fields,
    x: Fields,
    packed: Sequence[Packed],
    gx: Array | None,
    ending: Fields,
    partials: Sequence[Array | None],
    sizes: Fields,
) -> None:
    """Write the gradients; see compiled_convolution_backward. `partials` are of both weights."""
    fields = {"gz": gz, "x": x, "gx": gx, "end": complete(ending, gz["g"])}
    fields |= {"w1f": packed[0].forward, "w1": packed[0].backward, "w2": packed[1].backward}
    fields |= {"gw1": partials[0], "gw2": partials[1]} | sizes
    fields |= bands(lanes, sizes, BACKWARD_NUMBERS)
    lanes.launch(STEM, "igc_backward", lanes.jobs(sizes["OH"]), **fields)
