"""Small networks with weights and statistics that make every layer count."""

import numpy as np

from igcnn import build_network, no_grad
from igcnn.autograd import Tensor
from igcnn.functional import avg_pool2d, conv2d
from igcnn.layers import BatchNorm, Convolution, Layer, Linear, in_mode
from igcnn.training import Preprocessing

SMALL = {
    "plain": {"depth": 8, "L": 4, "M": 2},
    "resnet": {"depth": 8, "L": 4, "M": 2},
    "plain_igc": {"depth": 8, "L": 4, "M": 2},
    "resnet_igc": {"depth": 8, "L": 4, "M": 2},
    "resnet_imgnet_d18": {"L": 4, "M": 1, "num_classes": 7},
    "resnet_igc_imgnet_d18": {"L": 6, "M": 2, "num_classes": 7},
    "igcv2": {"depth": 5, "width": 12, "factors": "3,4"},
    "igcv3": {"width_mult": 0.25, "blocks": "1,2,1,1,1,1,1"},
    "merge_and_run": {"depth": 8},
}
FUSIONS = "summation", "identity", "four_branch"  # of plain_igc: weights that are not trained
PREPROCESSING = Preprocessing(
    "cifar10", tuple("abcdefghij"), (1.5, 2.5, 3.5), (61.0, 62.0, 63.0), 32, "square"
)


class Own(Layer):
    """What no network of the registry has: biases, shared and scaled layers, arithmetic."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = Convolution(3, 6, 3, padding=1, rng=rng)
        self.bias = Tensor(np.linspace(-1, 1, 6, dtype=np.float32), requires_grad=True)
        self.shared = Convolution(6, 6, (1, 3), padding="same", groups=2, rng=rng)
        self.bn = BatchNorm(6)
        self.scale = Tensor(np.full((1, 6, 1, 1), 1.5, np.float32), requires_grad=True)
        self.fc = Linear(6 * 4 * 4, 5, rng=rng)

    def forward(self, x):
        x = conv2d(x, self.first.weight, self.bias, padding=1)
        y = self.shared(self.bn(self.shared(x)))
        x = (x * self.scale - y) / 2 + (y * 0.1).exp()
        x = x * x.mean(axis=(2, 3), keepdims=True)
        x = avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return self.fc(x.reshape(len(x.data), -1))


def image_shape(net):
    return (3, 64, 64) if "imgnet" in net else (3, 32, 32)


def sample(net, **settings):
    """Return a network whose batch norms are not the identity."""
    return shaken(build_network(net, **(SMALL[net] | settings)))


def shaken(network):
    """Give every array a random part, and return the network."""
    rng = np.random.default_rng(7)
    state = {}
    for name, array in network.state_dict().items():
        if name.endswith(("gamma", "moving_var")):
            state[name] = rng.uniform(0.5, 1.5, array.shape)
        else:
            state[name] = array + 0.1 * rng.standard_normal(array.shape)
    network.load_state_dict(state)
    return network


def images(shape, count=3):
    return np.random.default_rng(8).standard_normal((count, *shape)).astype(np.float32)


def logits(network, x):
    with in_mode(network, False), no_grad():
        return network(x).numpy()


def difference(a, b):
    """The largest difference, relative to the largest number."""
    return abs(a - b).max() / abs(b).max()


def equal_bits(a, b):
    """Whether two states have the same names, types, shapes and bits."""
    return list(a) == list(b) and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes())
        for n in a
    )
