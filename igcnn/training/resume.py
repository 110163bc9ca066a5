"""Whether a run can go on from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..datasets import Dataset
from ..errors import CheckpointError, ConfigError
from ..networks import Network
from .checkpoint import Checkpoint
from .recipe import Recipe

# what the images, the pixels of the batches and the velocity depend on, and what a checkpoint
# means that does not say it
FIXED: dict[str, Any] = {
    "dataset": None,
    "validation": 0.0,
    "images": None,
    "seed": None,
    "batch_size": None,
    "freeze": [],
}


def training_settings(dataset: Dataset, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Return what the training depends on, as JSON values: Checkpoint.training."""
    return {
        "dataset": dataset.name,
        "images": len(dataset.train.labels),
        "seed": seed,
        **asdict(recipe),
        "freeze": list(recipe.freeze),
    }


def check_same_run(checkpoint: Checkpoint, network: Network, settings: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint is of a run like this one.

    Args:
        checkpoint: to go on from.
        network: that is to be trained.
        settings: as the trainer writes them to checkpoints.

    Raises:
        CheckpointError: it is of another network.
        ConfigError: it was trained on other images, in other batches, with another seed or with
            other parameters frozen.
    """
    if checkpoint.network != network.settings:
        raise CheckpointError(
            f"the checkpoint is of the network {checkpoint.network}, not of "
            f"{network.settings}; resume with the same network"
        )
    for name, default in FIXED.items():
        before = checkpoint.training.get(name, default)
        if before != settings[name]:
            raise ConfigError(
                f"the run to resume has {name} = {before}, not {settings[name]}; resume "
                "with the same value or start a new run"
            )
