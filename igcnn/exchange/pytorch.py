"""PyTorch: a state_dict, and the source of a module that loads it. The only user of torch."""

from __future__ import annotations

import io
import itertools
import keyword
import pprint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import CheckpointError, ConfigError
from ..layers import Layer
from ..networks import Network
from ..training import Preprocessing
from ..version import __version__
from .graph import INPUT, InferenceGraph, Node, read_graph
from .names import PARTS, pytorch_names

Array = np.ndarray
Shape = tuple[int, ...]

WIDTH = 99  # columns of the source
VARIABLES = "x", "y", "z"  # of forward; where more are needed at once, x3, x4, …
NESTED = ("batch_norm", "relu", "relu6", "permutation")  # written around what they are applied to
OPERATORS = {"add": "+", "multiply": "*", "divide": "/", "power": "**"}

SOURCE = '''\
"""A network of igcnn {version} in plain PyTorch: {classes} classes, images of shape {shape}.

    from {module} import {imports}

    network = load("{module}.pt")
    logits = network({example})
"""

import torch
import torch.nn.functional as F
from torch import nn

NETWORK = {settings}
{preparation}

class Network(nn.Module):
    def __init__(self):
        super().__init__()
{modules}

    def forward(self, x):
{forward}


def load(path):
    """Return the network with the weights of a state_dict, in evaluation mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = Network().to(next(iter(state.values())).dtype)
    network.load_state_dict(state)
    return network.eval()
'''
PREPARATION = '''\
CLASSES = {classes}
MEAN = {mean}  # of the red, green and blue pixels, from 0 to 255
STD = {std}


def normalize(images):
    """Return the input of the network for RGB images, (N, 3, H, W), of values from 0 to 255."""
    mean = torch.tensor(MEAN, device=images.device).reshape(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).reshape(1, 3, 1, 1)
    return (images - mean) / std
'''


def pytorch_files(
    network: Layer,
    image_shape: tuple[int, int, int],
    preprocessing: Preprocessing | None = None,
    module: str = "net",
) -> tuple[bytes, bytes]:
    """Return a network's state_dict as a .pt file, and the source of the module that loads it.

    Args:
        network: on the CPU.
        image_shape: (C, H, W).
        preprocessing: written into the source.
        module: name of both files without their endings, for the source's docstring.

    Raises:
        ConfigError: the network uses an operation, or a name, that a module cannot have.
    """
    graph = read_graph(network, image_shape)
    names = pytorch_names(graph)
    file = io.BytesIO()
    state = {names[name]: torch.from_numpy(x.copy()) for name, x in graph.arrays.items()}
    torch.save(state, file)
    trained = {name for name, _ in network.named_parameters()}
    source = SOURCE.format(
        version=__version__,
        module=module,
        imports="load, normalize" if preprocessing else "load",
        example="normalize(images)" if preprocessing else "images",
        classes=graph.shapes[graph.output][0],
        shape=image_shape,
        settings=network.settings if isinstance(network, Network) else {},
        preparation=_preparation(preprocessing) if preprocessing else "",
        modules=_indented(_modules(graph, names, trained)),
        forward=_indented(_Forward(graph, names).lines()),
    )
    return file.getvalue(), source.encode()


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return the arrays of a state_dict that torch.save wrote; nothing in the file is executed.

    Args:
        path: a state_dict, or a dictionary with one under "state_dict".

    Raises:
        CheckpointError: the file is not a state_dict.
    """
    try:
        data = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can fail in any way
        raise CheckpointError(
            f"{path} is not a state_dict that can be read without running code from the file; "
            "save it with torch.save(module.state_dict(), …)"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(x, torch.Tensor) for x in state.values()):
        raise CheckpointError(
            f"{path} holds no state_dict; save one with torch.save(module.state_dict(), …)"
        )
    small = torch.float16, torch.bfloat16  # every number of theirs is one of float32
    return {
        str(name): (x.float() if x.dtype in small else x).detach().numpy()
        for name, x in state.items()
    }


def _preparation(preprocessing: Preprocessing) -> str:
    return PREPARATION.format(
        classes=pprint.pformat(list(preprocessing.classes), width=WIDTH - 10, compact=True),
        mean=tuple(preprocessing.mean),
        std=tuple(preprocessing.std),
    )


def _indented(lines: list[str]) -> str:
    return "\n".join(" " * 8 + line for line in lines)


def _modules(graph: InferenceGraph, names: dict[str, str], trained: set[str]) -> list[str]:
    """Return the lines that make the modules, parameters and buffers.

    Raises:
        ConfigError: a name cannot be an attribute, or a layer has two geometries.
    """
    made: dict[str, str] = {}
    for node in graph.nodes:
        if node.operation in PARTS:
            layer = names[node.inputs[1]].partition(".")[0]
            line = _constructor(node, graph)
            if made.setdefault(layer, line) != line:
                raise ConfigError(f"{layer} is used in two ways; export .onnx or .safetensors")
    lines = [f"self.{layer} = {line}" for layer, line in made.items()]
    for name, key in names.items():
        layer, _, part = key.partition(".")
        if not layer.isidentifier() or keyword.iskeyword(layer) or hasattr(nn.Module, layer):
            raise ConfigError(
                f"{layer!r} cannot be the name of a PyTorch module; rename the layer"
            )
        if part in ("weight", "bias") and name not in trained:
            lines.append(f"self.{key}.requires_grad_(False)")
        elif not part and layer in made:
            raise ConfigError(f"{name} is a layer and a parameter; rename one of them")
        elif not part and name in trained:
            lines.append(f"self.{name} = nn.Parameter(torch.empty({graph.arrays[name].shape}))")
        elif not part:
            empty = f"torch.empty({graph.arrays[name].shape})"
            lines.append(f'self.register_buffer("{name}", {empty})')
    return lines


def _constructor(node: Node, graph: InferenceGraph) -> str:
    """Return the expression that makes the module of a node."""
    attributes, weight = node.attributes, graph.arrays[node.inputs[1]]
    has_bias = len(node.inputs) > 2
    if node.operation == "batch_norm":
        # PyTorch's momentum is the share of the new value
        momentum = round(1 - attributes["momentum"], 9)
        return f"nn.BatchNorm2d({len(weight)}, eps={attributes['eps']}, momentum={momentum})"
    bias = "" if has_bias else ", bias=False"
    if node.operation == "linear":
        return f"nn.Linear({weight.shape[1]}, {weight.shape[0]}{bias})"
    groups = attributes["groups"]
    C_out, Cg, *kernel = weight.shape
    options = [
        f", {name}={_pair(attributes[name])}"
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)))
        if tuple(attributes[name]) != default
    ]
    options += [f", groups={groups}"] * (groups > 1)
    return f"nn.Conv2d({Cg * groups}, {C_out}, {_pair(kernel)}{''.join(options)}{bias})"


def _pair(values: Any) -> str:
    """Return two sizes as PyTorch takes them, one if they are equal."""
    vertical, horizontal = values
    return str(vertical) if vertical == horizontal else f"({vertical}, {horizontal})"


class _Forward:
    """Writes the body of forward, with few variables and one line for a layer and what follows."""

    def __init__(self, graph: InferenceGraph, names: dict[str, str]) -> None:
        self.graph = graph
        self.names = names
        self.left = graph.uses()  # of each value
        self.variables = {INPUT: VARIABLES[0]}
        self.written: list[str] = []

    def lines(self) -> list[str]:
        """Return the lines."""
        value, expression = "", ""
        for node in self.graph.nodes:
            nested = node.operation in NESTED and node.inputs[0] == value
            if nested and self.left[value] == 1:
                longer = self._expression(node, [expression])
                if len(f"        x = {longer}") <= WIDTH:
                    value, expression = node.output, longer
                    continue
            self._assign(value, expression)
            value, expression = node.output, self._expression(node, self._operands(node))
        return [*self.written, f"return {expression}"]

    def _assign(self, value: str, expression: str) -> None:
        """Write a line and give the value the first variable that is free."""
        if not value:
            return
        self.variables = {name: v for name, v in self.variables.items() if self.left[name] > 0}
        names = itertools.chain(VARIABLES, (f"x{i}" for i in itertools.count(3)))
        variable = next(name for name in names if name not in self.variables.values())
        self.variables[value] = variable
        self.written.append(f"{variable} = {expression}")

    def _operands(self, node: Node) -> list[str]:
        """Return the node's values as variables, and arrays that are no module's as attributes."""
        operands = node.inputs[:1] if node.operation in PARTS else node.inputs
        self.left.subtract(operands)
        return [self.variables.get(name, f"self.{name}") for name in operands]

    def _expression(self, node: Node, operands: list[str]) -> str:
        x, attributes = operands[0], node.attributes
        match node.operation:
            case "convolution" | "batch_norm" | "linear":
                return f"self.{self.names[node.inputs[1]].partition('.')[0]}({x})"
            case "permutation":
                return f"F.channel_shuffle({x}, {attributes['branches']})"
            case "max_pool":
                return f"F.max_pool2d({x}, {_window(**attributes)})"
            case "average_pool":
                counted = attributes["count_include_pad"]
                window = {k: v for k, v in attributes.items() if k != "count_include_pad"}
                return f"F.avg_pool2d({x}, {_window(**window)}, count_include_pad={counted})"
            case "global_average_pool":
                return f"{x}.mean((2, 3))"
            case "sum":
                return f"{x}.sum({tuple(attributes['axes'])}, keepdim={attributes['keepdims']})"
            case "reshape":
                return f"{x}.reshape({', '.join([f'len({x})', *map(str, attributes['shape'])])})"
            case "relu" | "relu6":
                return f"F.{node.operation}({x})"
            case "exp" | "log":
                return f"torch.{node.operation}({x})"
        return f" {OPERATORS[node.operation]} ".join(operands)


def _window(kernel: Shape, stride: Shape, padding: Shape) -> str:
    """Return the arguments of a pooling.

    Raises:
        ConfigError: PyTorch does not pad so much.
    """
    if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
        raise ConfigError(
            f"PyTorch pads a pooling by half its window at most, not {_pair(kernel)} by "
            f"{_pair(padding)}; export .onnx"
        )
    return f"{_pair(kernel)}, stride={_pair(stride)}, padding={_pair(padding)}"
