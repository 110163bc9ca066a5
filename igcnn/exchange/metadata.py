"""What a file says about its weights, as JSON texts: network, classes, preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..layers import Layer
from ..networks import Network
from ..training import Preprocessing
from ..version import __version__


def to_metadata(network: Layer, preprocessing: Preprocessing | None) -> dict[str, str]:
    """Return what is known of a network and of the images that it was trained on."""
    content: dict[str, Any] = {}
    if isinstance(network, Network):
        content["network"] = network.settings
    if preprocessing:
        values = asdict(preprocessing)
        content["classes"] = values.pop("classes")
        # mean and std are in pixel values from 0 to 255
        content["preprocessing"] = values | {"channels": "RGB", "layout": "NCHW"}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}
    return texts | {"igcnn_version": __version__}


def from_metadata(
    metadata: Mapping[str, str], path: Path
) -> tuple[dict[str, Any] | None, Preprocessing | None]:
    """Return the arguments of build_network and the preprocessing, each None if not said.

    Raises:
        CheckpointError: the texts are not those that to_metadata writes.
    """
    try:
        settings = json.loads(metadata["network"]) if "network" in metadata else None
        if settings is not None and not isinstance(settings, dict):
            raise TypeError("network is not an object")
        if "preprocessing" not in metadata:
            return settings, None
        values = json.loads(metadata["preprocessing"])
        preprocessing = Preprocessing(
            dataset=str(values["dataset"]),
            classes=tuple(map(str, json.loads(metadata["classes"]))),
            mean=_color(values["mean"]),
            std=_color(values["std"]),
            side=int(values["side"]),
            view=str(values["view"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read the metadata of {path} ({type(error).__name__}: {error}); give the "
            "network by --net or --like"
        ) from error
    return settings, preprocessing


def _color(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
