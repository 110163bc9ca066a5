"""Networks of the engine's operations, described by data that repr writes as Python.

A description fails, if it fails, in three lines:

    from random_networks.compare import compare
    from random_networks.network import Description
    compare(Description(…))
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from igcnn import functional as F
from igcnn.layers import BatchNorm, Layer

Shape = tuple[int, int, int]
Step = tuple[str, tuple[int, ...], dict[str, Any]]  # operation, numbers of its inputs, options


@dataclass(frozen=True)
class Description:
    """A network and a batch.

    Args:
        images: N.
        shape: of an image, (C, H, W), which is value 0.
        steps: step k gives value k + 1.
        heads: numbers of the values that classifiers read; their logits are added.
        bias: whether classifiers have one.
    """

    images: int
    shape: Shape
    steps: tuple[Step, ...]
    heads: tuple[int, ...]
    bias: bool = True

    def live(self):
        """Return the numbers of the steps that the logits depend on."""
        needed = set(self.heads)
        for k in reversed(range(len(self.steps))):
            if k + 1 in needed:
                needed.update(self.steps[k][1])
        return [k for k in range(len(self.steps)) if k + 1 in needed]


CLASSES = 4


class RandomNetwork(Layer):
    """A network as described, in float64, whose weights depend on the description alone."""

    def __init__(self, description):
        super().__init__()
        self.description = description
        rng = np.random.default_rng(7)
        shapes = shapes_of(description)
        for k in description.live():
            op, (x, *_), options = description.steps[k]
            for name, shape in weights_of(op, shapes[x], options).items():
                fan_in = int(np.prod(shape[1:]))
                self.add_parameter(f"{name}{k}", rng.standard_normal(shape) / fan_in**0.5)
            if op == "batch_norm":
                norm = self.add_child(f"norm{k}", BatchNorm(shapes[x][0], dtype="float64"))
                for tensor in (norm.gamma, norm.beta):
                    tensor.data += 0.3 * rng.standard_normal(tensor.shape)
        for k, x in enumerate(description.heads):
            self.add_parameter(f"head{k}", rng.standard_normal((CLASSES, shapes[x][0])))
            if description.bias:
                self.add_parameter(f"bias{k}", rng.standard_normal(CLASSES))

    def forward(self, x):
        own = dict(self.named_parameters())
        values = {0: x}
        for k in self.description.live():
            op, inputs, options = self.description.steps[k]
            arguments = [values[i] for i in inputs]
            if op == "batch_norm":
                values[k + 1] = self.children()[f"norm{k}"](*arguments)
                continue
            weights = [own[f"{name}{k}"] for name in ("w", "v", "b") if f"{name}{k}" in own]
            values[k + 1] = OPERATIONS[op](*arguments, *weights, **options)
        logits = None
        for k, i in enumerate(self.description.heads):
            weights = own[f"head{k}"], own.get(f"bias{k}")
            one = F.linear(F.global_avg_pool2d(values[i]), *weights)
            logits = one if logits is None else logits + one
        return logits


def conv(x, w, D, kernel, **options):
    return F.conv2d(x, w, **options)


def conv_bias(x, w, b, D, kernel, **options):
    return F.conv2d(x, w, b, **options)


def igc(x, w, v, D, kernel, S, **options):
    return F.interleaved_group_conv2d(x, w, v, secondary_groups=S, **options)


def three(a, b, c):
    return F.add(F.add(a, b), c)


OPERATIONS = {
    "conv": conv,
    "conv_bias": conv_bias,
    "igc": igc,
    "relu": F.relu,
    "relu6": F.relu6,
    "add": F.add,
    "three": three,
    "plus": lambda a, b: a + b,
    "times": lambda a, b: a * b,
    "max_pool": F.max_pool2d,
    "avg_pool": F.avg_pool2d,
    "permute": F.permute_channels,
}


def weights_of(op, shape, options):
    """Return the shapes of the weights of a step on a value of a shape, by name."""
    if op not in ("conv", "conv_bias", "igc"):
        return {}
    D = options["D"]
    groups = options.get("groups") or options["L"]
    shapes = {"w": (D, shape[0] // groups, *options["kernel"])}
    if op == "igc":
        shapes["v"] = (D, D // options["S"], 1, 1)
    if op == "conv_bias":
        shapes["b"] = (D,)
    return shapes


def shape_after(op, shape, options):
    """Return the shape of a step's result."""
    kernel = options.get("kernel") or options.get("kernel_size")
    if not kernel:
        return shape
    geometry = zip(shape[1:], kernel, options["stride"], options["padding"], strict=True)
    sizes = ((n + 2 * p - k) // s + 1 for n, k, s, p in geometry)
    return options.get("D", shape[0]), *sizes


def shapes_of(description):
    """Return the shape of every value."""
    shapes = [description.shape]
    for op, (x, *_), options in description.steps:
        shapes.append(shape_after(op, shapes[x], options))
    return shapes
