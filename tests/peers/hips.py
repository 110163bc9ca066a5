"""Parameters of HIPS/autograd's tests, tests/ at commit bff107b.

Left out: what builds arrays out of tensors, or chains operations that are each here themselves.
"""

from itertools import product

import numpy as np

from .cases import Case

PEER = "HIPS/autograd"
KEEP = {"keepdims": True}, {"keepdims": False}
UNARY = (
    "sin abs absolute arccosh arcsinh arctanh ceil cos cosh deg2rad degrees exp2 expm1 fabs floor "
    "log10 log1p log2 rad2deg radians sign sinh sqrt square tan tanh real real_if_close imag conj "
    "conjugate angle"
).split()
BINARY = "logaddexp logaddexp2 remainder mod mod_neg op_mod op_mod_neg arctan2 hypot".split()
COMPLEX = ("complex128",)


def convolution():
    """test_scipy.py: scipy.signal.convolve flips the kernel, so its case is one of ours."""
    images, kernels = ((4, 3), (5, 4), (6, 7)), ((2, 2), (3, 2), (4, 2), (4, 1))
    for image, kernel, mode in product(images, kernels, ("full", "valid", "same")):
        full = tuple(k - 1 for k in kernel)
        padding = {"full": full, "valid": 0, "same": "same"}[mode]
        refused = "same: stride 1, odd kernel" * (mode == "same")
        shapes = (1, 1, *image), (1, 1, *kernel)
        yield Case(PEER, "conv2d", shapes, {"padding": padding}, refused=refused)
    for _ in product((4, 5, 6), (2, 3, 4), ("full", "valid", "same")):
        yield Case(PEER, "conv2d", missing="one axis")
    for _ in product(range(8), ("full", "valid", "same")):
        yield Case(PEER, "conv2d", missing="axes, dot_axes")


def arithmetic():
    """test_binary_ops.py, test_systematic.py, test_ufunc_dispatch.py."""
    pairs = list(product([(), (4,), (3, 4), (1, 4)], repeat=2))
    systematic = list(product([(), (2,), (3, 2), (1, 2)], repeat=2))
    for name, shapes in product(("multiply", "add", "subtract", "divide", "power"), pairs):
        yield Case(PEER, name, shapes)
    for name, shapes in product(("add", "multiply", "add", "subtract"), systematic):
        yield Case(PEER, name, shapes)
    for draw, shapes in product(("positive", "negative"), systematic):
        yield Case(PEER, "divide", shapes, draw=draw)
    real, unreal = [(), (2,), (1, 2)], [(), (3, 2)]
    mixed = [*product(real, unreal), *product(unreal, real), *product(unreal, unreal)]
    for name, shapes in product(("add", "multiply", "add", "subtract"), mixed):
        yield Case(PEER, name, shapes, dtypes=COMPLEX)
    for name in BINARY:
        yield Case(PEER, "other functions", missing=name)
    array = np.array([1.0, 2.0, 3.0])
    for reverse in (False, True):
        yield Case(PEER, "multiply", ((),), {"constant": array, "reverse": reverse})
    yield Case(PEER, "multiply", ((3,),), {"constant": array})
    yield Case(PEER, "multiply", ((3,),), {"constant": 2.0, "reverse": True})


def unary():
    """test_systematic.py, test_scalar_ops.py."""
    for name in ("exp", "log", "negative"):
        for shape in ((), (2,), (3, 2), (1, 2)):
            yield Case(PEER, name, (shape,))
    for name, shape in product(("exp", "log"), ((), (3, 2))):
        yield Case(PEER, name, (shape,), dtypes=COMPLEX)
    for name in UNARY:
        yield Case(PEER, "other functions", missing=name)


def reductions():
    """test_systematic.py, test_numpy.py."""
    for name in ("max", "mean", "sum"):
        for shape in ((), ()):
            yield Case(PEER, name, (shape,))
        for shape, axis, keep in product(((3,), (2, 3), (1, 3)), (None, 0), KEEP):
            yield Case(PEER, name, (shape,), {"axis": axis} | keep)
        for shape, axis, keep in product(((2, 3), (1, 3)), (None, 0, 1), KEEP):
            yield Case(PEER, name, (shape,), {"axis": axis} | keep)
        for shape in ((), (2, 3)):
            yield Case(PEER, name, (shape,), dtypes=COMPLEX)
    for name, shape, options in (
        ("max", (10, 11), {}),
        ("max", (3, 4, 5), {"axis": 1}),
        ("max", (3, 4, 5), {"axis": 1, "keepdims": True}),
        ("sum", (10, 11), {}),
        ("sum", (10, 11), {"axis": 0}),
        ("sum", (10, 11), {"axis": 0, "keepdims": True}),
        ("sum", (10, 11, 7), {"axis": (1, 2)}),
        ("mean", (10, 11), {}),
        ("mean", (10, 11), {"axis": 0}),
        ("mean", (10, 11), {"axis": 0, "keepdims": True}),
    ):
        yield Case(PEER, name, (shape,), options)
    yield Case(PEER, "np.sum", ((5,),), refused="no NumPy function")
    for name in "min prod var std cumsum".split():
        yield Case(PEER, "other functions", missing=name)


def matrices():
    """test_numpy.py, test_systematic.py: `dot` of vectors and matrices is a product of them."""
    for shapes in (
        ((10, 11), (11,)),
        ((10, 11), (11, 10)),
        ((10,), (10, 11)),
        ((11,), (11,)),
        ((1, 2, 2), (3, 2, 1)),
    ):
        yield Case(PEER, "matmul", shapes)
    for shapes in (
        ((10, 11), ()),
        ((), (10, 11)),
        ((10,), ()),
        ((), (10,)),
    ):
        yield Case(PEER, "matmul", shapes, refused="matrices")
    left, right = ((3,), (2, 3), (2, 2, 3)), ((3,), (3, 4), (2, 3, 4))
    for shapes in product(left, right):
        yield Case(PEER, "matmul", shapes)
    unreal, other = ((3,), (2, 3)), ((3,), (3, 4))
    for shapes in [*product(left, other), *product(unreal, right), *product(unreal, other)]:
        yield Case(PEER, "matmul", shapes, dtypes=COMPLEX)
    for name in "inner outer kron tensordot einsum".split():
        yield Case(PEER, "other functions", missing=name)


def indices():
    """test_numpy.py."""
    every = slice(None)
    for shape, index in (
        ((5, 6, 4), (3, 0, 1)),
        ((5, 6, 4), (slice(None, None, -1), slice(2, 4), every)),
        ((5, 6, 4), (slice(None, None, -1), slice(3, 5), every)),
        ((5, 6, 4), ([0, 1, 2], every, every)),
        ((5, 6, 4), (3, slice(2, None), [1, 3])),
        ((5,), slice(2, 4)),
        ((7,), slice(2, 6)),
        ((3,), [0, 0]),
        ((3,), [0, 1, 0]),
        ((4,), slice(None, 2)),
        ((5, 10), (every, slice(None, -1))),
    ):
        yield Case(PEER, "getitem", (shape,), {"index": index})


def shapes():
    """test_numpy.py, test_systematic.py."""
    for arguments in (((20, 6),), (20, 6)):
        yield Case(PEER, "reshape", ((5, 6, 4),), {"arguments": arguments})
    orders = [(None,), (0, 1, 2), (0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0)]
    for axes in orders:
        yield Case(PEER, "transpose", ((2, 3, 4),), {"arguments": axes})
    yield Case(PEER, "transpose", ((8, 8),))
    yield Case(PEER, "astype", ((3,),), {"arguments": ("float64",)}, ("float32",))
    for name in "ravel flatten moveaxis swapaxes rollaxis squeeze expand_dims".split():
        yield Case(PEER, "other functions", missing=name)


GRIDS = convolution, arithmetic, unary, reductions, matrices, indices, shapes
