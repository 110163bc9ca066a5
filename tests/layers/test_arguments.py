"""What every operation and layer takes: numbers, element types, devices."""

import numpy as np
import pytest

from igcnn import Tensor
from igcnn import functional as F
from igcnn.backend import to_device
from igcnn.errors import ConfigError, DeviceError, DtypeError, ShapeError
from igcnn.layers import BatchNorm, Convolution, InterleavedGroupConvolution, Linear, MaxPool
from igcnn.networks import build_network

X, W, PRIMARY, SECONDARY = (1, 4, 6, 6), (4, 2, 3, 3), (4, 2, 3, 3), (4, 2, 1, 1)
NO_COUNT = [0, -1, np.int64(-3), 2.0, np.float32(2), True, np.True_, "2", (1,), 1j, 10**30]
NO_PAIR = [
    -1,
    np.int64(-3),
    1.0,
    np.float32(1),
    True,
    None,
    "valid",
    "SAME",
    (),
    (1,),
    (1, 1, 1),
    (0, 1, 0, 1),
    [1, 1, 1, 1],
    (1.0, 1),
    (True, 1),
    (1, -1),
    [[1, 1]],
    {1: 1},
    np.array([1, 1]),
    10**30,
]


def tensor(shape, dtype="float32", device="cpu"):
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return Tensor(to_device(array, device))


def layer(kind, *arguments, **settings):
    return kind(*arguments, rng=np.random.default_rng(0), **settings)


x, w, primary, secondary = map(tensor, (X, W, PRIMARY, SECONDARY))
units = [F.interleaved_group_conv2d, F.interleaved_group_conv2d_steps]
# name of what is given a pair: function of it
PAIRS = {
    "stride": [
        lambda v: F.conv2d(x, w, stride=v, groups=2),
        *(lambda v, f=f: f(x, primary, secondary, stride=v) for f in units),
        lambda v: layer(Convolution, 4, 4, 3, stride=v),
        lambda v: layer(InterleavedGroupConvolution, 4, 4, 2, stride=v),
        lambda v: MaxPool(2, v, 0),
    ],
    "padding": [
        lambda v: F.conv2d(x, w, padding=v, groups=2),
        *(lambda v, f=f: f(x, primary, secondary, padding=v) for f in units),
        lambda v: layer(Convolution, 4, 4, 3, padding=v),
        lambda v: F.max_pool2d(x, 3, 1, v),
        lambda v: F.avg_pool2d(x, 3, 1, v),
        lambda v: MaxPool(3, 1, v),
    ],
    "kernel_size": [
        lambda v: F.max_pool2d(x, v),
        lambda v: F.avg_pool2d(x, v),
        lambda v: MaxPool(v, 1, 0),
        lambda v: layer(Convolution, 4, 4, v),
        lambda v: layer(InterleavedGroupConvolution, 4, 4, 2, kernel_size=v),
    ],
}
COUNTS = {
    "groups": [
        lambda v: F.conv2d(x, w, groups=v),
        lambda v: layer(Convolution, 4, 4, 3, groups=v),
    ],
    "L": [
        *(lambda v, f=f: f(x, primary, secondary, L=v) for f in units),
        lambda v: layer(InterleavedGroupConvolution, 4, 4, v),
    ],
    "secondary_groups": [
        *(lambda v, f=f: f(x, primary, secondary, secondary_groups=v) for f in units),
        lambda v: layer(InterleavedGroupConvolution, 4, 4, 2, v),
    ],
    "branches": [lambda v: F.permute_channels(x, v)],
    "in_channels": [
        lambda v: layer(Convolution, v, 4, 3),
        lambda v: layer(InterleavedGroupConvolution, v, 4, 2),
    ],
    "out_channels": [
        lambda v: layer(Convolution, 4, v, 3),
        lambda v: layer(InterleavedGroupConvolution, 4, v, 2),
    ],
    "in_features": [lambda v: layer(Linear, v, 4)],
    "out_features": [lambda v: layer(Linear, 4, v)],
    "channels": [BatchNorm],
}


def every(table):
    return [
        pytest.param(name, f, id=f"{name}{i}") for name in table for i, f in enumerate(table[name])
    ]


@pytest.mark.parametrize("value", NO_PAIR, ids=repr)
@pytest.mark.parametrize(("name", "function"), every(PAIRS))
def test_what_is_no_pair_is_refused(name, function, value):
    with pytest.raises(ShapeError, match=rf"^\w+: {name} (must|is)[^\n]*, not [^\n]*$"):
        function(value)


@pytest.mark.parametrize("value", [0, (0, 1), [1, 0]])
@pytest.mark.parametrize(
    ("name", "function"), every({n: PAIRS[n] for n in ("stride", "kernel_size")})
)
def test_zero_is_no_stride_and_no_kernel(name, function, value):
    with pytest.raises(ShapeError, match=f"{name} must be an integer ≥ 1 .* not"):
        function(value)


@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
@pytest.mark.parametrize(("name", "function"), every(COUNTS))
def test_what_is_no_count_is_refused(name, function, value):
    with pytest.raises(ShapeError, match=rf"^\w+: {name} must be an integer ≥ 1 [^\n]*$"):
        function(value)


@pytest.mark.parametrize("one", [np.int64, np.uint8, lambda v: (v, v), lambda v: [v, np.int32(v)]])
def test_numbers_of_numpy_tuples_and_lists_are_taken(one):
    for name, functions in PAIRS.items():
        value = {"stride": 2, "padding": 1, "kernel_size": 3}[name]
        for function in functions:
            expected, got = function(value), function(one(value))
            if isinstance(expected, Tensor):
                np.testing.assert_array_equal(got.data, expected.data)
            else:
                assert repr(got) == repr(expected)
    if not isinstance(one(1), list | tuple):
        for functions in COUNTS.values():
            for function in functions:
                function(one(2))


def test_sides_may_differ():
    wide = tensor((4, 2, 1, 3))
    assert F.conv2d(x, wide, stride=(1, 2), padding=(0, 1), groups=2).shape == (1, 4, 6, 3)
    assert F.max_pool2d(x, (2, 3), (1, 2), (1, 0)).shape == (1, 4, 7, 2)
    assert F.avg_pool2d(x, [2, 3]).shape == (1, 4, 3, 2)
    convolution = layer(Convolution, 4, 4, (1, 3), (1, 2), (0, 1), 2)
    assert convolution(x).shape == (1, 4, 6, 3)
    assert repr(convolution) == "Convolution(4 -> 4, 1×3, stride=(1, 2), padding=(0, 1), groups=2)"
    unit = layer(InterleavedGroupConvolution, 4, 4, 2, kernel_size=(1, 3), stride=(2, 1))
    assert unit(x).shape == (1, 4, 3, 6)
    assert repr(MaxPool((2, 3), 1, (1, 0))) == "MaxPool((2, 3), stride=1, padding=(1, 0))"


def test_same_padding_keeps_the_size_of_the_image():
    for kernel in ((3, 3), (1, 5)):
        weight = tensor((4, 2, *kernel))
        expected = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=2)
        got = F.conv2d(x, weight, padding="same", groups=2)
        np.testing.assert_array_equal(got.data, expected.data)
        assert layer(Convolution, 4, 4, kernel, padding="same")(x).shape == X
    assert F.interleaved_group_conv2d(x, primary, secondary, padding="same").shape == X
    assert F.max_pool2d(x, 3, 1, "same").shape == X
    for kernel, stride in ((2, 1), (3, 2), ((3, 2), 1)):
        with pytest.raises(ShapeError, match='"same" for stride 1 and odd kernels, not'):
            layer(Convolution, 4, 4, kernel, stride, "same")


@pytest.mark.parametrize("rng", [0, None, np.random, np.random.RandomState(0)])
def test_a_seed_is_no_generator(rng):
    for make in (
        lambda: Convolution(4, 4, 3, rng=rng),
        lambda: Linear(4, 4, rng=rng),
        lambda: InterleavedGroupConvolution(4, 4, 2, rng=rng),
    ):
        with pytest.raises(ConfigError, match=r"generator, not \w+; give np.random.default_rng"):
            make()


C = (4,)
# operation: function of its arrays, and their shapes
OPERATIONS = {
    "conv2d": (lambda *a: F.conv2d(*a, groups=2), X, W, C),
    "unit": (F.interleaved_group_conv2d, X, PRIMARY, SECONDARY),
    "steps": (F.interleaved_group_conv2d_steps, X, PRIMARY, SECONDARY),
    "product": (lambda x, *w: F.interleaved_product(x, w, (2, 2)), X, PRIMARY, SECONDARY),
    "linear": (F.linear, (2, 3), (4, 3), C),
    "add": (F.add, (2, 3), (2, 3)),
    "relu": (F.relu, (2, 3)),
    "relu6": (F.relu6, (2, 3)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 2, 1), X),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), X),
    "global_avg_pool2d": (F.global_avg_pool2d, X),
    "permute_channels": (lambda x: F.permute_channels(x, 2), X),
    "cross_entropy": (lambda z: F.cross_entropy(z, [0, 1]), (2, 3)),
    "training": (lambda *a: F.batch_norm(*a, True), X, C, C, C, C),
    "evaluation": (lambda *a: F.batch_norm(*a, False), X, C, C, C, C),
}


@pytest.mark.parametrize("device", ["cpu", "emu"])
@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8", "float16", "bool"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_one_element_type_for_all_arguments(name, dtype, device):
    function, *shapes = OPERATIONS[name]
    for k in range(len(shapes)):
        if len(shapes) == 1 and dtype == "float64":
            continue
        tensors = [tensor(shape, device=device) for shape in shapes]
        tensors[k] = Tensor(to_device(np.ones(shapes[k], dtype), device))
        with pytest.raises(
            DtypeError, match=rf"must all be float32 or all float64, not .*{dtype}"
        ):
            function(*tensors)


@pytest.mark.parametrize("name", [n for n, (_, *shapes) in OPERATIONS.items() if len(shapes) > 1])
def test_one_device_for_all_arguments(name):
    function, *shapes = OPERATIONS[name]
    for k in range(len(shapes)):
        tensors = [
            tensor(shape, device="emu" if i == k else "cpu") for i, shape in enumerate(shapes)
        ]
        with pytest.raises(DeviceError, match="cpu and emu"):
            function(*tensors)


@pytest.mark.parametrize("net", ["resnet_igc", "plain_igc", "resnet"])
def test_images_with_their_channels_last_are_told_from_others(net):
    settings = {} if net == "resnet" else {"L": 4, "M": 2}
    network = build_network(net, depth=8, **settings)
    with pytest.raises(
        ShapeError, match=r"\(1, 16, 16, 3\) looks like \(N, H, W, C\): use images"
    ):
        network(np.zeros((1, 16, 16, 3), np.float32))
    with pytest.raises(ShapeError, match=r"of one image make a batch with x\[None\]"):
        network(np.zeros((3, 16, 16), np.float32))
    with pytest.raises(DtypeError, match="not float32, uint8"):
        network(np.zeros((1, 3, 16, 16), np.uint8))
    with pytest.raises(ShapeError, match=r"\(1, 6, 6, 4\) looks like"):
        F.interleaved_group_conv2d(tensor((1, 6, 6, 4)), primary, secondary, L=2)


def test_features_are_no_images():
    for function in (
        lambda x: F.permute_channels(x, 2),
        lambda x: F.max_pool2d(x, 1),
        lambda x: F.avg_pool2d(x, 1),
        F.global_avg_pool2d,
        lambda x: F.conv2d(x, w),
    ):
        with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\).* not \(1, 6\)"):
            function(tensor((1, 6)))


@pytest.mark.parametrize("name", F.__all__)
def test_every_docstring_tells_shapes_element_types_and_errors(name):
    text = " ".join(getattr(F, name).__doc__.split())
    of_any_shape = ("N, ", "ShapeError:") if name in ("add", "relu", "relu6", "exp", "log") else ()
    for words in ("float32 or", "float64", "Raises:", "DtypeError:", "N, ", "ShapeError:"):
        assert words in text or words in of_any_shape, words
