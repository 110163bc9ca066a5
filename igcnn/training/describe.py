"""The lines that a run prints before the first step and after the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..layers.summary import Summary
from ..text import duration
from .checkpoint import Checkpoint
from .epoch import lagging_statistics, unusual_lines
from .metrics import held_out
from .result import Result
from .trainer import Trainer


def opening_lines(trainer: Trainer, summary: Summary, checkpoint: Checkpoint | None) -> list[str]:
    """Return the lines to print before the first step.

    Args:
        trainer: of the run.
        summary: of its network.
        checkpoint: where it continues, None for a new run.
    """
    data, recipe, run = trainer.dataset, trainer.recipe, trainer.run_directory
    _, height, width = data.train.image_shape
    network = describe_network(trainer.network.settings)
    lines = [
        f"network     {network}: {summary.params:,} parameters, {summary.macs:,} multiply-adds "
        "per image",
        f"data set    {data.name}: {len(data.train.labels):,} training and "
        f"{len(data.test.labels):,} test images of {height}×{width} in "
        f"{len(data.classes)} classes",
        f"recipe      {recipe.describe()}",
        *unusual_lines(data, trainer.network, trainer.optimizer),
        f"run folder  {run.path}",
    ]
    if checkpoint:
        lines.append(f"resumed     after step {checkpoint.progress['step']}")
    return lines


def closing_lines(trainer: Trainer, result: Result) -> list[str]:
    """Return the lines to print after the last step.

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
    rows = run.read_epochs()
    if result.stopped_early:
        lines.append(
            f"stopped     early: the validation accuracy has not improved since epoch "
            f"{result.best_epoch}"
        )
    if rows:
        accuracies = rows[-1]["train_top1"], rows[-1][f"{held_out(rows[-1])}_top1"]
        lag = lagging_statistics(trainer.network, int(rows[-1]["step"]), *accuracies)
        lines += [lag] if lag else []
    if result.best_epoch and trainer.dataset.validation is None:
        lines.append(
            "note        best.h5 was chosen on the test images, so its accuracy on them is "
            "optimistic; to choose on others, hold some out: --validation 0.1"
        )
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
    best = result.best_evaluation
    if best is None:
        return f"test top-1 {result.best_top1:.2f} % after epoch {result.best_epoch}"
    return (
        f"test top-1 {best.top1:.2f} % after epoch {result.best_epoch}, chosen for "
        f"{result.best_top1:.2f} % on the validation images"
    )
