"""Parameters of Chainer's tests, tests/chainer_tests/functions_tests at commit a8e15cb.

Left out: what differs only in backend (cuDNN, iDeep, ChainerX) and derivatives of second order.
"""

from itertools import product

import numpy as np

from .cases import FLOATS, Case

PEER = "Chainer"
MIXED = tuple((a, b) for (a,), (b,) in product(FLOATS, FLOATS))
AXES = None, 0, 1, 2, -1, (0, 1), (1, 0), (0, -1), (-2, 0)
KEEP = {"keepdims": True}, {"keepdims": False}


def convolution():
    """connection_tests/test_convolution_2d.py."""

    def case(dtypes, groups, bias, layout="C", missing=""):
        shapes = (2, 3 * groups, 4, 3), (2 * groups, 3, 3, 3), (2 * groups,)
        options = {"stride": 2, "padding": (1, 1), "groups": groups}
        dtypes = (*dtypes, dtypes[0])[: 2 + bias] if len(set(dtypes)) > 1 else dtypes[:1]
        return Case(PEER, "conv2d", shapes[: 2 + bias], options, dtypes, layout, missing=missing)

    for layout, cover, groups, bias in product("CF", (True, False), (1, 2), (0, 1)):
        yield case(("float32",), groups, bias, layout, "cover_all" * cover)
    for dtypes, groups, bias in product(MIXED, (1, 2), (0, 1)):
        yield case(dtypes, groups, bias, "F")
    for dtypes, groups in product(FLOATS, (1, 2)):
        yield case(dtypes, groups, 0, missing="dilation")
    for layout, bias, groups in product("CF", (0, 1), (1, 2)):
        C = 64 * groups
        shapes = (2, C, 32, 128), (C, 64, 3, 3), (C,)
        options = {"stride": 2, "padding": 1, "groups": groups}
        yield Case(PEER, "conv2d", shapes[: 2 + bias], options, ("float32",), layout)
    ones = (2, 3, 10, 10), (1, 3, 3, 3)
    yield Case(PEER, "conv2d", ones, dtypes=("float32",))
    yield Case(PEER, "conv2d", ones, dtypes=("float32",), missing="dilation")


def pooling():
    """pooling_tests/test_max_pooling_2d.py and test_average_pooling_2d.py."""
    shapes = ((2, 3, 4, 3),)
    options = {"kernel_size": 3, "stride": 2, "padding": 1}
    for cover, dtypes, layout in product((True, False), FLOATS, "FC"):
        missing = "cover_all" * cover
        yield Case(PEER, "max_pool2d", shapes, options, dtypes, layout, missing=missing)
    for dtypes in FLOATS:
        wide = {"kernel_size": 6, "stride": 6, "padding": 0}
        yield Case(PEER, "max_pool2d", ((2, 3, 15, 15),), wide, dtypes)
    yield Case(PEER, "max_pool2d", ((2, 3, 4, 4),), {"kernel_size": 2}, missing="return_indices")
    for dtypes, layout in product(FLOATS, "FC"):
        yield Case(PEER, "avg_pool2d", shapes, options, dtypes, layout)


def batch_norm():
    """normalization_tests/test_batch_normalization.py."""

    def case(x, parameters, dtypes, layout, missing="", **options):
        refused = "(N, C, H, W)" if len(x) != 4 else "γ and β (C,)" * (parameters != x[1:2])
        refused += "|momentum 0 to 1, ε ≥ 0" * (options["eps"] < 0)
        shapes = x, parameters, parameters
        dtypes = dtypes[:1] if len(set(dtypes)) == 1 else (*dtypes, dtypes[1])
        return Case(PEER, "batch_norm", shapes, options, dtypes, layout, "", refused, missing)

    plain = [
        ((5, *parameters, *(2,) * ndim), parameters, "")
        for parameters, ndim in product([(3,), (3, 4), (3, 2, 3)], (0, 1, 2))
    ]
    axes = [
        ((5, 4, 3, 2), (4,), ""),
        ((5, 4), (4,), "axis"),
        ((5, 4, 3), (3,), "axis"),
    ]
    floats = [pair for pair in MIXED if "float16" not in pair]
    grids = product(plain + axes, floats), product([((5, 3, 2), (3,), "")], MIXED)
    for grid in grids:
        for ((x, parameters, missing), dtypes), eps, layout, running in product(
            list(grid), (2e-5, 0.5), "CF", (True, False)
        ):
            missing = missing or "no running statistics" * (not running)
            yield case(x, parameters, dtypes, layout, missing, eps=eps)
    fixed = [(x, parameters, ("float32",)) for x, parameters, _ in plain]
    fixed += [((5, 3, 2), (3,), dtypes) for dtypes in FLOATS]
    for (x, parameters, dtypes), eps, layout in product(fixed, (2e-5, 0.5), "CF"):
        yield case(x, parameters, dtypes, layout, eps=eps, training=False)
    for training, eps in product((True, False), (1e-5, -0.1)):
        yield case((7, 3), (3,), ("float32",), "C", eps=eps, training=training)
    for x, parameters, missing in [
        ((1, 3), (3,), ""),
        ((1, 3, 1), (1, 3), "axis"),
        ((1, 3, 2, 2), (3,), ""),
        ((1, 3, 2), (1, 3), "axis"),
    ]:
        yield case(x, parameters, ("float32",), "C", missing, eps=2e-5)


def cross_entropy():
    """loss_tests/test_softmax_cross_entropy.py."""
    special, plain = ((1, 2), None), ((2, 3), 0)
    every = (2, 3), slice(None)
    line, image = ((2, 3, 2), 0), ((2, 3, 2, 2), (0, 1, 0))

    def case(what, reduce, weight, dtypes=("float32",), label="int32", missing=""):
        shape, ignored = what
        labels = (
            np.arange(np.prod((shape[0], *shape[2:]))).reshape(shape[0], *shape[2:]) % shape[1]
        )
        refused = "logits (N, K)" * (len(shape) > 2)
        if ignored is not None:
            labels[ignored] = -1
            refused = refused or "labels in range"
        missing = missing or "reduce" * (reduce == "no") or "class_weight" * weight
        options = {"labels": labels.astype(label)}
        return Case(PEER, "cross_entropy", (shape,), options, dtypes, "C", "", refused, missing)

    flags = ("mean", "no"), (True, False), (True, False), (True, False)
    for reduce, _, _, weight, what in product(*flags, (special, plain, image)):  # score, normalise
        yield case(what, reduce, weight)
    shapes = special, every, line, image
    for reduce, what, dtypes in product(("mean", "no"), shapes, (FLOATS[0], FLOATS[2])):
        yield case(what, reduce, True, dtypes)
    for reduce, what, label in product(("mean", "no"), shapes, ("int8", "int16", "int64")):
        yield case(what, reduce, True, label=label)
    for _ in (False, True):
        yield case(((300000, 2), None), "mean", True, FLOATS[0], "int64")
    for label in (-2, 3, -1):
        options = {"labels": np.array([label, 0], np.int32)}
        yield Case(
            PEER, "cross_entropy", ((2, 2),), options, ("float32",), refused="labels in range"
        )
    for _ in product((-2, 9), ("mean", "no"), (True, False)):
        yield Case(PEER, "cross_entropy", ((2, 3),), missing="ignore_label")


def broadcasting():
    """array_tests/test_broadcast.py, by sums: igcnn broadcasts in its operators."""
    full = (3, 2, 4)
    several = [
        ((3, 1, 4), (1, 2, 4)),
        (full, (4,)),
        (full, ()),
        (full, full),
        ((), ()),
        ((1, 1, 1), (1,)),
        ((1, 1, 1), ()),
        (full,),
        ((3, 1, 4), (1, 2, 4), (3, 2, 1)),
        ((1, 0, 1), (2,)),
    ]
    to = [((3, 1, 4), full), ((4,), full), (full, full)]
    for shapes, dtypes in product(several + to, FLOATS):
        yield Case(PEER, "sum of several", shapes, dtypes=dtypes)
    for other in ((1, 3, 4), (4,)):
        dtypes = "int32", "float32"
        yield Case(PEER, "add", ((3, 2, 5), other), dtypes=dtypes, refused="shapes broadcast")


def arithmetic():
    """math_tests/test_basic_math.py."""
    operations = "add", "subtract", "multiply", "divide", "power"
    both = (False, True)
    pairs = ((3, 2), (3, 2)), ((), ()), ((3, 2), (3, 1)), ((2,), (3, 2))
    for shapes, dtypes, name, reverse in product(pairs, FLOATS, operations, both):
        yield Case(PEER, name, shapes, {"reverse": reverse}, dtypes)
        if name == "divide":
            yield Case(PEER, "floordiv", missing="floordiv")
    for shapes, dtypes in product(
        [
            ((3, 2),) * 3,
            ((),) * 3,
            ((1, 3), (), (2, 1, 2, 1)),
            ((), (2, 1, 2), (3, 1)),
            ((3, 1), (1, 1), (2,)),
        ],
        FLOATS,
    ):
        yield Case(PEER, "sum of several", shapes, dtypes=dtypes)
    for dtypes, name, reverse in product(FLOATS, operations, both):
        for constant in (1, 1.0, np.int64(1), np.float64(1)):
            yield Case(PEER, name, ((),), {"constant": constant, "reverse": reverse}, dtypes)
        for constant in ([3.0, 4.0], (3.0, 4.0)):  # Chainer refuses lists
            yield Case(PEER, name, ((2,),), {"constant": constant, "reverse": reverse}, dtypes)
        for constant in ([3.0, 4.0, 5.0], (3.0, 4.0, 5.0)):
            options = {"constant": constant, "reverse": reverse}
            yield Case(PEER, name, ((2,),), options, dtypes, refused="shapes broadcast")
        yield Case(PEER, name, ((2,), (2,)), {"reverse": reverse}, dtypes)
        yield Case(
            PEER, name, ((2,), (3,)), {"reverse": reverse}, dtypes, refused="shapes broadcast"
        )
        for shape in ((3, 2), ()):
            yield Case(PEER, name, (shape,), {"constant": 0.5, "reverse": reverse}, dtypes)
        values = np.linspace(0.1, 1, 6, dtype=dtypes[0]).reshape(3, 2)
        yield Case(PEER, name, ((3, 2),), {"constant": values, "reverse": reverse}, dtypes)
    for shape, dtypes in product(((3, 2), ()), FLOATS):
        yield Case(PEER, "negative", (shape,), {}, dtypes)
        yield Case(PEER, "abs", (shape,), {}, dtypes, missing="abs")
    for dtypes in FLOATS:
        yield Case(PEER, "power", ((3, 2),), {"constant": 2}, dtypes, draw="negative")


def matrices():
    """math_tests/test_basic_math.py and test_matmul.py."""
    for _, dtypes, shapes in product(  # left or right a constant: here both get gradients
        range(3),
        FLOATS,
        [
            ((3, 2), (2, 4)),
            ((2, 3, 2), (2, 2, 4)),
            ((2, 1, 3, 4), (2, 4, 2)),
            ((5, 3, 2), (2,)),
            ((2,), (5, 2, 4)),
            ((2, 3, 2), (2, 4)),
            ((3,), (3,)),
        ],
    ):
        yield Case(PEER, "matmul", shapes, dtypes=dtypes)
    for shapes in [
        ((), ()),
        ((3, 2), ()),
        ((), (2, 4)),
        ((2, 3), (2, 3)),
        ((2,), (1,)),
    ]:
        yield Case(PEER, "matmul", shapes, dtypes=("float32",), refused="matrices")
    plain = [
        ((2, 5), (5, 10)),
        ((5,), (5, 2)),
        ((2, 5), (5,)),
        ((6, 2, 5), (6, 5, 10)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 3)),
        ((1, 2, 5), (1, 5, 10)),
        ((2, 3, 4, 5), (2, 3, 5, 6)),
    ]
    for shapes, dtypes in product(plain, MIXED):
        dtypes = dtypes[:1] if len(set(dtypes)) == 1 else dtypes
        yield Case(PEER, "matmul", shapes, dtypes=dtypes)
    for _ in product(range(12), MIXED):
        yield Case(PEER, "matmul", missing="transa, transb")


def reductions():
    """math_tests/test_sum.py, test_minmax.py and test_average.py."""
    shapes = ((3, 2, 4),)
    for axis, keep, dtypes in product(AXES, KEEP, FLOATS):
        yield Case(PEER, "sum", shapes, {"axis": axis} | keep, dtypes)
    for dtypes in FLOATS:
        yield Case(PEER, "sum", shapes, {"axis": [0]}, dtypes)  # Chainer refuses lists
        for axis in ((1, "x"), (0, 0), (1, -2)):
            yield Case(PEER, "sum", shapes, {"axis": axis}, dtypes, refused="axes")
    for axis, keep in product(AXES, KEEP):
        yield Case(PEER, "max", shapes, {"axis": axis} | keep, ("float32",))
        yield Case(PEER, "min", missing="min")
    yield Case(PEER, "max", ((1,),), {"axis": [0]}, ("float32",))
    for shape, axis in (((1,), (1, "x")), ((1,), (0, 0)), ((3, 2, 4), (1, -2))):
        yield Case(PEER, "max", (shape,), {"axis": axis}, ("float32",), refused="axes")
        yield Case(PEER, "min", missing="min")
    axes = None, 0, 1, 2, -1, (0, 1), (1, -1)
    cases = [(shapes, axis) for axis in axes] + [(((),), None)]
    for (shape, axis), dtypes, keep, weights in product(cases, FLOATS, KEEP, (0, 1)):
        missing = "weights" * weights
        yield Case(PEER, "mean", shape, {"axis": axis} | keep, dtypes, missing=missing)


def indices():
    """array_tests/test_get_item.py."""
    every, last = slice(None), slice(0, 1)
    basic = [
        (every, slice(0, 2), last),
        (every, slice(1, 3), slice(1, 2)),
        (every, slice(1, 3), every),
        (every, slice(1, 3), every),
        (None, every, every, every),
        (every, every, None, every),
        (every, every, every, None),
        (1, -1, 0),
        (1, -1),
        (1, ..., -1),
        (1, None, ..., None, -1),
    ]
    advanced = [
        [],
        ([],),
        ([[]],),
        np.zeros(0, bool),
        (1, [1]),
        ([1], slice(1, 2)),
        [1, 0],
        ([1, 0],),
        np.array([[1, 0], [2, 3]]),
        ([1, 0], [1, 1]),
        ([1, 0], every, [[1, 1], [1, 1]]),
        ([1, 0], slice(1, 2), [0, 0]),
        ([[1, 1], [1, 0]], slice(1, 2), 1),
        np.array([True] * 18 + [False] * 6).reshape(4, 3, 2),
        np.array([True, False, False, True]),
        (every, np.array([True, False, True])),
        np.zeros(4, bool),
        (3, 2, ..., 1),
    ]
    for index, dtypes in product(basic + advanced, FLOATS):
        yield Case(PEER, "getitem", ((4, 3, 2),), {"index": index}, dtypes)
    for index, dtypes in product((np.array(False), np.array(True)), FLOATS):
        yield Case(PEER, "getitem", ((),), {"index": index}, dtypes)
    yield Case(PEER, "getitem", ((4, 3, 2),), {"index": (..., ...)}, refused="index")


def shapes():
    """array_tests/test_reshape.py and test_transpose.py."""
    for shape, dtypes in product([(2, 2, 6), (2, -1, 6)], FLOATS):
        yield Case(PEER, "reshape", ((4, 3, 2),), {"arguments": (shape,)}, dtypes)
    yield Case(PEER, "reshape", ((2, 3),), {"arguments": ((2, 3),)})
    for arguments, dtypes in product([((-1, 0, 1),), (None,)], FLOATS):
        yield Case(PEER, "transpose", ((4, 3, 2),), {"arguments": arguments}, dtypes)


GRIDS = (
    convolution,
    pooling,
    batch_norm,
    cross_entropy,
    broadcasting,
    arithmetic,
    matrices,
    reductions,
    indices,
    shapes,
)
