"""`igcnn summary`: parameters and multiply-adds of a network."""

from __future__ import annotations

import json

import click

CIFAR_SIZE, IMAGENET_SIZE = 32, 224


@click.command("summary")
@click.option("--net", default="resnet_igc", show_default=True, help="Network family.")
@click.option("--depth", type=int, help="Layers with weights.  [default: 20; ImageNet: 18]")
@click.option("--L", "L", type=int, help="Primary partitions.  [default: as published]")
@click.option("--M", "M", type=int, help="Channels of a primary partition.")
@click.option("--classes", type=int, help="Number of classes.  [default: 10; ImageNet: 1000]")
@click.option("--image-size", type=int, help="Side in pixels.  [default: 32; ImageNet: 224]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary_command(
    net: str,
    depth: int | None,
    L: int | None,
    M: int | None,
    classes: int | None,
    image_size: int | None,
    as_json: bool,
) -> None:
    """Show a network layer by layer: output shape, parameters, multiply-adds.

    Networks: plain, resnet, plain_igc, resnet_igc for 32×32 images; resnet_imgnet_d18,
    resnet_igc_imgnet_d18 for 224×224.

    \b
    igcnn summary --net plain_igc --depth 38 --L 24 --M 2
    igcnn summary --net resnet_igc_imgnet_d18 --L 100 --M 2 --json
    """
    from igcnn.errors import ConfigError
    from igcnn.inspection import summarize
    from igcnn.networks import build_network

    network = build_network(net, depth=depth, L=L, M=M, num_classes=classes)
    side = image_size
    if side is None:
        side = IMAGENET_SIZE if "imgnet" in net else CIFAR_SIZE
    if side < 1:
        raise ConfigError(f"--image-size must be at least 1, not {side}")
    summary = summarize(network, (3, side, side))
    if as_json:
        click.echo(json.dumps({"network": network.settings, **summary.to_json()}))
        return
    settings = "  ".join(f"{name} {value}" for name, value in network.settings.items())
    click.echo(f"{settings}\n\n{summary.to_text()}")
