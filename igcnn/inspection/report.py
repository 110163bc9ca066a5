"""Every number of the page that `igcnn inspect` writes, as what JSON can hold."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any

import numpy as np

from ..backend import single_threaded_blas
from ..errors import DivergedError
from ..kernels.softmax_cross_entropy import softmax_cross_entropy_forward
from ..layers import BatchNorm, InterleavedGroupConvolution, Layer
from ..layers.summary import LayerSummary, Summary, summarize
from ..networks import Network
from ..version import __version__
from .activations import Seen, dead_channels, distribution, maps, observe, significant
from .composed import Unit, candidates, compose, conditions, unit_parameters, widest
from .devices import compare_devices
from .gradients import LayerGradients, check_layers
from .pixel import write_out
from .special_cases import special_cases
from .subject import Subject
from .wiring import wire

Array = np.ndarray

# of the side of the images that a network is made for, on which gradients and devices are
# compared: batch norm wants pixels after the last halving
SMALL = 1 / 4
MAP_PIXELS = 500_000  # of all maps, so that a page of any depth stays small
MAPS = range(4, 25)  # channels of a layer that are shown
DEAD_MACS = 20e9  # for the images that dead channels are sought on
COMPOSED_MACS = 3e8  # for one unit; larger ones are composed on a corner of the image
COMPOSED_SIDE = 64  # rows and columns of the picture of a composed kernel
EMULATION_SECONDS = 4.0  # about, for all layers
CHECKED_WORK = 5e7  # multiply-adds for the differences of one layer
ELEMENT_WORK = 10  # multiply-adds that an element of an output costs without any
ELEMENTS = 8  # of a tensor that are checked, where they are cheap
STEPS = tuple(10.0**-k for k in range(1, 12))
WIDEST_RATIO = 4  # the curve of widths ends where L = 9M/4²…: M up to 4 times the best


def make_report(subject: Subject, devices: list[str]) -> dict[str, Any]:
    """Return everything that can be said of a network on an image; the network is unchanged.

    Args:
        subject: network and image.
        devices: to compare with the CPU, of other_devices().

    Raises:
        DivergedError: an output is NaN or infinite.
    """
    network = subject.network
    image_shape = subject.pixels.shape
    summary = summarize(network, image_shape)
    x = subject.normalised(subject.pixels[None])
    with np.errstate(over="ignore", invalid="ignore"):
        seen, logits = observe(network, x)
    for one in seen:
        if not np.isfinite(one.y).all():
            raise DivergedError(
                f"the output of {one.name} is not finite on this image: the weights come from a "
                "diverged run; use an earlier checkpoint"
            )
    small = _shrunk(x, round(SMALL * network.image_size))
    with single_threaded_blas():
        compared, not_emulated = _devices(network, small, devices)
    checks = _gradients(network, small)
    dead, looked_at = _dead(subject, summary.macs)
    most = _most_maps(seen)
    layers = [
        _layer(one, row, summary, most) | {"gradient": check.to_json()}
        for one, row, check in zip(seen, summary.layers, checks, strict=True)
    ]
    for layer in layers:
        layer["dead"] = dead.get(layer["name"])
        layer["devices"] = compared.get(layer["name"], [])
    return {
        "igcnn": __version__,
        "network": network.settings,
        "checkpoint": subject.checkpoint,
        "command": subject.command,
        "image": _image(subject),
        "answers": _answers(logits, subject.classes),
        "totals": {k: v for k, v in summary.to_json().items() if k != "layers"},
        "layers": layers,
        "failed": [check.name for check in checks if not check.report.passed],
        "checked_side": small.shape[2],
        "devices": devices,
        "not_emulated": not_emulated,
        "dead_images": looked_at,
        **_units(seen),
        "special_cases": [asdict(case) for case in special_cases()],
        "width": _width(seen),
    }


def _image(subject: Subject) -> dict[str, Any]:
    label = subject.label
    named = label is not None and label < len(subject.classes)
    return {
        "source": subject.source,
        "shape": list(subject.pixels.shape),
        "mean": [float(value) for value in subject.mean],
        "std": [float(value) for value in subject.std],
        "label": label,
        "class": subject.classes[label] if named and label is not None else None,
        "pixels": subject.pixels.tolist(),
    }


def _answers(logits: Array, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the five most probable classes."""
    _, probabilities = softmax_cross_entropy_forward(logits, np.zeros(1, np.int64))
    order = np.argsort(-logits[0], kind="stable")[:5].tolist()
    return [
        {
            "class": classes[k] if k < len(classes) else str(k),
            "index": k,
            "logit": float(logits[0, k]),
            "probability": float(probabilities[0, k]),
        }
        for k in order
    ]


def _layer(seen: Seen, row: LayerSummary, summary: Summary, most: int) -> dict[str, Any]:
    """Return what is known of one layer without its gradients."""
    layer, y = seen.layer, seen.y[0]
    written = write_out(seen)
    buffers = dict(layer.named_buffers())
    return {
        **asdict(row),
        "output": list(row.output),
        "input": list(seen.x.shape[1:]),
        "geometry": layer.extra_repr(),
        "bytes": 4 * (row.params + math.prod(row.output)),
        "share": row.macs / summary.macs,
        "activation": distribution(y),
        "maps": maps(y, most) if y.ndim == 3 and y.shape[1:] != (1, 1) else None,
        "parameters": {
            name: {"shape": list(tensor.shape), **distribution(tensor.data)}
            for name, tensor in layer.named_parameters()
        },
        "statistics": {
            name: {"shape": list(array.shape), **distribution(array)}
            for name, array in buffers.items()
            if isinstance(layer, BatchNorm)
        },
        "pixel": None if written is None else asdict(written),
    }


def _most_maps(seen: list[Seen]) -> int:
    pixels = sum(min(32, y.shape[2]) * min(32, y.shape[3]) for y in _images(seen))
    return max(MAPS.start, min(MAPS.stop - 1, MAP_PIXELS // max(1, pixels)))


def _images(seen: list[Seen]) -> list[Array]:
    return [one.y for one in seen if one.y.ndim == 4]


def _dead(subject: Subject, macs: int) -> tuple[dict[str, list[int]], int]:
    """Return the dead channels by layer, and the number of images that were looked at."""
    pixels = subject.pixels[None]
    if subject.others is not None and len(subject.others):
        room = max(0, int(DEAD_MACS // max(1, macs)) - 1)
        pixels = np.concatenate([pixels, subject.others[:room]])
    return dead_channels(subject.network, subject.normalised(pixels)), len(pixels)


def _shrunk(x: Array, side: int) -> Array:
    """Return images averaged over squares so that they have at least `side` pixels a side."""
    square = max(1, min(x.shape[2:]) // side)
    N, C, H, W = x.shape
    h, w = H // square, W // square
    # (N, C, h·s, w·s) → (N, C, h, s, w, s)
    squares = x[:, :, : h * square, : w * square].reshape(N, C, h, square, w, square)
    return np.ascontiguousarray(squares.mean(axis=(3, 5)))


def _gradients(network: Network, small: Array) -> list[LayerGradients]:
    """Return the check of every layer on the small image and its mirror image."""
    double = network.to_dtype("float64")
    x = np.concatenate([small, small[:, :, :, ::-1]]).astype(np.float64)
    rows = summarize(double, x.shape[1:]).layers
    work = {row.name: len(x) * (row.macs + ELEMENT_WORK * math.prod(row.output)) for row in rows}

    def elements(layer: Layer) -> int:
        tensors = 1 + len(layer.parameters())
        evaluations = CHECKED_WORK / work[layer.name]
        return int(max(1, min(ELEMENTS, evaluations // (2 * tensors))))

    costly = max(work.values()) * 2 * len(STEPS) > CHECKED_WORK
    return check_layers(double, x, elements, steps=STEPS[2:8:2] if costly else STEPS)


def _devices(
    network: Network, small: Array, devices: list[str]
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return the differences by layer, and the layers that are too large for the emulator."""
    seen = observe(network, small)[0]
    left_out = set()
    seconds = 0.0
    for one in sorted(seen, key=_emulation_seconds):
        seconds += _emulation_seconds(one)
        if seconds > EMULATION_SECONDS:
            left_out.add(one.name)
    result = {}
    for one in seen if devices else []:
        own = [name for name in devices if name != "emu" or one.name not in left_out]
        result[one.name] = [asdict(row) for row in compare_devices(one, own)]
    skipped = [one.name for one in seen if one.name in left_out and "emu" in devices]
    return result, skipped


def _emulation_seconds(seen: Seen) -> float:
    """Return about how long the emulator takes for a layer, forward and backward.

    A sum for a parameter is a warp, or in batch norm a block, of threads that run in turn.
    """
    params = sum(tensor.size for tensor in seen.layer.parameters())
    per_parameter = 180e-6 if isinstance(seen.layer, BatchNorm) else 8e-6
    macs = seen.layer.macs(seen.x.shape, seen.y.shape)
    return 20e-9 * (macs + ELEMENT_WORK * seen.y.size) + per_parameter * params


def _units(seen: list[Seen]) -> dict[str, Any]:
    """Return the composition of every interleaved unit, and their different wirings."""
    units = []
    toy = {"name": "toy", "units": [], **wire((6, 6, 6), (2, 3)).to_json()}
    known: dict[tuple[tuple[int, ...], ...], dict[str, Any]] = {}
    for one in seen:
        layer = one.layer
        if not isinstance(layer, Unit):
            continue
        units.append(_unit(one, layer))
        channels = one.x.shape[1], *(len(weight.data) for weight in layer.weights)
        size = channels, layer.groups
        if size not in known:
            known[size] = {"name": one.name, "units": [], **wire(*size).to_json()}
        known[size]["units"].append(one.name)
    return {"units": units, "wirings": [toy, *known.values()]}


def _unit(seen: Seen, layer: Unit) -> dict[str, Any]:
    """Return a unit beside the regular convolution that it equals, in float64."""
    C_in, C_out = seen.x.shape[1], seen.y.shape[1]
    double = copy.deepcopy(layer)
    for _, tensor in double.named_parameters():
        tensor.data = tensor.data.astype(np.float64)
    for name, array in double.buffers().items():
        setattr(double, name, array.astype(np.float64))
    x = seen.x[:1].astype(np.float64)
    parameters = sum(weight.size for weight in layer.weights)
    pixels = COMPOSED_MACS / parameters * math.prod(layer.stride)
    kernel = max(max(weight.shape[2:]) for weight in layer.weights)
    side = max(kernel, int(math.sqrt(pixels)))
    x = x[:, :, :side, :side]
    outputs = _spread(C_out)
    told = conditions(layer, outputs)
    found = compose(double, x, outputs)
    lengths = (found.kernel**2).sum(axis=(2, 3))
    columns = -(-C_in // COMPOSED_SIDE)
    starts = np.arange(0, C_in, columns)
    counts = np.diff([*starts, C_in])
    means = np.sqrt(np.add.reduceat(lengths, starts, axis=1) / counts)
    return {
        "name": seen.name,
        "C_in": C_in,
        "C_out": C_out,
        "groups": list(layer.groups),
        "fan_ins": list(told.fan_ins),
        "strict": told.strict,
        "balanced": told.balanced,
        "bound": told.bound,
        "stride": list(layer.stride),
        "parameters": parameters,
        "dense_parameters": found.dense_parameters,
        "rank": found.rank,
        "paths": told.most_paths,
        "fewest_paths": told.least_paths,
        "difference": found.difference,
        "scale": found.scale,
        "image": list(x.shape[2:]),
        "outputs": outputs.tolist(),
        "columns": columns,
        "kernel": significant(means),
    }


def _spread(channels: int) -> Array:
    """Return at most 64 channels, evenly spread."""
    chosen = np.linspace(0, channels - 1, min(channels, COMPOSED_SIDE))
    return np.unique(chosen.round().astype(int))


def _width(seen: list[Seen]) -> dict[str, Any]:
    """Return what widths the budget of the network's first unit buys.

    A network without units has the budget of its first 3×3 convolution between layers.
    """
    first = next((one for one in seen if isinstance(one.layer, InterleavedGroupConvolution)), None)
    if first is not None:
        assert isinstance(first.layer, InterleavedGroupConvolution)
        L, M = first.layer.L, first.y.shape[1] // first.layer.L
        area = math.prod(first.layer.primary.shape[2:])
    else:
        first = next(one for one in seen if one.layer.kind == "conv" and one.x.shape[1] > 3)
        L, M, area = 1, first.y.shape[1], 9
    budget = unit_parameters(L, M, area)
    best = widest(budget, area)
    curve = [pair for pair in candidates(budget, area) if pair[1] <= WIDEST_RATIO * best[1]]
    return {
        "layer": first.name,
        "budget": budget,
        "kernel_area": area,
        "this": {"L": L, "M": M, "width": L * M},
        "best": {"L": best[0], "M": best[1], "width": best[0] * best[1]},
        "regular": math.sqrt(budget / area),
        "bound": (budget / (2 * math.sqrt(area))) ** (2 / 3),
        "curve": [{"L": L, "M": M, "width": L * M} for L, M in curve],
    }
