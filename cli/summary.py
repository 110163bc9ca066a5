"""`igcnn summary`: parameters and multiply-adds of a network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from igcnn.text import terminal_width, wrap_line

from .network import make_network, network_options, refuse_options, settings_line
from .options import FILE, GroupedCommand

if TYPE_CHECKING:
    from igcnn.networks import Network


@click.command("summary", cls=GroupedCommand)
@click.argument("checkpoint", required=False, metavar="[CHECKPOINT|RUN]", type=FILE)
@network_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary_command(checkpoint: str | None, as_json: bool, **options: Any) -> None:
    """Show a network layer by layer.

    For each layer: output shape, parameters and multiply-adds; for interleaved units whether
    every input reaches every output (the conditions of IGCV2). The network comes
    from a checkpoint or a run, or from the options. The imgnet networks are for
    224×224 images, the others for 32×32.

    \b
    igcnn summary --net plain_igc --depth 38 --L 24 --M 2
    igcnn summary --net resnet_igc_imgnet_d18 --L 100 --M 2
    igcnn summary runs/digits/resnet_igc-L24M2-d20/*
    """
    from igcnn.inspection import describe_conditions, summarize
    from igcnn.layers.summary import TOTALS

    if checkpoint is None:
        network, image_shape = make_network(**options)
    else:
        refuse_options(checkpoint, options)
        network, image_shape = _saved(checkpoint)
    summary = summarize(network, image_shape)
    if as_json:
        click.echo(json.dumps({"network": network.settings, **summary.to_json()}))
        return
    width = terminal_width()
    click.echo(f"{settings_line(network)}\n\n{summary.to_text(width)}")
    for line in describe_conditions(network):
        click.echo(wrap_line(f"units          {line}", width, TOTALS))


def _saved(path: str) -> tuple[Network, tuple[int, int, int]]:
    """Return the network of a checkpoint, and the shape of the images of its training."""
    from igcnn.training import load_checkpoint

    saved = load_checkpoint(path)
    network = saved.build()
    side = (saved.preprocessing and saved.preprocessing.side) or network.image_size
    return network, (3, side, side)
