"""safetensors files: a network's state under its own names, which are the authors'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from ..errors import CheckpointError
from ..layers import Layer
from ..training import Preprocessing
from .metadata import to_metadata

Array = np.ndarray


def safetensors_file(network: Layer, preprocessing: Preprocessing | None = None) -> bytes:
    """Return the parameters and buffers of a network as the content of a safetensors file."""
    arrays = {name: np.ascontiguousarray(x) for name, x in network.state_dict().items()}
    return save(arrays, to_metadata(network, preprocessing))


def read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a safetensors file by name, and its metadata.

    Raises:
        CheckpointError: the file cannot be read, or holds an element type that NumPy lacks.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
            if not all(array.dtype.kind in "fiu" for array in arrays.values()):
                raise TypeError("it holds numbers of a type that NumPy does not have")
            return arrays, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    except TypeError as error:  # such as bfloat16
        raise CheckpointError(f"cannot read {path}: {error}; save it as float32") from error
