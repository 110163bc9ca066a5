"""`igcnn convert`: checkpoints from the files of other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("convert")
def convert_group() -> None:
    """Make a checkpoint from weights of another program."""


@convert_group.command("mxnet")
@click.argument("params", metavar="FILE.params")
@click.argument("symbol", metavar="SYMBOL.json")
@click.option("-o", "--output", required=True, metavar="CHECKPOINT", help="The .h5 file to write.")
def mxnet_command(params: str, symbol: str, output: str) -> None:
    """Convert the authors' released ImageNet weights, MXNet's .params and symbol.json.

    \b
    igcnn convert mxnet NAME-0095.params NAME-symbol.json -o igc-L100M2.h5
    igcnn predict igc-L100M2.h5 photo.jpg
    """
    from igcnn.errors import ConfigError
    from igcnn.training import save_checkpoint
    from igcnn.training.mxnet import convert

    if Path(output).exists():
        raise ConfigError(f"{output} exists; move it away or choose another -o")
    network, preprocessing = convert(Path(params), Path(symbol))
    save_checkpoint(output, network, preprocessing=preprocessing)
    settings = "  ".join(f"{name} {value}" for name, value in network.settings.items())
    click.echo(f"{output}: {settings}")
