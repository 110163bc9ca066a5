"""Parameters of PyTorch's OpInfo samples, of its main branch in 2026.

torch/testing/_internal/common_methods_invocations.py and opinfo/core.py. They name no element
type; here they are float32, and the same numbers in float64. Tensors of a million numbers are
left out, and derivatives of second order.
"""

from itertools import permutations, product

import numpy as np

from .cases import Case

PEER = "PyTorch"
SINGLE = ("float32",)
XS, S, M, L = 3, 5, 10, 20
IMAGES = "(N, C, H, W)"


def convolution():
    """sample_inputs_conv2d, error_inputs_conv2d."""
    plain = (1, 4, 5, 5), (1, 4, 2, 3), (1,)
    four = (2, 4, 6, 6), (4, 1, 3, 3), (4,)
    eight = (2, 4, 6, 6), (8, 1, 3, 3), (8,)
    dilated = {"stride": 2, "padding": 1, "groups": 1}
    for shapes, options, missing in (
        (((1, 3, 4, 4), (3, 3, 3, 3), (3,)), {"stride": (2, 2), "padding": 2, "groups": 1}, ""),
        (((2, 4, 8, 8), (2, 2, 3, 3), (2,)), {}, "dilation"),
        (plain, dilated, "dilation"),
        (plain, dilated, "dilation"),
        (((1, 2, 4, 3), (4, 2, 3, 4)), {"stride": 2, "padding": 1, "groups": 1}, ""),
        (plain, {"stride": 2, "padding": "valid"}, ""),
        (plain, {"stride": 1, "padding": "same"}, "dilation"),
        (four, {"groups": 4}, ""),
        (eight, {"groups": 4}, ""),
        (eight[:2], {"groups": 4}, ""),
        (four, {"groups": 4, "stride": (3, 2)}, ""),
        (four, {"groups": 4, "padding": (1, 1)}, ""),
        (((2, 4, 5, 5), (4, 1, 2, 2), (4,)), {"groups": 4}, "dilation"),
        (((2, 4, 6, 5), (6, 2, 3, 2), (6,)), {"groups": 2}, ""),
        (((1, 4, 5, 5), (3, 4, 3, 3)), {}, ""),
    ):
        refused = "two whole numbers" * (options.get("padding") == "valid")
        yield Case(PEER, "conv2d", shapes, options, SINGLE, "C", "", refused, missing)
        single = shapes[0][1:], *shapes[1:]
        refused = IMAGES + ("|" + refused) * bool(refused)
        yield Case(PEER, "conv2d", single, options, SINGLE, "C", "", refused, missing)
    groups, images = "channels and groups", IMAGES
    for shapes, options, dtypes, refused, missing in (
        (((2, 4, 4), (3, 2, 3, 3), (3,)), {}, ("int64", "int64", "float64"), images, ""),
        (((2, 4, 4), (3, 2, 3, 3), (3,)), {}, ("float64",) * 2 + ("complex128",), images, ""),
        (
            ((1, 1, 4, 4), (1, 2, 2, 3), (1,)),
            {"stride": (-1,)},
            ("float64",),
            "two whole numbers|" + groups,
            "",
        ),
        (
            ((1, 1, 4, 3), (1, 2, 2, 4), (1,)),
            {"padding": (-1,)},
            ("float64",),
            "two whole numbers|" + groups,
            "",
        ),
        (((1, 1, 4, 2), (1, 1, 2, 5), (1,)), {}, ("float64",), "", "dilation"),
        (((1, 1, 4, 3), (1, 2, 2), (1,)), {"padding": "same"}, ("float64",), images, ""),
        (((2, 2, 4, 3), (2, 2, 1, 3), (2,)), {"groups": 3}, ("float64",), groups, ""),
        (
            ((2, 2, 4, 3), (2, 2, 1, 3), (2,)),
            {"padding": "same", "groups": 3},
            ("float64",),
            groups,
            "",
        ),
        (
            ((2, 2, 4, 5), (2, 2, 1, 4), (2,)),
            {"padding": "same", "groups": -1},
            ("float64",),
            groups + "|same: stride 1, odd kernel",
            "",
        ),
        (
            ((2, 2, 4, 3), (2, 2, 4, 3), (2,)),
            {"padding": "same", "groups": 0},
            ("float64",),
            groups + "|same: stride 1, odd kernel",
            "",
        ),
    ):
        yield Case(PEER, "conv2d", shapes, options, dtypes, "C", "", refused, missing)


def pooling():
    """sample_inputs_max_pool, sample_inputs_avgpool2d, their errors, adaptive_avg_pool2d."""
    images = [(shape, layout) for shape in product((1, 2), (2,), (3, 6), (6,)) for layout in "CL"]
    images += [((2, H, 6), "C") for H in (3, 6)]
    for (shape, layout), kernel, stride, ceil, padding, dilation, indices in product(
        images,
        (3, (3, 2)),
        (2, None, (2, 1)),
        (True, False),
        (0, 1, (1, 1)),
        (1, (1, 2)),
        (True, False),
    ):
        options = {"kernel_size": kernel, "stride": stride, "padding": padding}
        missing = "ceil_mode" * ceil or "dilation" * (dilation != 1) or "return_indices" * indices
        refused = IMAGES * (len(shape) < 4)
        yield Case(PEER, "max_pool2d", (shape,), options, SINGLE, layout, "", refused, missing)
    for _ in range(4):
        yield Case(PEER, "avg_pool2d", missing="ceil_mode")
    yield Case(PEER, "avg_pool2d", missing="divisor_override")
    yield Case(PEER, "avg_pool2d", missing="ceil_mode")
    options = {"kernel_size": 3, "stride": 3}
    yield Case(PEER, "avg_pool2d", ((1, 3, 9, 9),), options, SINGLE)
    empty = ((0, 1, 49),)
    for name, kernel, padding in product(("max_pool2d", "avg_pool2d"), (2, (3, 2)), (-1, 4)):
        options = {"kernel_size": kernel, "stride": 50, "padding": padding}
        refused = IMAGES + "|two whole numbers|padding < kernel"
        yield Case(PEER, name, empty, options, SINGLE, refused=refused)
    yield Case(PEER, "avg_pool2d", missing="divisor_override")
    for shape, refused in (((1, 0, 10), IMAGES), ((2, 1, 10, 0), IMAGES + "|window in image")):
        yield Case(PEER, "max_pool2d", (shape,), {"kernel_size": 1}, SINGLE, refused=refused)
    for _ in range(10):
        yield Case(PEER, "adaptive_avg_pool2d", missing="adaptive_avg_pool2d")


def batch_norm():
    """sample_inputs_batch_norm; momentum is the new value's share there, the old one's here."""
    for shape, options in (
        ((S, S, S), {"training": True, "momentum": 0.5, "eps": 0.6}),
        ((3, 2, 4), {"training": False, "momentum": 2.2}),
        ((3, 1), {"training": True, "momentum": 1.0}),
        ((0,), {"training": True}),
        ((0,), {"training": False}),
        ((3, 2, 3, 4), {"training": True, "momentum": 2.0, "eps": 0.5}),
        ((3, 2, 3, 4), {"training": False, "momentum": 2.0, "eps": 0.5}),
        ((2, 1), {"training": False}),
    ):
        channels = shape[1:2] or (0,)
        refused = [IMAGES] * (len(shape) != 4)
        refused += ["momentum 0 to 1, ε ≥ 0"] * (not 0 <= options.get("momentum", 0) <= 1)
        yield Case(
            PEER,
            "batch_norm",
            (shape, channels, channels),
            options,
            SINGLE,
            refused="|".join(refused),
        )
    for _ in range(6):
        yield Case(PEER, "batch_norm", missing="weight=None, bias=None")
    yield Case(PEER, "batch_norm", missing="no running statistics")


def cross_entropy():
    """sample_inputs_cross_entropy."""
    label = np.array([2, 0])
    for pixels in ((), (1,), (1, 2), (1, 2, 3)):
        labels = np.ones((2, *pixels), int)
        refused = "logits (N, K)" * bool(pixels)
        shapes = ((2, 3, *pixels),)
        for target in (labels, np.ones(shapes[0])):
            rule = refused if target is labels else "labels (N,)"
            yield Case(PEER, "cross_entropy", shapes, {"labels": target}, SINGLE, refused=rule)
    for reduction, probabilities in product(("mean", "sum", "none"), (False, True)):
        options = {"labels": np.ones((2, 3)) if probabilities else label}
        missing = "reduction" * (reduction != "mean")
        refused = "labels (N,)" * probabilities
        yield Case(PEER, "cross_entropy", ((2, 3),), options, SINGLE, "C", "", refused, missing)
        yield Case(PEER, "cross_entropy", missing="weight")
    yield Case(PEER, "cross_entropy", missing="ignore_index")


def permutation():
    """sample_inputs_channel_shuffle."""
    for shape, groups in (((1, 4, 10, 10), 2), ((2, 6, 8, 8), 3), ((2, 8, 5, 5), 4)):
        yield Case(PEER, "permute_channels", (shape,), {"branches": groups}, SINGLE)


def linear():
    """sample_inputs_linear."""
    for bias, (inputs, outputs), batch in product(
        (True, False), ((3, 4), (8, 8)), ((), (0,), (8,), (2, 3))
    ):
        shapes = ((*batch, inputs), (outputs, inputs), (outputs,))[: 2 + bias]
        refused = "linear (N, I)" * (len(batch) != 1)
        yield Case(PEER, "linear", shapes, {}, SINGLE, refused=refused)
    deep = (2, 1, 2, 1, 2), (4, 2), (4,)
    for bias in (0, 1):
        yield Case(PEER, "linear", deep[: 2 + bias], {}, SINGLE, refused="linear (N, I)")


def arithmetic():
    """sample_inputs_elementwise_binary, reference_inputs_elementwise_binary."""
    samples = [
        ((), ()),
        ((S,), ()),
        ((S, 1), (S,)),
        ((M, S), ()),
        ((S, M, S), (M, S)),
        ((S, M, S), (S, M, S)),
        ((M, 1, S), (M, S)),
        ((M, 1, S), (1, M, S)),
        ((0, 1, XS), (0, M, XS)),
    ]
    equal = [(shape, shape) for shape in ((0,), (1, 0, 3), (), (20,), (812,))]
    broadcast = [
        ((1,), ()),
        ((2,), ()),
        ((1,), (2,)),
        ((2, 1), (2,)),
        ((1, 2), (2,)),
        ((3, 2), (2,)),
        ((1, 3, 2), (2,)),
        ((1, 3, 2), (3, 2)),
        ((3, 1, 2), (3, 2)),
        ((2, 3, 2), ()),
        ((3, 1, 2), (1, 3, 2)),
    ]
    gaps = [((1026,), (1026,)), ((5, 7), (5, 7)), ((1024,), (1024,)), ((2, 1, 2), (2, 1, 2))]
    names = "add", "subtract", "multiply", "divide", "power"
    for name in names:
        for shapes, layout in product(samples + equal + broadcast, "CS"):
            yield Case(PEER, name, shapes, {}, SINGLE, layout)
        for shapes in gaps:
            yield Case(PEER, name, shapes, {}, SINGLE, "S")
        yield Case(PEER, name, ((357, 789), (357, 789)), {}, SINGLE, "F")
        for shape in ((), (3,), (5, 3), (0, 1, 3), (1, 5)):
            yield Case(PEER, name, (shape,), {"constant": 0.7}, SINGLE)
        yield Case(PEER, name, ((1, 5),), {"constant": 0.7, "reverse": True}, SINGLE)
        for draw in ("small", "large", "extreme"):
            yield Case(PEER, name, draw=draw)
    for name in ("add", "subtract"):
        yield Case(PEER, name, missing="alpha")
    for mode in ("trunc", "floor"):
        yield Case(PEER, "divide", missing=f"rounding_mode={mode}")
    for shapes in (
        ((2, 2), (2, 2)),
        ((2, 2), (1,)),
        ((), ()),
        ((2, 2), ()),
        ((1,), (2, 2)),
        ((2, 1, 2), (1, 2, 1)),
        ((), (1, S, 1)),
    ):
        yield Case(PEER, "power", shapes, {}, SINGLE)


def unary():
    """sample_inputs_elementwise_unary, generate_elementwise_unary_tensors."""
    shapes = (L,), (1, 0, 3), (), (812,), (0,), (0, 3, 3), (1, 0, 5), (6, 0, 0, 0), (3, 0, 1, 0)
    for name, shape, layout in product(("exp", "log", "negative", "relu"), shapes, "CS"):
        yield Case(PEER, name, (shape,), {}, SINGLE, layout)


def matrices():
    """sample_inputs_matmul; the reversed product is of the same pairs."""
    for shapes in (
        ((L,), (L,)),
        ((S, M), (M,)),
        ((M,), (M, S)),
        ((S, M), (M, S)),
        ((S, 0), (0, M)),
        ((S, S, M), (M,)),
        ((S, S, M), (M, S)),
        ((S, S, 0), (0, S)),
        ((M,), (S, M, S)),
        ((S, M), (S, M, S)),
        ((0, 0), (S, 0, 0)),
        ((S, S, M, M), (S, S, M, S)),
        ((S, S, M, M), (M,)),
        ((M,), (S, S, M, S)),
        ((S, S, S), (1, S, S)),
    ):
        yield Case(PEER, "matmul", shapes, {}, SINGLE)
        yield Case(PEER, "matmul", shapes[::-1], {"reverse": True}, SINGLE)


def reductions():
    """sample_inputs_reduction for sum, mean and amax; the samples of max."""
    for name, shape in product(("sum", "mean", "max"), ((), (2,), (3, 5), (3, 2, 1, 2))):
        ndim = len(shape)
        axes = [(0, True), (-1, False), (tuple(range(ndim)), False)]
        axes += [(ndim // 2, True)] * (ndim > 2) + [((0, -1), True)] * (ndim > 1)
        axes += [(tuple(range(1, ndim, 2)), False)] * (ndim > 3)
        yield Case(PEER, name, (shape,), {}, SINGLE)
        for axis, keep in axes:
            refused = "axes" * (not shape and axis != ())  # PyTorch gives a number one axis
            options = {"axis": axis, "keepdims": keep}
            yield Case(PEER, name, (shape,), options, SINGLE, refused=refused)
    for shape in ((S, S, S), ()):
        yield Case(PEER, "max", (shape,), {}, SINGLE)
    for _ in range(4):
        yield Case(PEER, "max", missing="return_indices")


def indices():
    """sample_inputs_getitem."""
    every = slice(None)
    some = np.array([True, False, True, True, False])
    for index in (
        [1, 2],
        slice(0, 3),
        (slice(0, 3), 1),
        ([0, 2, 3], [1, 3, 3], [0, 0, 2]),
        ([0, 0, 3], [1, 1, 3], [0, 0, 2]),
        (every, every, [0, 3]),
        (every, [0, 3], every),
        ([0, 3], every, every),
        ([0, 3], [1, 2], every),
        ([0, 3],),
        ([0, 3], every),
        ([0, 3], ...),
        ([0, 2, 3], [1, 3, 3], np.array([0, 0, 2])),
        np.array([4, 1]),
        some,
    ):
        yield Case(PEER, "getitem", ((S, S, S),), {"index": index}, SINGLE)
    index = every, [0, 1], every, [0, 1]
    yield Case(PEER, "getitem", ((S, S, S, S),), {"index": index}, SINGLE)


def shapes():
    """sample_inputs_view_reshape, sample_inputs_permute, reference_inputs_permute, transpose."""
    for shape, new in (
        ((S, S, S), (S * S, S)),
        ((S * S, S), (S, S, S)),
        ((S * S, S), (S, -1, S)),
        ((S * S * 2, S), (S, -1)),
        ((S,), (S,)),
        ((), ()),
        ((), (1,)),
    ):
        yield Case(PEER, "reshape", (shape,), {"arguments": (new,)}, SINGLE)
    orders = [
        ((1, 2, 3, 4), (0, 2, 3, 1)),
        ((1, 2, 3, 4), (0, -2, -1, 1)),
        ((), ()),
        ((1, 2, 3, 4), (2, 1, 3, 0)),
    ]
    for shape, order in (
        ((), ()),
        ((1,), (0,)),
        ((2, 2), (1, 0)),
        ((2, 2), (0, 1)),
        ((2, 0, 1), (0, 2, 1)),
        ((3, 4, 2), (2, 1, 0)),
        ((3, 4, 2), (1, 0, 2)),
        ((3, 4, 2), (0, 1, 2)),
    ):
        for permuted in permutations(order):
            turned = tuple(shape[axis] for axis in permuted)
            orders += [(turned, order)] * 2
    for number, (shape, order) in enumerate(orders):
        options = {"arguments": (order,)}
        yield Case(PEER, "transpose", (shape,), options, SINGLE, "CS"[number % 2])
    for _ in range(8):
        yield Case(PEER, "swapdims", missing="swapdims")


GRIDS = (
    convolution,
    pooling,
    batch_norm,
    cross_entropy,
    permutation,
    linear,
    arithmetic,
    unary,
    matrices,
    reductions,
    indices,
    shapes,
)
