"""Parameters of MyGrad's tests, tests/ at commit 6971309.

MyGrad draws most of its parameters at random (Hypothesis). Here they are drawn from the same
ranges, with a fixed seed. Its operations take images with one, two or three axes; only those with
two are drawn.
"""

from itertools import permutations, product

import numpy as np

from .cases import Case

PEER = "MyGrad"
DRAWS = 60
UNARY = (
    "abs absolute arccos arccosh arcsin arcsinh arctan arctanh cos cosh cbrt exp2 expm1 log10 "
    "log1p log2 positive reciprocal sin sinh square sqrt tan tanh"
).split()
BINARY = "arctan2 logaddexp logaddexp2 maximum minimum".split()


def _shape(rng, axes, most, least=1):
    return tuple(int(n) for n in rng.integers(least, most + 1, rng.integers(axes[0], axes[1] + 1)))


def convolution():
    """nnet/layers/test_conv.py."""
    x, images = (1, 2, 2, 2), "(N, C, H, W)"
    yield Case(PEER, "conv2d", ((2, 2), (2, 2, 2, 2)), refused=images)
    yield Case(PEER, "conv2d", ((2, 2, 3, 3), (2, 2, 2)), refused=images)
    yield Case(PEER, "conv2d", ((1, 1, 4), (1, 1, 2)), {"stride": 2}, refused=images)
    yield Case(PEER, "conv2d", (x, (1, 3, 2, 2)), refused="channels and groups")
    yield Case(PEER, "conv2d", (x, (1, 2, 3, 2)), refused="window in image")
    for options in (
        {"stride": 0},
        {"stride": [1, 2, 3]},
        {"padding": -1},
        {"padding": [1, 2, 3]},
    ):
        yield Case(PEER, "conv2d", (x, (1, 2, 2, 2)), options, refused="two whole numbers")
    # MyGrad refuses a stride that leaves pixels over; here they are left over
    yield Case(PEER, "conv2d", (x, (1, 2, 2, 2)), {"stride": 3, "padding": 1})
    yield Case(PEER, "conv2d", ((1, 1, 3, 4), (1, 1, 2, 2)), {"stride": (1, 2)})
    for padding in [1, 2, 3, *product((1, 2, 3), repeat=2)]:
        p, q = (padding, padding) if isinstance(padding, int) else padding
        shapes = (1, 1, 0, 0), (1, 1, 2 * p, 2 * q)
        yield Case(PEER, "conv2d", shapes, {"padding": padding})
    for _ in range(2):  # one axis, forward and backward
        yield Case(PEER, "conv2d", ((4, 5, 7), (2, 5, 3)), refused=images)
    rng = np.random.default_rng(0)
    for most in (10, 6):
        for _ in range(DRAWS):
            filters, batch, channels, H, W = rng.integers(
                1, (4, 4, 4, most + 1, most + 1)
            ).tolist()
            padding = rng.integers(0, 3, 2).tolist()
            padded = np.array([H, W]) + 2 * np.array(padding)
            kernel = rng.integers(1, padded + 1).tolist()
            stride = rng.integers(1, padded + 1).tolist()
            dilation = rng.integers(1, padded // kernel + 1)
            shapes = (batch, channels, H, W), (filters, channels, *kernel)
            options = {"stride": tuple(stride), "padding": tuple(padding)}
            missing = "dilation" * bool(dilation.max() > 1)
            yield Case(PEER, "conv2d", shapes, options, missing=missing)


def pooling():
    """nnet/layers/test_maxpool.py."""
    whole = "two whole numbers"
    x = ((1, 2, 4, 6),)
    for dtype in ("float32", "float64"):
        options = {"kernel_size": (2, 3), "stride": (2, 1)}
        yield Case(PEER, "max_pool2d", x, options, (dtype,))
    for kernel, stride in (((3,), (1,)), ((2, 2, 2), (1, 1, 2))):
        options = {"kernel_size": kernel, "stride": stride}
        yield Case(PEER, "max_pool2d", x, options, ("float32",), refused=whole)
    for kernel, stride in (
        ((3, 3, 3), (1, 1, 1)),
        ((2, 2, 2), (0, 0, 0)),
        ((2, 2), [1, 2, 3]),
        ((1, 1, 1), (3, 3, 3)),
    ):
        options = {"kernel_size": kernel, "stride": stride}
        yield Case(PEER, "max_pool2d", ((1, 2, 2, 2),), options, ("float32",), refused=whole)


def batch_norm():
    """nnet/layers/test_batchnorm.py."""
    rng = np.random.default_rng(1)
    for _ in range(DRAWS):
        x = _shape(rng, (2, 4), 6)
        shapes = x, x[1:2], x[1:2]
        eps = float(10 ** rng.uniform(-10, 0))
        missing = ("gamma=None", "beta=None", "", "")[rng.integers(4)]
        refused = "(N, C, H, W)" * (len(x) < 4)
        if np.prod(x) == x[1]:  # one number a channel: its variance is 0, its slope 1/√ε
            eps = 1.0
        options = {"eps": eps}
        yield Case(PEER, "batch_norm", shapes, options, refused=refused, missing=missing)


def cross_entropy():
    """nnet/losses/test_softmaxcrossentropy.py."""
    rng = np.random.default_rng(2)
    for number in range(DRAWS):
        N, K = rng.integers(1, 7, 2)
        labels = rng.integers(0, K, N)
        options = {"labels": labels.tolist() if number % 2 else labels}
        yield Case(PEER, "cross_entropy", ((int(N), int(K)),), options)
    for shape, labels, rule in (
        ((2,), np.zeros(2, int), "logits (N, K)"),
        ((2, 1), np.zeros(2), "labels are integers"),
        ((2, 1), np.zeros((2, 1), int), "labels (N,)"),
        ((2, 1), np.zeros(3, int), "labels (N,)"),
        ((3, 4), np.zeros((3, 1), int), "labels (N,)"),
        ((3, 4), np.zeros((3, 4), int), "labels (N,)"),
        ((3, 4), np.zeros((), int), "labels (N,)"),
        ((3, 4), np.zeros(3, bool), "labels are integers"),
        ((3, 4), np.zeros(3), "labels are integers"),
        ((3, 4), np.zeros(3, np.float32), "labels are integers"),
    ):
        yield Case(PEER, "cross_entropy", (shape,), {"labels": labels}, refused=rule)


def broadcasting():
    """math/binary/test_binary_funcs.py, ufuncs/test_fwd_prop_and_backprop.py."""
    rng = np.random.default_rng(3)
    for name, _ in product(("add", "subtract", "multiply", "divide", "power"), range(DRAWS)):
        whole = _shape(rng, (0, 4), 4, 0)
        shapes = []
        for _ in range(2):
            part = whole[rng.integers(0, len(whole) + 1) :]
            shapes.append(tuple(1 if rng.random() < 0.3 else n for n in part))
        yield Case(PEER, name, tuple(shapes))
    for shape in ((), (0,), (3,), (2, 0, 3), (2, 3)):
        yield Case(PEER, "power", (shape,), {"constant": 0}, draw="whole")
        yield Case(PEER, "power", (shape,), {"constant": 0, "reverse": True})
        for exponent in (1, 1.0, np.array(1.0), 2, 2.0, np.array(2.0)):
            yield Case(PEER, "power", (shape,), {"constant": exponent}, draw="whole")
    for name in "iadd isub imul itruediv ipow".split():
        yield Case(PEER, "in place", missing=name)


def unary():
    """ufuncs/test_fwd_prop_and_backprop.py."""
    rng = np.random.default_rng(4)
    for name, _ in product(("negative", "exp", "log"), range(DRAWS // 3)):
        yield Case(PEER, name, (_shape(rng, (0, 4), 5, 0),))
    for name in UNARY + BINARY:
        yield Case(PEER, "other functions", missing=name)


def reductions():
    """math/sequence/test_sequential_funcs.py."""
    for shape in ((), (3,), (1, 4), (3, 2), (2, 1, 3), (2, 3, 2, 2)):
        axes = [None, (), *range(-len(shape), len(shape))]
        axes += [pair for pair in permutations(range(len(shape)), 2)]
        axes += [tuple(range(len(shape)))] * (len(shape) > 2)
        for name, axis, keep in product(("sum", "mean", "max"), axes, (True, False)):
            yield Case(PEER, name, (shape,), {"axis": axis, "keepdims": keep})
    for name in "min prod var std cumsum cumprod add_sequence multiply_sequence".split():
        yield Case(PEER, "other functions", missing=name)


def matrices():
    """linalg/test_matmul.py."""
    rng = np.random.default_rng(5)
    for _ in range(2 * DRAWS):
        n, k, m = rng.integers(1, 5, 3).tolist()
        stack = _shape(rng, (0, 2), 4)
        shapes = []
        for matrix in ((n, k), (k, m)):
            part = stack[rng.integers(0, len(stack) + 1) :]
            shapes.append((*(1 if rng.random() < 0.3 else s for s in part), *matrix))
        if rng.random() < 0.3:
            shapes[0] = (k,)
        if rng.random() < 0.3:
            shapes[1] = (k,)
        yield Case(PEER, "matmul", tuple(shapes))


def indices():
    """tensor_ops/test_getitem.py."""
    rows, columns = np.array([0, 3]), np.array([0, 2])
    some = np.array([False, True, False, True])
    for shape, index in (
        ((3,), ...),
        ((0,), []),
        ((), None),
        ((), (...,)),
        ((4, 3), np.ix_(rows, columns)),
        ((3, 2, 4, 3), (..., 2, 0)),
        ((4, 3), np.ix_(some, [0, 2])),
        ((4, 3), (slice(1, 2), [1, 2])),
    ):
        yield Case(PEER, "getitem", (shape,), {"index": index})
    rng = np.random.default_rng(6)
    for _ in range(DRAWS):
        shape = _shape(rng, (0, 4), 6, 0)
        yield Case(PEER, "getitem", (shape,), {"index": _basic_index(rng, shape)})
        shape = _shape(rng, (1, 4), 6)
        some = rng.random(shape) < 0.5
        yield Case(PEER, "getitem", (shape,), {"index": some})
        number = rng.integers(1, len(shape) + 1)
        like = _shape(rng, (1, 2), 3)
        index = tuple(rng.integers(-n, n, like) for n in shape[:number])
        yield Case(PEER, "getitem", (shape,), {"index": index})


def _basic_index(rng, shape):
    """Numbers, slices, None and one ellipsis."""
    index = []
    for n in shape[: rng.integers(0, len(shape) + 1)]:
        begin, end = sorted(rng.integers(-n - 1, n + 2, 2).tolist())
        step = int(rng.choice([-2, -1, 1, 2]))
        index.append(
            int(rng.integers(-n, n)) if n and rng.random() < 0.3 else slice(begin, end, step)
        )
    for extra in (None, ...):
        if rng.random() < 0.4:
            index.insert(rng.integers(0, len(index) + 1) if extra is None else len(index), extra)
    return tuple(index)


def shapes():
    """tensor_ops/test_reshape.py, test_tensor_manip.py."""
    for shape, new in (
        ((), (1,)),
        ((1,), ()),
        ((6,), (2, 3)),
        ((2, 3), (6,)),
        ((2, 3), (3, 2)),
        ((2, 3), (1, 6, 1)),
        ((4, 3, 2), (2, 3, 4)),
        ((0, 3), (3, 0)),
    ):
        yield Case(PEER, "reshape", (shape,), {"arguments": (new,)})
        yield Case(PEER, "reshape", (shape,), {"arguments": new or ((),)})
        yield Case(PEER, "reshape", (shape,), missing="x.shape = …")
    for arguments in ((), ((2,), 2), (2, (2,)), ((2, (2,)),)):
        options = {"arguments": arguments}
        yield Case(PEER, "reshape", ((2,),), options, refused="elements fit")
    for axes in permutations(range(3)):
        yield Case(PEER, "transpose", ((2, 3, 4),), {"arguments": (axes,)})
        yield Case(PEER, "transpose", ((2, 3, 4),), {"arguments": axes})
    yield Case(PEER, "transpose", ((2, 3, 4),))
    yield Case(PEER, "transpose", ((1, 2),), {"arguments": ((0,), 1)}, refused="axes")
    rng = np.random.default_rng(7)
    for _ in range(DRAWS // 2):
        shape = _shape(rng, (1, 5), 4)
        axes = tuple(
            int(a) - len(shape) * int(rng.integers(2)) for a in rng.permutation(len(shape))
        )
        yield Case(PEER, "transpose", (shape,), {"arguments": (axes,)})


GRIDS = (
    convolution,
    pooling,
    batch_norm,
    cross_entropy,
    broadcasting,
    unary,
    reductions,
    matrices,
    indices,
    shapes,
)
