"""`igcnn reproduce`: the papers' tables, and what this code makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import GroupedCommand


@click.command("reproduce", cls=GroupedCommand)
@click.argument("table", required=False)
@click.option(
    "--runs", "folder", default="runs", show_default=True, help="Directory of trained runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reproduce_command(table: str | None, folder: str, as_json: bool) -> None:
    """Show a table of the papers.

    Compares the published figures with counts made now and with your runs. Tables: sota,
    imagenet, width, depth of IGCNets; igcv2, igcv2_factors, igcv3, igcv3_imagenet of its
    successors; without a name, lists them. Parameters and multiply-adds are counted from the
    networks; errors come from finished runs on this disk and stay empty without any.

    \b
    igcnn reproduce imagenet
    igcnn reproduce depth --runs ~/runs
    """
    from igcnn.inspection.reproduce import reproduce, table_names

    if table is None:
        for name in table_names():
            click.echo(name)
        return
    result = reproduce(table, Path(folder))
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
        return
    heads = [
        "network",
        "parameters: paper",
        "parameters here",
        "without BN",
        "multiply-adds: paper",
        "multiply-adds here",
    ]
    for dataset in result.datasets:
        heads += [f"{dataset}: paper", "runs here"]
    blocks = "width" in result.rows[0].computed
    if blocks:
        heads[1:6] = ["width here", "parameters of the block here"]
    rows = []
    for entry in result.rows:
        count = entry.computed
        cells = [
            entry.name,
            entry.published.get("params", ""),
            f"{count['params']:,}" if "params" in count else "",
            f"{count['params_without_bn']:,}" if "params_without_bn" in count else "",
            entry.published.get("multiply_adds", ""),
            f"{count['macs'] / 1e6:,.2f} M" if "macs" in count else "",
        ]
        if blocks:
            cells[1:6] = [str(count["width"]), f"{count['params']:,}"]
        for dataset in result.datasets:
            cells += [entry.published.get(dataset, ""), entry.measured.get(dataset, "")]
        rows.append(cells)
    # a column in which nothing is known says nothing
    kept = [i for i, head in enumerate(heads) if any(r[i] for r in rows) or head == "runs here"]
    widths = [max(len(heads[i]), *(len(r[i]) for r in rows)) for i in kept]
    click.echo(f"{result.title}\n")
    lines = [[heads[i] for i in kept], ["-" * w for w in widths]]
    lines += [[row[i] for i in kept] for row in rows]
    for line in lines:
        click.echo("  ".join(f"{v:{w}}" for v, w in zip(line, widths, strict=True)).rstrip())
    click.echo(f"\n{result.note}")
