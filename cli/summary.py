"""`igcnn summary`: parameters and multiply-adds of a network."""

from __future__ import annotations

import json
from typing import Any

import click

from .network import make_network, network_options, settings_line


@click.command("summary")
@network_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary_command(as_json: bool, **options: Any) -> None:
    """Show a network layer by layer: output shape, parameters, multiply-adds.

    Networks: plain, resnet, plain_igc, resnet_igc for 32×32 images; resnet_imgnet_d18,
    resnet_igc_imgnet_d18 for 224×224.

    \b
    igcnn summary --net plain_igc --depth 38 --L 24 --M 2
    igcnn summary --net resnet_igc_imgnet_d18 --L 100 --M 2 --json
    """
    from igcnn.inspection import summarize

    network, image_shape = make_network(**options)
    summary = summarize(network, image_shape)
    if as_json:
        click.echo(json.dumps({"network": network.settings, **summary.to_json()}))
        return
    click.echo(f"{settings_line(network)}\n\n{summary.to_text()}")
