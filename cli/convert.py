"""`igcnn convert`: checkpoints from the files of other frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .network import make_network, network_options, refuse_options, settings_line
from .options import FILE, GroupedCommand

if TYPE_CHECKING:
    from igcnn.networks import Network
    from igcnn.training import Preprocessing

file_argument = click.argument("file", metavar="FILE", type=FILE)
output_option = click.option(
    "-o",
    "--output",
    required=True,
    metavar="CHECKPOINT",
    type=FILE,
    help="The .h5 file to write.",
)
like_option = click.option(
    "--like",
    metavar="CHECKPOINT",
    type=FILE,
    help="Take network and preprocessing from a checkpoint.",
)


def weights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what the commands that read plain weights have in common."""
    return file_argument(output_option(like_option(network_options(command))))


@click.group("convert")
def convert_group() -> None:
    """Convert weights from other frameworks to an igcnn checkpoint."""


@convert_group.command("torch", cls=GroupedCommand)
@weights_options
def torch_command(file: str, output: str, **options: Any) -> None:
    """Convert a PyTorch state_dict.

    FILE is what torch.save(module.state_dict(), FILE) wrote, for a module that igcnn export wrote
    or one with the same names. No code in it is executed. Say by --like or --net which network it
    is.

    \b
    igcnn convert torch net.pt -o net.h5 --like best.h5
    igcnn convert torch net.pt -o net.h5 --net resnet_igc --depth 20 --L 24 --M 2
    """
    from igcnn.errors import ConfigError

    try:
        from igcnn.exchange.pytorch import read_state_dict
    except ModuleNotFoundError as error:
        raise ConfigError(f"reading {file} needs {error.name}: pip install torch") from error
    _convert(file, output, lambda path: (read_state_dict(path), {}), **options)


@convert_group.command("safetensors", cls=GroupedCommand)
@weights_options
def safetensors_command(file: str, output: str, **options: Any) -> None:
    """Convert a safetensors file.

    A file that igcnn export wrote names its network itself; for others, say by --like or --net
    which network it is.

    \b
    igcnn convert safetensors net.safetensors -o net.h5
    """
    from igcnn.errors import ConfigError

    try:
        from igcnn.exchange.safetensors import read_safetensors
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'reading {file} needs {error.name}: pip install "igcnn[export]"'
        ) from error
    _convert(file, output, read_safetensors, **options)


@convert_group.command("mxnet", cls=GroupedCommand)
@click.argument("params", metavar="FILE.params", type=FILE)
@click.argument("symbol", metavar="SYMBOL.json", type=FILE)
@output_option
def mxnet_command(params: str, symbol: str, output: str) -> None:
    """Convert the authors' released ImageNet weights: MXNet's .params and symbol.json.

    \b
    igcnn convert mxnet NAME-0095.params NAME-symbol.json -o igc-L100M2.h5
    igcnn predict igc-L100M2.h5 photo.jpg
    """
    from igcnn.exchange.mxnet import convert

    _check_output(output)
    _save(output, *convert(Path(params), Path(symbol)))


def _convert(
    file: str,
    output: str,
    read: Callable[[Path], tuple[dict[str, Any], dict[str, str]]],
    like: str | None,
    **options: Any,
) -> None:
    """Read weights, load them into the network that they are of, and save a checkpoint."""
    from igcnn.errors import CheckpointError
    from igcnn.exchange.names import network_of

    _check_output(output)
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    arrays, metadata = read(path)
    side = 0
    if like:
        refuse_options(like, options)
    if any(value not in (None, ()) for value in options.values()):
        described, (_, side, _) = make_network(**options)
        settings, preprocessing = described.settings, None
    else:
        settings, preprocessing = _described(path, like, metadata)
        side = preprocessing.side if preprocessing else 0
    try:
        network = network_of(arrays, settings, side)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _save(output, network, preprocessing)


def _described(
    path: Path, like: str | None, metadata: dict[str, str]
) -> tuple[dict[str, Any], Preprocessing | None]:
    """Return network settings and preprocessing, of the checkpoint `like` or of the metadata."""
    from igcnn.errors import ConfigError
    from igcnn.exchange.metadata import from_metadata
    from igcnn.training import load_checkpoint

    if like:
        saved = load_checkpoint(like)
        return saved.network, saved.preprocessing
    settings, preprocessing = from_metadata(metadata, path)
    if settings is None:
        raise ConfigError(f"{path} does not say which network it holds; pass --like or --net")
    return settings, preprocessing


def _check_output(output: str) -> None:
    from igcnn.errors import ConfigError

    if Path(output).exists():
        raise ConfigError(f"{output} exists; move it away or choose another -o")


def _save(output: str, network: Network, preprocessing: Preprocessing | None) -> None:
    from igcnn.training import save_checkpoint

    save_checkpoint(output, network, preprocessing=preprocessing)
    click.echo(f"{output}: {settings_line(network)}")
