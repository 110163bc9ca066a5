"""Checkpoints: a network and the state of its training in one HDF5 file.

Layout (format version 2), an HDF5 file that any HDF5 reader opens:

    user block       512 bytes in front: "igcnn-checkpoint", a line feed, the sha256 of all bytes
                     after the block in hexadecimal, a line feed, zeros
    /                attributes format_version, igcnn_version and, as JSON texts, network,
                     network_module (which registers it), preprocessing, training, progress
    /parameters/*    one data set a parameter, under the network's own name for it, in order
    /buffers/*       likewise: the running statistics of batch norm
    /velocity/*      likewise: the optimizer's velocity; empty without an optimizer
    /raw/*           if the parameters and buffers are averages: those that training continues with

Files without averages have format version 1 and no /raw, and older versions of igcnn read them.

The checksum is verified before anything else is read, because the HDF5 library can run for ever
on a file with a few flipped bits. Loading runs no code from the file: it holds arrays and JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import to_host
from ..errors import CheckpointError, IgcnnError
from ..files import write_atomically
from ..layers import Layer
from ..networks import NETWORKS, Network, build_network
from ..optim import SGD
from ..version import __version__

if TYPE_CHECKING:
    import h5py

Array = np.ndarray

MAGIC = b"igcnn-checkpoint\n"
BLOCK = 512
VERSION = 2
TEXTS = ("network", "preprocessing", "training", "progress")
GROUPS = ("parameters", "buffers", "velocity", "raw")


@dataclass(frozen=True)
class Preprocessing:
    """What was done to the images before the network saw them.

    Attributes:
        dataset: name of the data set.
        classes: name of each class.
        mean: for red, green, blue, in pixel values from 0 to 255.
        std: likewise; the network's input is (pixel − mean) / std.
        side: of the images in pixels; 0 where it was not said.
        view: how an image of any size becomes one of side × side: "square", the largest square
            in its middle, or "center", the middle after its short side was made 256/224·side.
    """

    dataset: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int = 0
    view: str = "square"


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        network: settings that `igcnn.build_network` makes the network from; those of a network
            that build_network did not make lack "net".
        preprocessing: what was done to the images, None if it was not said.
        parameters: name → array.
        buffers: name → array.
        velocity: name of the parameter → array; empty without an optimizer.
        raw: name → array, parameters and buffers that training continues with where those above
            are averages (see training/average.py); empty where they are not.
        training: settings of the run that later steps depend on, as the trainer writes them.
        progress: position and sums of the run, as the trainer writes them.
        format_version: of the file.
        network_module: which registers the network; "" where it was not said.
    """

    network: dict[str, Any]
    preprocessing: Preprocessing | None
    parameters: dict[str, Array]
    buffers: dict[str, Array]
    velocity: dict[str, Array] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    format_version: int = VERSION
    network_module: str = ""
    raw: dict[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = sum(array.size for array in self.parameters.values())
        facts = [f"{self.network.get('net', 'network')}: {count:,} parameters"]
        if self.preprocessing:
            facts.append(f"trained on {self.preprocessing.dataset}")
        if "step" in self.progress:
            facts.append(f"step {self.progress['step']}")
        return f"Checkpoint({', '.join(facts)})"

    @property
    def state(self) -> dict[str, Array]:
        """Parameters, then buffers: what `Layer.load_state_dict` takes."""
        return self.parameters | self.buffers

    @property
    def training_state(self) -> dict[str, Array]:
        """What training continues with: as `state`, but never averages."""
        return self.raw or self.state

    def build(self) -> Network:
        """Return a new network with these settings and weights, in training mode.

        Raises:
            CheckpointError: the network is not registered, or its settings make no network, or
                one that the arrays do not fit.
        """
        self.check_registered()
        dtype = next(iter(self.parameters.values())).dtype.name if self.parameters else "float32"
        try:
            network = build_network(**self.network, dtype=dtype)
        except (IgcnnError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint's network settings cannot be built: {error}"
            ) from error
        network.load_state_dict(self.state)
        return network

    def check_registered(self) -> None:
        """Find the network by its name.

        Raises:
            CheckpointError: it has none, or no network of this name is registered.
        """
        name = self.network.get("net")
        if name is None:
            raise CheckpointError(
                "the checkpoint does not name its network; build the network yourself "
                "and use network.load_state_dict(checkpoint.state), or register it by "
                "@register_network before training"
            )
        if name not in NETWORKS:
            module = self.network_module
            own = "a script or notebook registered: run its @register_network before loading"
            other = (
                f"{module or 'another package'} registers: install the package that contains it, "
                "or import it before loading"
            )
            raise CheckpointError(
                f"the checkpoint is of the network {name}, which "
                f"{own if module == '__main__' else other}"
            )

    def restore(self, optimizer: SGD) -> None:
        """Copy the velocity into an optimizer; all or nothing.

        Raises:
            CheckpointError: the velocities do not fit the optimizer's parameters.
        """
        optimizer.load_state_dict(optimizer.state_dict() | {"velocity": self.velocity})


def save_checkpoint(
    path: str | Path,
    network: Layer,
    optimizer: SGD | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    training: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
    average: Mapping[str, Array] | None = None,
) -> None:
    """Write a checkpoint; a file that is there is replaced as a whole or left as it is.

    Args:
        path: of the file; by convention it ends in .h5.
        network: its parameters, buffers and settings are saved.
        optimizer: its velocity is saved, for going on with the training.
        preprocessing: saved for evaluation and prediction.
        training: JSON values; see Checkpoint.
        progress: JSON values; see Checkpoint.
        average: name → array: averages of the parameters and buffers, saved in their place.

    Raises:
        CheckpointError: the file cannot be written.
    """
    texts = {
        "network": network.settings if isinstance(network, Network) else {},
        "network_module": network.module if isinstance(network, Network) else "",
        "preprocessing": asdict(preprocessing) if preprocessing else None,
        "training": dict(training or {}),
        "progress": dict(progress or {}),
    }
    parameters = {name: tensor.data for name, tensor in network.named_parameters()}
    buffers = dict(network.named_buffers())
    saved = average or (parameters | buffers)
    arrays = {f"parameters/{name}": saved[name] for name in parameters}
    arrays |= {f"buffers/{name}": saved[name] for name in buffers}
    if average:
        arrays |= {f"raw/{name}": array for name, array in (parameters | buffers).items()}
    if optimizer is not None:
        velocity = optimizer.state_dict()["velocity"]
        arrays |= {f"velocity/{name}": array for name, array in velocity.items()}
    arrays = {name: to_host(array) for name, array in arrays.items()}
    path = Path(path)
    try:
        write_atomically(path, _encode(texts, arrays))
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {reason}; the previous file is "
            "unchanged; free some space or choose a writable directory"
        ) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum.

    Args:
        path: of the file, or of a run directory: its best.h5, else its last.h5.

    Raises:
        CheckpointError: the file is missing, damaged, truncated, not a checkpoint, or
            of a newer format.
    """
    import h5py

    path = Path(path)
    if path.is_dir():
        saved = [path / "checkpoints" / name for name in ("best.h5", "last.h5")]
        path = next((file for file in saved if file.is_file()), path)
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint {path}; give the path of an .h5 file or of a run directory"
        )
    try:
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            raise CheckpointError(
                f"{path} is not an igcnn checkpoint; pass an .h5 file written by igcnn"
            )
        if data[:BLOCK] != _block(data):
            raise CheckpointError(
                f"{path} is damaged or truncated: its checksum does not match its content; "
                "use another checkpoint"
            )
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read(path, file)
    except CheckpointError:
        raise
    # a file of the right checksum that igcnn did not write can still be anything
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot read {path} ({reason}); use another checkpoint") from error


def load_newest(last: Path, previous: Path) -> tuple[Checkpoint, str | None]:
    """Return the newest checkpoint that is whole, and in words why it is not `last`.

    Args:
        last: of a run directory.
        previous: the one before it, for the case that `last` is damaged or missing.

    Raises:
        CheckpointError: neither is complete; the error describes `last`.
    """
    try:
        return load_checkpoint(last), None
    except CheckpointError as error:
        try:
            checkpoint = load_checkpoint(previous)
        except CheckpointError:
            raise error from None
        return checkpoint, f"{error}; continuing from {previous.name}"


def _encode(texts: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Return the bytes of the file. It is made in memory, so that a full disk cannot spoil it."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=BLOCK, track_order=True) as file:
        averaged = any(name.startswith("raw/") for name in arrays)
        for name in GROUPS if averaged else GROUPS[:-1]:
            file.create_group(name, track_order=True)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs["format_version"] = VERSION if averaged else 1
        file.attrs["igcnn_version"] = __version__
        for name, value in texts.items():
            file.attrs[name] = json.dumps(value, allow_nan=False)
    data = buffer.getbuffer()
    data[:BLOCK] = _block(data)
    return bytes(data)


def _block(data: bytes | memoryview) -> bytes:
    """Return the user block that belongs to the bytes after it."""
    digest = hashlib.sha256(memoryview(data)[BLOCK:]).hexdigest()
    return (MAGIC + digest.encode() + b"\n").ljust(BLOCK, b"\0")


def _read(path: Path, file: h5py.File) -> Checkpoint:
    version = int(file.attrs["format_version"])
    if version > VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, and this igcnn reads up to {VERSION}; "
            "upgrade igcnn"
        )
    size = path.stat().st_size
    values = {name: json.loads(file.attrs[name]) for name in TEXTS}
    arrays = {
        group: {name: _read_array(file[group], name, size) for name in file[group]}
        for group in GROUPS
        if group in file or group != "raw"
    }
    preprocessing = values["preprocessing"]
    return Checkpoint(
        network=values["network"],
        preprocessing=_preprocessing(preprocessing) if preprocessing else None,
        **arrays,
        training=values["training"],
        progress=values["progress"],
        format_version=version,
        network_module=str(json.loads(file.attrs.get("network_module", '""'))),
    )


def _read_array(group: h5py.Group, name: str, file_size: int) -> Array:
    """Return a data set, after making sure that it is plain and lies in this file.

    A crafted file could name another file to be read, or a size that no memory holds.
    """
    import h5py

    dataset = group[name]
    plain = (
        isinstance(group.get(name, getlink=True), h5py.HardLink)
        and isinstance(dataset, h5py.Dataset)
        and dataset.chunks is None
        and dataset.external is None
        and not dataset.is_virtual
    )
    if not plain or dataset.dtype.kind != "f" or dataset.nbytes > file_size:
        raise ValueError(f"{group.name}/{name} is not a plain array of numbers in this file")
    return dataset[()]


def _preprocessing(values: dict[str, Any]) -> Preprocessing:
    classes, mean, std = (tuple(values[key]) for key in ("classes", "mean", "std"))
    side, view = int(values.get("side", 0)), str(values.get("view", "square"))
    return Preprocessing(values["dataset"], classes, mean, std, side, view)
