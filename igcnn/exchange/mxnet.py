"""Weights of the authors: MXNet's .params and symbol.json, read as what they are, numbers.

Layout of .params, little endian: u64 0x112, u64 0, u64 N, N arrays, u64 N, N names (u64 length,
bytes). An array begins with a u32 that tells its generation:

    anything below 33   legacy: number of axes, u32 sizes, context, type, data
    0xF993FAC8          V1: u32 number of axes, i64 sizes, context, type, data
    0xF993FAC9, …CA     V2 and V3: i32 storage (0, dense), then as V1

Context is i32 device type and i32 device number. Names begin with `arg:` or `aux:`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError, ShapeError
from ..networks import Network, build_network
from ..networks.inverted import WIDER_CHANNELS
from ..training import Preprocessing

Array = np.ndarray

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
MAX_AXES = 32
MAX_NAME = 4096
TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
EPS = 2e-5  # of batch norm
IGCV3_EPS = 1e-5


def read_params(path: Path) -> dict[str, Array]:
    """Return the arrays of a .params file by name, `arg:` and `aux:` left out.

    Raises:
        CheckpointError: the file cannot be read or is not of this format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    reader = _Reader(data)
    try:
        magic, reserved, count = reader.take("QQQ")
        if magic != LIST_MAGIC or reserved != 0:
            raise ValueError(f"begins with {magic:#x} instead of {LIST_MAGIC:#x}")
        if count > len(data) // 8:
            raise ValueError(f"says that it holds {count:,} arrays")
        arrays = [reader.array() for _ in range(count)]
        (names_count,) = reader.take("Q")
        if names_count != count:
            raise ValueError(f"has {names_count:,} names for {count:,} arrays")
        names = [reader.name().partition(":")[2] for _ in range(count)]
    except (ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is not an MXNet .params file ({error})") from error
    if len(set(names)) != count or reader.place != len(data):
        raise CheckpointError(
            f"{path} is not an MXNet .params file (duplicate names, or bytes after the end)"
        )
    return dict(zip(names, arrays, strict=True))


class _Reader:
    """Numbers from bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        """Return numbers of a struct form."""
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def piece(self, size: int) -> bytes:
        """Return bytes."""
        if size > len(self.data) - self.place:
            raise ValueError(f"ends before {size:,} bytes that it announces")
        self.place += size
        return self.data[self.place - size : self.place]

    def name(self) -> str:
        """Return a name."""
        (length,) = self.take("Q")
        if length > MAX_NAME:
            raise ValueError(f"has a name of {length:,} bytes")
        return self.piece(length).decode()

    def array(self) -> Array:
        """Return an array of any generation."""
        (first,) = self.take("I")
        size = "q"
        if first in (V2, V3):
            (storage,) = self.take("i")
            if storage != 0:
                raise ValueError("holds a sparse array")
        if first in (V1, V2, V3):
            (axes,) = self.take("I")
        else:
            axes, size = first, "I"
        if axes > MAX_AXES:
            raise ValueError(f"has an array of {axes:,} axes")
        shape = self.take(f"{axes}{size}")
        if not shape:
            return np.zeros((), np.float32)  # MXNet writes nothing more for an empty array
        _, _, kind = self.take("iii")
        if kind not in TYPES or min(shape) < 0:
            raise ValueError(f"has an array of shape {shape} and type {kind}")
        dtype = np.dtype(TYPES[kind])
        content = self.piece(math.prod(shape) * dtype.itemsize)
        return np.frombuffer(content, dtype).reshape(shape)


def convert(params: Path, symbol: Path) -> tuple[Network, Preprocessing]:
    """Return a network with the weights of the authors' files.

    Names and shapes must be those of the network that symbol.json describes, all of them.

    Args:
        params: NAME-0095.params.
        symbol: NAME-symbol.json.

    Raises:
        CheckpointError: a file is damaged, or it is of a network that igcnn does not have.
    """
    arrays = read_params(params)
    nodes = _read_symbol(symbol)
    is_igcv3 = "first-3x3-conv-conv2d_weight" in arrays
    network = (_igcv3_of if is_igcv3 else _network_of)(arrays, nodes, symbol)
    for name, node in nodes.items():
        if node["op"] == "BatchNorm":
            _check_norm(name, node, symbol, IGCV3_EPS if is_igcv3 else EPS)
            if str(node["param"].get("fix_gamma", "True")) == "True":
                arrays[f"{name}_gamma"] = np.ones_like(arrays[f"{name}_gamma"])
    if is_igcv3:
        own = {_igcv3_name(name): name for name in network.state_dict()}
        arrays = {own.get(name, name): array for name, array in arrays.items()}
    try:
        network.load_state_dict(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{params}: {error}") from error
    classes = tuple(str(k) for k in range(network.settings["num_classes"]))
    mean, std = (123.370, 112.757, 99.406), (68.998, 66.093, 68.292)
    if is_igcv3:
        mean, std = (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)
    return network, Preprocessing("imagenet", classes, mean, std, 224, "center")


def _read_symbol(path: Path) -> dict[str, dict[str, Any]]:
    """Return the nodes by name, each with op and param."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(node["name"]): {
                "op": str(node["op"]),
                "param": dict(node.get("param") or node.get("attrs") or node.get("attr") or {}),
            }
            for node in content["nodes"]
        }
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a symbol.json of MXNet ({error})") from error


def _network_of(arrays: dict[str, Array], nodes: dict[str, Any], path: Path) -> Network:
    """Build the network that names, shapes and groups tell of."""
    try:
        classes = arrays["fc_score_weight"].shape[0]
        if "g0_weight" in arrays:
            C = arrays["g0_weight"].shape[0]
            return build_network("resnet_imgnet_d18", L=C, M=1, num_classes=classes)
        L, later = (
            int(nodes[f"g{k}_b1_conv1_conv1"]["param"].get("num_group", 1)) for k in (1, 2)
        )
        width = arrays["g1_b1_conv1_conv1_weight"].shape[0]
        growth = "L" if later == 2 * L else "M"
        return build_network(
            "resnet_igc_imgnet_d18", L=L, M=width // L, growth=growth, num_classes=classes
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError, ConfigError, ShapeError) as error:
        raise CheckpointError(
            f"{path} describes a network that igcnn does not have ({error}); it has ResNet-18, "
            "IGC-L4M32, IGC-L16M16, IGC-L100M2 and IGCV3"
        ) from error


def _igcv3_of(arrays: dict[str, Array], nodes: dict[str, Any], path: Path) -> Network:
    """Build the IGCV3 that names, shapes and groups tell of, with one permutation in a block."""
    found = [re.fullmatch(r"seq-([1-7])-block\d+-linear-conv2d_weight", name) for name in arrays]
    sequences = [int(match[1]) for match in found if match]
    try:
        groups = int(nodes["seq-1-block1-linear-conv2d"]["param"].get("num_group", 1))
        return build_network(
            "igcv3_imgnet",
            blocks=",".join(str(sequences.count(k)) for k in range(1, 8)),
            secondary_groups=groups,
            wider=arrays["last-1x1-conv-conv2d_weight"].shape[1] == WIDER_CHANNELS[-1],
            num_classes=arrays["fc_weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path} describes an IGCV3 that igcnn does not have ({error}); it has the authors' "
            "igcv3, igcv3_g2g4 and igcv3_wider, of width 1"
        ) from error


def _igcv3_name(own: str) -> str:
    """Return the authors' name for the name of a parameter or statistic of igcv3."""
    prefix, _, rest = own.partition("_bn_" if "_bn_" in own else "_weight")
    names = {"first": "first-3x3-conv", "last": "last-1x1-conv"}
    prefix = names.get(prefix) or re.sub(r"seq(\d)_(block\d+)_", r"seq-\1-\2-", prefix)
    if own.startswith("fc_"):
        return own
    return f"{prefix}-batchnorm_{rest}" if "_bn_" in own else f"{prefix}-conv2d_weight"


def _check_norm(name: str, node: dict[str, Any], path: Path, expected: float) -> None:
    try:
        eps = float(node["param"].get("eps", 1e-3))
    except ValueError:
        eps = math.nan
    if not math.isclose(eps, expected):
        raise CheckpointError(f"{path}: {name} has eps {eps}, but igcnn supports only {expected}")
