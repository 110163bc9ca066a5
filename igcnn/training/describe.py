"""What a run says before the first step and after the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..layers.summary import Summary
from ..text import duration
from .checkpoint import Checkpoint
from .trainer import Result, Trainer


def opening_lines(trainer: Trainer, summary: Summary, checkpoint: Checkpoint | None) -> list[str]:
    """Return what there is to say before the first step.

    Args:
        trainer: of the run.
        summary: of its network.
        checkpoint: from which it goes on, None for a new run.
    """
    data, recipe, run = trainer.dataset, trainer.recipe, trainer.run_directory
    _, height, width = data.train.image_shape
    network = describe_network(trainer.network.settings)
    steps = ", ".join(map(str, recipe.lr_steps or ())) or "none"
    lines = [
        f"network     {network}: {summary.params:,} parameters, {summary.macs:,} multiply-adds an "
        "image",
        f"data set    {data.name}: {len(data.train.labels):,} training and "
        f"{len(data.test.labels):,} test images of {height}×{width} in "
        f"{len(data.classes)} classes",
        f"recipe      epochs {recipe.epochs}, batch size {recipe.batch_size}, lr "
        f"{recipe.lr:g} (×{recipe.lr_factor:g} after epochs: {steps}), momentum "
        f"{recipe.momentum:g}, weight decay {recipe.weight_decay:g}",
        f"run folder  {run.path}",
    ]
    if checkpoint:
        lines.append(f"resumed     after step {checkpoint.progress['step']}")
    return lines


def closing_lines(trainer: Trainer, result: Result) -> list[str]:
    """Return what there is to say after the last step.

    Args:
        trainer: of the run.
        result: how it ended.
    """
    run, last = trainer.run_directory, result.evaluation
    lines = [
        f"last        test top-1 {last.top1:.2f} %, top-5 {last.top5:.2f} %, loss "
        f"{last.loss:.4f} after step {result.step}, {duration(result.seconds)}"
    ]
    if result.best_epoch:
        lines.insert(0, f"best        {describe_best(result)}")
    # the first two are written when an epoch ends
    names = [n for n in ("metrics.csv", "curves.svg") if (run.path / n).exists()]
    return [
        *lines,
        f"files       {run.path}: {', '.join([*names, 'checkpoints/'])}",
        f"next        igcnn eval {run.path}",
    ]


def describe_network(settings: Mapping[str, Any]) -> str:
    """Return name and settings of a network in a line."""
    own = (f"{k} {v}" for k, v in settings.items() if k not in ("net", "num_classes"))
    return ", ".join([settings.get("net", "network"), *own])


def describe_best(result: Result) -> str:
    """Return the best accuracy of a run that has come to the end of an epoch."""
    return f"test top-1 {result.best_top1:.2f} % after epoch {result.best_epoch}"
