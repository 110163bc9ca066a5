"""Networks and batches that the tests of plans share."""

import numpy as np

from igcnn import build_network
from igcnn.functional import (
    add,
    avg_pool2d,
    conv2d,
    global_avg_pool2d,
    interleaved_group_conv2d,
    linear,
    max_pool2d,
    permute_channels,
    relu,
    relu6,
)
from igcnn.layers import BatchNorm, Layer

# network, settings, side of the image, batch
CASES = [
    ("resnet_igc", {"depth": 8, "L": 2, "M": 3}, 8, 5),
    ("resnet_igc", {"depth": 14, "L": 4, "M": 2}, 8, 18),
    ("plain_igc", {"depth": 8, "L": 3, "M": 2}, 9, 5),
    ("plain_igc", {"depth": 8, "L": 1, "M": 4}, 8, 2),
    ("plain_igc", {"depth": 8, "L": 4, "M": 1}, 7, 3),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "summation"}, 8, 5),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "four_branch"}, 8, 5),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "identity"}, 8, 5),
    ("resnet", {"depth": 8, "L": 5, "M": 1}, 11, 7),
    ("plain", {"depth": 8, "L": 5, "M": 1}, 8, 1),
    ("plain", {"depth": 5, "L": 16, "M": 1}, 32, 8),  # 19 rows of a channel at a time
    ("plain", {"depth": 5, "L": 16, "M": 1}, 32, 18),  # 8 rows
    ("resnet_imgnet_d18", {"L": 4, "M": 1}, 33, 3),
    ("resnet_igc_imgnet_d18", {"L": 4, "M": 2}, 33, 3),
    ("resnet_igc_imgnet_d18", {"L": 2, "M": 4, "growth": "M"}, 32, 5),
    ("igcv2", {"depth": 8, "width": 12, "factors": "3,4"}, 8, 5),
    ("igcv3", {"width_mult": 0.25, "blocks": "1,2,1,1,1,1,1"}, 9, 5),
]


def batch(images, side=8, dtype="float32"):
    rng = np.random.default_rng(1)
    return rng.standard_normal((images, 3, side, side)).astype(dtype), rng.integers(0, 10, images)


def small_network(**settings):
    settings = {"depth": 8, "L": 4, "M": 2, "num_classes": 10} | settings
    return build_network("resnet_igc", **settings)


class Blocks(Layer):
    """A residual block of another form than those of the paper's networks, after a first layer.

    With `six` it has ReLU6, whose inputs go far beyond 6.
    """

    def __init__(self, projected, six=False):
        super().__init__()
        self.projected = projected
        self.relu = relu6 if six else relu
        rng = np.random.default_rng(3)
        for name, kernel, inputs in (("a", 3, 3), ("b", 3, 4), ("c", 3, 4), ("d", 1, 4)):
            weight = rng.standard_normal((4, inputs, kernel, kernel))
            setattr(self, name, self.add_parameter(name, weight))
        self.v = self.add_parameter("v", rng.standard_normal((10, 4)))
        self.norms = {
            name: self.add_child(f"bn_{name}", BatchNorm(4, dtype="float64")) for name in "abcd"
        }
        for norm in self.norms.values():
            norm.gamma.data *= 9 if six else 1

    def forward(self, x):
        def layer(name, x):
            weight = getattr(self, name)
            return self.norms[name](conv2d(x, weight, padding=weight.shape[2] // 2))

        y = self.relu(layer("a", x))
        if self.projected:  # its gradient comes before that of the branch with two convolutions
            skip = layer("d", y)
            y = self.relu(add(layer("c", self.relu(layer("b", y))), skip))
        else:  # that of the sum comes after that of the only convolution
            y = self.relu(add(layer("b", y), y))
            y = self.relu(layer("c", y))
            y = self.relu(layer("d", y))
        return linear(global_avg_pool2d(y), self.v)


class Entwined(Layer):
    """Sums that share a gradient which one term still reads when another wants to change it."""

    def __init__(self, dtype):
        super().__init__()
        rng = np.random.default_rng(3)
        shapes = {"a": (6, 3, 3, 3), "b": (6, 6, 1, 1), "c": (6, 6, 1, 1), "v": (10, 6)}
        for unit in "uz":
            shapes |= {unit + "1": (6, 2, 3, 3), unit + "2": (6, 3, 1, 1)}
        for name, shape in shapes.items():
            weight = rng.standard_normal(shape).astype(dtype)
            setattr(self, name, self.add_parameter(name, weight))
        self.norms = {
            name: self.add_child(f"bn_{name}", BatchNorm(6, dtype=dtype)) for name in "abcuz"
        }

    def forward(self, images):
        norms = self.norms
        x = relu(norms["a"](conv2d(images, self.a, padding=1)))
        z = interleaved_group_conv2d(x, self.z1, self.z2, L=3, padding=1)
        side = relu(add(norms["b"](conv2d(x, self.b)), x))
        y = relu(add(norms["z"](z), side))  # the gradient of `side` is the one that z's is made of
        u = interleaved_group_conv2d(y, self.u1, self.u2, L=3, padding=1)
        c = conv2d(y, self.c)  # adds to the gradient of y before u has read it
        y = relu(add(norms["u"](u), y))
        return linear(global_avg_pool2d(add(norms["c"](c), y)), self.v)


class Pooled(Layer):
    """Pooling by windows that are not square, padded as far as may be."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.w = self.add_parameter("w", rng.standard_normal((4, 3, 3, 3)))
        self.u = self.add_parameter("u", rng.standard_normal((4, 4, 1, 1)))
        self.v = self.add_parameter("v", rng.standard_normal((10, 4)))
        self.a = self.add_child("a", BatchNorm(4, dtype="float64"))
        self.b = self.add_child("b", BatchNorm(4, dtype="float64"))

    def forward(self, x):
        y = relu(self.a(conv2d(x, self.w, stride=(1, 2), padding=(1, 2))))
        y = max_pool2d(y, (3, 2), (1, 2), (2, 1))
        y = avg_pool2d(y, (2, 3), 1, (1, 2), count_include_pad=False)
        y = relu(self.b(conv2d(avg_pool2d(y, 3, 2, 2), self.u)))
        return linear(global_avg_pool2d(y), self.v)


class Permuted(Layer):
    """Permutations with a convolution before or behind them, Winograd's, or sums."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        shapes = {"a": (16, 3, 1, 1), "b": (16, 16, 3, 3), "c": (16, 16, 3, 3)}
        shapes |= {"d": (16, 1, 3, 3), "e": (16, 4, 1, 1), "f": (16, 2, 1, 1), "v": (10, 16)}
        shapes |= {"g": (16, 2, 1, 1), "h": (16, 4, 1, 1)}
        for name, shape in shapes.items():
            weight = rng.standard_normal(shape)
            setattr(self, name, self.add_parameter(name, weight))
        self.norm = self.add_child("norm", BatchNorm(16, dtype="float64"))

    def forward(self, x):
        y = permute_channels(self.norm(conv2d(x, self.a)), 2)  # what it reads is never stored
        y = permute_channels(conv2d(y, self.b, padding=1), 4)
        y = permute_channels(conv2d(y, self.c, padding=1), 8)
        y = add(conv2d(y, self.d, padding=1, groups=16), conv2d(y, self.e, groups=4))
        y = permute_channels(y, 2)
        z = permute_channels(permute_channels(conv2d(y, self.f, groups=8), 8), 2)
        z = conv2d(add(z, y), self.g, groups=8)  # read by others too
        y = conv2d(z, self.h, groups=4)
        return linear(global_avg_pool2d(add(y, permute_channels(z, 8))), self.v)


class Crossed(Layer):
    """A sum adds the last part of a gradient; a batch norm is not all that reads a convolution."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        for name, inputs in (("a", 3), ("b", 4), ("c", 4)):
            weight = rng.standard_normal((4, inputs, 3, 3))
            setattr(self, name, self.add_parameter(name, weight))
        self.v = self.add_parameter("v", rng.standard_normal((10, 4)))
        self.norms = {
            name: self.add_child(f"bn_{name}", BatchNorm(4, dtype="float64")) for name in "abc"
        }

    def forward(self, images):
        x = relu(self.norms["a"](conv2d(images, self.a, padding=1)))
        y = relu(self.norms["b"](conv2d(x, self.b, padding=1)))
        side = relu(add(y, x))
        z = conv2d(y, self.c, padding=1)  # after the sum, so that its gradient comes before
        normed = self.norms["c"](z)  # read by a sum and by ReLU
        z = relu(add(normed, z))
        y = relu(add(relu(normed), side))
        return linear(global_avg_pool2d(add(z, y)), self.v)


class Biased(Layer):
    """A network with an operation that plans do not know."""

    def __init__(self):
        super().__init__()
        self.w = self.add_parameter("w", np.ones((2, 3, 3, 3)))
        self.b = self.add_parameter("b", np.ones(2))
        self.v = self.add_parameter("v", np.ones((4, 2)))
        self.u = self.add_parameter("u", np.ones((4, 3)))

    def forward(self, x):
        return linear(global_avg_pool2d(conv2d(x, self.w, self.b)), self.v)


class Squared(Biased):
    def forward(self, x):
        return linear(global_avg_pool2d(x * x), self.u)


class Summed(Biased):
    def __init__(self):
        super().__init__()
        self.norm = self.add_child("norm", BatchNorm(3, dtype="float64"))

    def forward(self, x):
        return linear(global_avg_pool2d(self.norm(x) + x), self.u)
