"""The papers' tables beside what this code computes and what runs on this disk have reached."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..layers import InterleavedProduct
from ..layers.summary import summarize
from ..networks import Network, build_network
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
    """A table of a paper.

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
    """Return a table of a paper with what is computed now.

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
        computed, measured = {}, {}
        if "block" in row:
            computed = _block(**row["block"])
        elif "network" in row:
            network = build_network(**row["network"])
            computed = _network(network)
            texts = {d: _measured(row["network"], network, d, found) for d in content["datasets"]}
            measured = {dataset: text for dataset, text in texts.items() if text}
        rows.append(Reproduced(row["name"], published, computed, measured))
    note = " ".join(content["note"].split())
    return Table(name, content["title"], note, tuple(content["datasets"]), tuple(rows))


def _paper() -> dict[str, Any]:
    path = resources.files(__package__).joinpath("paper.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _block(
    L: int = 1, M: int = 1, width: int | None = None, factors: Sequence[int] | None = None
) -> dict[str, int]:
    """Return what is counted of an IGC unit, or of a product with a channel-wise 3×3 first."""
    C, fan_ins = width or L * M, factors or (M, L)
    groups = [C // fan_in for fan_in in ([1, *fan_ins] if factors else fan_ins)]
    unit = InterleavedProduct([C] * (len(groups) + 1), groups, rng=np.random.default_rng(0))
    return {"width": C, "params": sum(tensor.size for tensor in unit.parameters())}


def _network(network: Network) -> dict[str, int]:
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
    given: dict[str, Any],
    network: Network,
    dataset: str,
    runs: list[tuple[dict[str, Any], RunSummary]],
) -> str:
    """Return the mean error of the longest runs of a network on a data set, in words."""
    wanted = {k: v for k, v in given.items() if k != "num_classes"} | {"dataset": dataset}
    # what the table leaves open is by default, in runs as well
    others = {k: v for k, v in network.settings.items() if k not in given and k != "num_classes"}
    errors: dict[int, list[float]] = {}
    for settings, run in runs:
        same = all(settings.get(key) == value for key, value in wanted.items())
        if same and all(settings.get(key, value) == value for key, value in others.items()):
            assert run.last_top1 is not None
            errors.setdefault(run.epochs, []).append(100 - run.last_top1)
    if not errors:
        return ""
    epochs = max(errors)
    own = errors[epochs]
    return f"{mean(own):.2f} ({len(own)} × {epochs} epochs)"
