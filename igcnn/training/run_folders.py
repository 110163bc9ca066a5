"""Where runs lie: runs/<data set>/<network>/<date>-<time>."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .run_directory import RunDirectory


def default_folder(root: Path, dataset: str, network: Mapping[str, Any]) -> Path:
    """Return the folder in which the runs of a network on a data set lie.

    Args:
        root: of all runs.
        dataset: see dataset_label.
        network: its settings.
    """
    own = {k: v for k, v in network.items() if k not in ("net", "num_classes")}
    name = network.get("net", "network")
    if {"depth", "L", "M"} <= own.keys():
        label = f"{name}-L{own['L']}M{own['M']}-d{own['depth']}"
    else:
        label = "-".join([name, *(f"{key}{value}" for key, value in own.items())])
    dataset, label = (re.sub(r"[^\w.+-]|^\.", "_", text) for text in (dataset, label))
    return root / dataset / label


def dataset_label(dataset: str, data_dir: str | None) -> str:
    """Return what a data set is called in paths and lists: one's own has its folder's name."""
    own = Path(data_dir).absolute().name if data_dir else ""
    return own if own and dataset == "folder" else dataset


def new_run(folder: Path) -> RunDirectory:
    """Return a run directory in `folder` that is named after the time and does not exist yet."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = folder / name
    count = 1
    while path.exists():
        count += 1
        path = folder / f"{name}-{count}"
    return RunDirectory(path)


def newest_run(folder: Path) -> RunDirectory | None:
    """Return the newest run in `folder` that has a checkpoint, None if there is none."""
    runs = [RunDirectory(path) for path in folder.iterdir()] if folder.is_dir() else []
    runs = [run for run in runs if run.last.is_file()]
    return max(runs, key=lambda run: run.last.stat().st_mtime_ns, default=None)
