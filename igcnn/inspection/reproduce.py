"""The paper's tables beside what this code computes and what runs on this disk have reached."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..layers import InterleavedGroupConvolution
from ..layers.summary import summarize
from ..networks import build_network
from ..training.run_directory import RunDirectory
from ..training.runs import RunSummary, find_runs


@dataclass(frozen=True)
class Reproduced:
    """A row of a table.

    Attributes:
        name: what the paper calls it.
        published: what the paper says, by column; empty where it is not known.
        computed: what this code counts: params, params_without_bn, macs; width and params of a
            block. Empty for networks of others.
        measured: for each data set what runs on this disk reached, in words.
    """

    name: str
    published: dict[str, str]
    computed: dict[str, int]
    measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: what `igcnn reproduce` calls it.
        title: in words.
        note: how to read it.
        datasets: columns of accuracy.
        rows: in the paper's order.
    """

    name: str
    title: str
    note: str
    datasets: tuple[str, ...]
    rows: tuple[Reproduced, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self)


def table_names() -> tuple[str, ...]:
    """Return the names of the tables."""
    return tuple(_paper())


def reproduce(name: str, runs: Path | None = None) -> Table:
    """Return a table of the paper with what is computed now.

    Args:
        name: one of table_names.
        runs: a folder with runs, None for none.

    Raises:
        ConfigError: there is no such table.
    """
    paper = _paper()
    if name not in paper:
        raise ConfigError(f"unknown table {name!r}; choose one of {', '.join(paper)}")
    content = paper[name]
    found = list(_whole_runs(runs)) if runs is not None and runs.is_dir() else []
    rows = []
    for row in content["rows"]:
        published = dict(row.get("published", {}))
        published |= {key: row[key] for key in ("params", "multiply_adds") if key in row}
        measured = (
            {d: _measured(row["network"], d, found) for d in content["datasets"]}
            if ("network" in row)
            else {}
        )
        rows.append(
            Reproduced(
                row["name"], published, _computed(row), {d: m for d, m in measured.items() if m}
            )
        )
    note = " ".join(content["note"].split())
    return Table(name, content["title"], note, tuple(content["datasets"]), tuple(rows))


def _paper() -> dict[str, Any]:
    path = resources.files(__package__).joinpath("paper.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _computed(row: dict[str, Any]) -> dict[str, int]:
    if "block" in row:
        L, M = row["block"]["L"], row["block"]["M"]
        unit = InterleavedGroupConvolution(L * M, L * M, L, rng=np.random.default_rng(0))
        return {"width": L * M, "params": sum(tensor.size for tensor in unit.parameters())}
    if "network" not in row:
        return {}
    network = build_network(**row["network"])
    summary = summarize(network, (3, network.image_size, network.image_size))
    return {
        "params": summary.params,
        "params_without_bn": summary.params - summary.params_of("bn"),
        "macs": summary.macs_conv,
    }


def _whole_runs(folder: Path) -> Iterator[tuple[dict[str, Any], RunSummary]]:
    """Yield settings and summary of every run that came to its end."""
    for run in find_runs(folder):
        if run.state == "done" and run.last_top1 is not None:
            yield RunDirectory(run.path).read_config(), run


def _measured(
    network: dict[str, Any], dataset: str, runs: list[tuple[dict[str, Any], RunSummary]]
) -> str:
    """Return the mean error of the longest runs of a network on a data set, in words."""
    wanted = {k: v for k, v in network.items() if k != "num_classes"} | {"dataset": dataset}
    errors: dict[int, list[float]] = {}
    for settings, run in runs:
        if all(settings.get(key) == value for key, value in wanted.items()):
            assert run.last_top1 is not None
            errors.setdefault(run.epochs, []).append(100 - run.last_top1)
    if not errors:
        return ""
    epochs = max(errors)
    own = errors[epochs]
    return f"{mean(own):.2f} ({len(own)} × {epochs} epochs)"
