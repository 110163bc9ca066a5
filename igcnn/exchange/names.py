"""Weights under igcnn's names and under those of PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError, IgcnnError
from ..networks import Network, build_network
from .graph import InferenceGraph, layer_name, read_graph

Array = np.ndarray

# operation: what PyTorch's module calls the arrays of a node, in the order of its inputs
PARTS = {
    "convolution": ("weight", "bias"),
    "linear": ("weight", "bias"),
    "batch_norm": ("weight", "bias", "running_mean", "running_var"),
}
IGNORED = "num_batches_tracked"  # of PyTorch's batch norms, which have no use for it here either


def pytorch_names(graph: InferenceGraph) -> dict[str, str]:
    """Return for each array its key in the state_dict of the exported PyTorch module.

    A layer is a module of its name with PyTorch's names below: g0_conv_weight is g0_conv.weight,
    g0_bn_gamma is g0_bn.weight. What belongs to no such layer keeps its name.

    Raises:
        ConfigError: an array belongs to several layers.
    """
    names: dict[str, str] = {}
    for node in graph.nodes:
        layer = layer_name(node.inputs[1]) if node.operation in PARTS else ""
        for name, part in zip(node.inputs[1:], PARTS.get(node.operation, ()), strict=False):
            key = f"{layer}.{part}"
            if names.setdefault(name, key) != key:
                raise ConfigError(
                    f"{name} is both {names[name]} and {key}, which a PyTorch module cannot "
                    "express; export .onnx or .safetensors"
                )
    return names | {name: name for name in graph.arrays if name not in names}


def network_of(
    arrays: Mapping[str, Array], settings: Mapping[str, Any], image_size: int = 0
) -> Network:
    """Return a network with the weights of a file; float64 if all of them are, else float32.

    Args:
        arrays: all weights, under igcnn's names or those of the exported PyTorch module.
        settings: arguments of build_network.
        image_size: side of the images in pixels; 0 for what the network is made for.

    Raises:
        CheckpointError: the settings make no network, or names or shapes do not match it.
    """
    given = {name: array for name, array in arrays.items() if not name.endswith(IGNORED)}
    double = all(array.dtype == np.float64 for array in given.values())
    try:
        network = build_network(**settings, dtype="float64" if double else "float32")
    except (IgcnnError, TypeError) as error:
        raise CheckpointError(f"its network settings cannot be built: {error}") from error
    own = network.state_dict()
    if not own.keys() >= given.keys():
        side = image_size or network.image_size
        names = pytorch_names(read_graph(network, (3, side, side)))
        ours = {key: name for name, key in names.items() if key not in own}
        constants = names.keys() - own.keys()
        renamed = [(ours.get(name, name), array) for name, array in given.items()]
        given = {name: array for name, array in renamed if name not in constants}
        if len(given) < len([name for name, _ in renamed if name not in constants]):
            raise CheckpointError("it holds a weight under two names; remove one of them")
    network.load_state_dict(given)
    return network
