"""The list of cases: every value of every axis in the fast form, their products in the full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, product

from .oracles import Pair, pair
from .problem import LAYOUTS, Case, Problem

GROUPS = 1, 2, 3, 8, 16, 24, 48, 100
PER_GROUP = (1, 1), (2, 2), (3, 1), (1, 3), (2, 8)  # channels in and out
KERNELS = range(1, 8)
STRIDES = 1, 2, 3
MOST_TERMS = 30_000  # of a convolution in the fast form: multiply-adds of one pass of its oracle


def fast_cases() -> list[Case]:
    """Return the cases of the fast form, the smallest first."""
    return _in_memory(_fast_problems())


def all_cases() -> list[Case]:
    """Return the cases of both forms, the smallest first."""
    return _in_memory([*_fast_problems(), *_products()])


def _in_memory(problems: Sequence[Problem]) -> list[Case]:
    """Return each problem once in float64, and in float32 as C order and one other order."""
    others = cycle(name for name in LAYOUTS if name != "C order")
    cases = []
    for problem in sorted(problems, key=lambda p: p.size):
        layout = next(others)
        cases += [Case(problem, "float64"), Case(problem, "float32")]
        cases.append(Case(problem, "float32", layout))
    return cases


# -- convolution


def convolution(
    N: int,
    channels: Pair,
    image: Pair,
    kernel: int | Pair = 3,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> Problem:
    """Return a convolution of random numbers."""
    (C, D), (H, W) = channels, image
    KH, KW = pair(kernel)
    text = (
        f"N = {N}, {C} → {D} channels, {H}×{W} pixels, kernel {KH}×{KW}, "
        f"stride {_text(stride)}, padding {_text(padding)}, groups {groups}"
    )
    shapes = {"x": (N, C, H, W), "w": (D, C // groups, KH, KW), "b": (D,)}
    options = {"stride": stride, "padding": padding, "groups": groups}
    return Problem("convolution", text, shapes, options)


def _text(value: int | Pair) -> str:
    vertical, horizontal = pair(value)
    return f"{vertical}" if vertical == horizontal else f"{vertical}, {horizontal}"


def _terms(problem: Problem) -> int:
    """Return about how many products a convolution adds up."""
    (N, _, H, W), (D, Cg, KH, KW) = problem.shapes["x"], problem.shapes["w"]
    (sv, sh), (pv, ph) = pair(problem.options["stride"]), pair(problem.options["padding"])
    rows, columns = (H + 2 * pv - KH) // sv + 1, (W + 2 * ph - KW) // sh + 1
    return N * D * Cg * KH * KW * rows * columns


# geometries at which a library was found to be wrong
PUBLISHED = [
    convolution(1, (4, 16), (1, 1), 1, groups=2),  # pytorch#19912
    *(convolution(1, (C, C), (6, 6), 3, 2, 1, C) for C in (24, 48, 72, 96)),  # pytorch#50042
    convolution(2, (4, 4), (4, 4), 3, 2, 1, 2),  # pytorch#51430, mlx#3800
    convolution(1, (6, 6), (9, 7), 2, (4, 1), 1, 3),  # pytorch#68868
    convolution(1, (8, 16), (256, 2), (256, 1), groups=8),  # pytorch#188335
    convolution(2, (8, 16), (256, 2), (256, 1), groups=8),
    convolution(1, (16, 16), (1, 130), (1, 128), groups=16),  # modular#6129
    convolution(1, (9, 3), (32, 32), 5, 3, 1),  # pytorch#25101
]


def _fast_convolutions() -> Iterator[Problem]:
    yield from PUBLISHED
    for groups, (own, out) in product(GROUPS, PER_GROUP):
        yield convolution(2, (own * groups, out * groups), (5, 3), 3, 1, 1, groups)
        yield convolution(1, (own * groups, out * groups), (4, 5), 2, 2, 1, groups)
    for kernel, stride, groups in product(KERNELS, STRIDES, (1, 2, 24)):
        for padding in {0, kernel // 2, kernel - 1}:
            yield convolution(1, (groups, groups), (9, 7), kernel, stride, padding, groups)
        yield convolution(2, (2 * groups, groups), (7, 8), kernel, stride, kernel // 2, groups)
    for taps, steps, margins in product(
        ((1, 3), (3, 1), (2, 5), (7, 4)), ((1, 2), (3, 1)), ((0, 2), (3, 0), (1, 1))
    ):
        yield convolution(2, (6, 4), (8, 9), taps, steps, margins, 2)
    for N, groups, padding in product((1, 3, 17), (1, 3), (0, 1, 2)):
        yield convolution(N, (3, 6), (1, 1), 1 + 2 * min(1, padding), 1, padding, groups)
    yield convolution(1, (2, 2), (3, 4), (2, 3), 2, (4, 5), 2)  # padding beyond the kernel
    yield convolution(1, (2, 2), (2, 1), (5, 3), 1, (2, 1))  # a kernel beyond the image
    yield convolution(33, (16, 16), (4, 4), 3, 1, 1, 8)
    yield convolution(1, (48, 48), (3, 3), 3, 1, 1)
    yield convolution(2, (3, 16), (11, 11), 7, 2, 3)


def _products() -> Iterator[Problem]:
    """The products of all values of the axes of a convolution, as far as its image holds them."""
    for groups, (own, out), kernel, stride in product(GROUPS, PER_GROUP[:4], KERNELS, STRIDES):
        for padding, image in product((0, kernel // 2, kernel - 1), ((7, 5), (8, 8))):
            if min(image) + 2 * padding >= kernel:
                channels = own * groups, out * groups
                problem = convolution(1, channels, image, kernel, stride, padding, groups)
                if _terms(problem) <= MOST_TERMS:
                    yield problem


# -- the others


def _fast_problems() -> list[Problem]:
    problems = [p for p in _fast_convolutions() if p in PUBLISHED or _terms(p) <= MOST_TERMS]
    problems += [*_permutations(), *_units(), *_batch_norms(), *_pools(), *_losses()]
    return list({str(problem): problem for problem in problems}.values())


def _permutations() -> Iterator[Problem]:
    for C, branches in ((1, 1), (6, 2), (6, 3), (15, 5), (48, 24), (48, 2), (100, 50), (7, 7)):
        text = f"2 images, {C} channels, {branches} branches, 3×5 pixels"
        yield Problem("permutation", text, {"x": (2, C, 3, 5)}, {"branches": branches})


def _units() -> Iterator[Problem]:
    for L, M, growth, kernel, stride, N in (
        (2, 2, 1, 1, 1, 1),
        (2, 2, 1, 3, 1, 2),
        (3, 2, 1, 3, 1, 1),
        (24, 2, 1, 3, 1, 1),
        (24, 2, 1, 1, 1, 3),
        (24, 2, 2, 3, 2, 1),
        (4, 1, 1, 3, 1, 2),
        (1, 4, 1, 3, 1, 2),
        (5, 3, 1, 5, 1, 1),
        (16, 4, 1, 3, 1, 1),
        (50, 2, 1, 1, 1, 1),
        (3, 2, 2, 3, 2, 5),
        (8, 2, 2, 2, 3, 2),
    ):
        C = L * M
        D = growth * C
        shapes = {"x": (N, C, 5, 4), "w1": (D, M, kernel, kernel), "w2": (D, D // M, 1, 1)}
        options = {"stride": stride, "padding": kernel // 2, "L": L, "secondary_groups": M}
        text = f"N = {N}, L{L}M{M}, {C} → {D} channels, 5×4 pixels, kernel {kernel}×{kernel}"
        text += f", stride {stride}"
        yield Problem("interleaved_group_convolution", text, shapes, options)


def _batch_norms() -> Iterator[Problem]:
    for shape in ((1, 1, 1, 2), (2, 3, 1, 1), (5, 3, 7, 5), (17, 2, 3, 3), (2, 48, 4, 4)):
        for values in ("normal", "mean 100", "mean 10000", "constant 100.1"):
            text = f"{'×'.join(map(str, shape))}, {values}"
            shapes = {"x": shape, "gamma": shape[1:2], "beta": shape[1:2]}
            yield Problem("batch_norm", text, shapes, {}, values)


def _pools() -> Iterator[Problem]:
    windows: tuple[tuple[int | Pair, int | Pair, int | Pair], ...] = (
        (1, 1, 0),
        (2, 2, 0),
        (3, 2, 1),
        (3, 1, 1),
        (2, 3, 0),
        ((3, 2), (1, 2), (1, 1)),
        (4, 3, 2),
    )
    for (kernel, stride, padding), shape in product(windows, ((1, 1, 4, 5), (2, 3, 7, 6))):
        options = {"kernel_size": kernel, "stride": stride, "padding": padding}
        text = f"{'×'.join(map(str, shape))}, window {_text(kernel)}, stride {_text(stride)}"
        text += f", padding {_text(padding)}"
        for values in ("normal", "ties"):
            words = ", equal numbers: the first is taken" * (values == "ties")
            yield Problem("max_pool", text + words, {"x": shape}, options, values)
        for counted in (True, False):
            words = "" if counted else ", without the padding"
            own = options | {"count_include_pad": counted}
            yield Problem("average_pool", text + words, {"x": shape}, own)


def _losses() -> Iterator[Problem]:
    for shape, values in product(((1, 3), (2, 3), (7, 10), (33, 100)), ("normal", "±10000")):
        text = f"{shape[0]} rows of {shape[1]} logits, {values}"
        yield Problem("cross_entropy", text, {"x": shape, "labels": shape[:1]}, {}, values)
