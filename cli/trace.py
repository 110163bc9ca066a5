"""`igcnn trace`: the tape of a training step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .network import make_network, network_options, settings_line
from .options import GroupedCommand

if TYPE_CHECKING:
    from igcnn.inspection import Trace


@click.command("trace", cls=GroupedCommand)
@network_options
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def trace_command(batch_size: int, as_json: bool, **options: Any) -> None:
    """Show the tape of a training step.

    For each record: layer, operation, shapes, arrays kept for backward, milliseconds forward and
    backward. At the end: the peak memory of the step and the operations of the plan, or why
    there is no plan.

    \b
    igcnn trace --net plain_igc --depth 8 --batch-size 64
    """
    from igcnn.backend import single_threaded_blas
    from igcnn.inspection import trace

    network, image_shape = make_network(**options)
    with single_threaded_blas():
        result = trace(network, image_shape, batch_size)
    if as_json:
        click.echo(json.dumps({"network": network.settings, **result.to_json()}))
        return
    click.echo(f"{settings_line(network)}\n")
    _print(result)


def _print(result: Trace) -> None:
    names = [record.layer for record in result.records]
    operations = [record.op for record in result.records]
    outputs = ["×".join(map(str, record.output)) or "scalar" for record in result.records]
    widths = [max(map(len, column)) for column in (names, operations, outputs)]
    heads = ("layer", "operation", "output")
    line = "  ".join(f"{head:{width}}" for head, width in zip(heads, widths, strict=True))
    click.echo(f"  #  {line}    kept kB   forward ms  backward ms")
    rows = zip(result.records, names, operations, outputs, strict=True)
    for i, (record, *cells) in enumerate(rows):
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
        click.echo(
            f"{i:3}  {line}  {record.kept / 1000:9,.1f}  {record.forward_ms:11.3f}  "
            f"{record.backward_ms:11.3f}"
        )
    forward = sum(record.forward_ms for record in result.records)
    backward = sum(record.backward_ms for record in result.records)
    kept = sum(record.kept for record in result.records)
    click.echo(
        f"\nsum        {len(result.records)} records, {kept / 1e6:,.1f} MB kept for backward, "
        f"{forward:.1f} ms forward, {backward:.1f} ms backward"
    )
    click.echo(f"memory     {result.peak_bytes / 1e6:,.1f} MB at most")
    if result.plan is None:
        click.echo(f"plan       none: {result.reason}")
    else:
        nodes = ", ".join(f"{count} {op}" for op, count in result.plan.items())
        click.echo(f"plan       {sum(result.plan.values())} nodes: {nodes}")
