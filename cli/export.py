"""`igcnn export`: a trained network for other frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import FILE, GroupedCommand

if TYPE_CHECKING:
    from igcnn.networks import Network
    from igcnn.training import Preprocessing

    ImageShape = tuple[int, int, int]

FORMATS = ".onnx", ".safetensors", ".pt"


@click.command("export", cls=GroupedCommand)
@click.argument("checkpoint", metavar="CHECKPOINT|RUN", type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=FILE,
    help="The .onnx, .safetensors or .pt file.",
)
@click.option(
    "--fold-bn/--no-fold-bn",
    default=True,
    help="ONNX: fold batch normalization into the convolutions. [default: fold]",
)
@click.option(
    "--image-size",
    metavar="N",
    type=click.IntRange(1),
    help="Side in pixels. [default: as in training]",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def export_command(
    checkpoint: str, output: str, fold_bn: bool, image_size: int | None, overwrite: bool
) -> None:
    """Export a trained network to ONNX, safetensors or PyTorch.

    The ending of FILE chooses the format. A .pt file holds a state_dict; the PyTorch module that
    loads it is written beside it, as a .py file. ONNX models are checked against igcnn's logits
    if onnxruntime is installed.

    \b
    pip install "igcnn[export]"
    igcnn export runs/cifar10/… -o net.onnx
    igcnn export best.h5 -o net.safetensors
    igcnn export best.h5 -o net.pt
    """
    from igcnn.errors import ConfigError
    from igcnn.training import load_checkpoint

    path = Path(output)
    if path.suffix not in FORMATS:
        raise ConfigError(f"cannot tell the format of {path}; end it in {', '.join(FORMATS)}")
    targets = [path, path.with_suffix(".py")] if path.suffix == ".pt" else [path]
    for target in targets:
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; choose another -o or pass --overwrite")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder; create it or choose another -o")
    saved = load_checkpoint(checkpoint)
    network, preprocessing = saved.build(), saved.preprocessing
    side = image_size or (preprocessing.side if preprocessing else 0) or network.image_size
    shape = 3, side, side
    try:
        contents, note = _contents(path, network, shape, preprocessing, fold_bn)
    except ModuleNotFoundError as error:
        package = "torch" if error.name == "torch" else "igcnn[export]"
        raise ConfigError(
            f'exporting {path.suffix} needs {error.name}: pip install "{package}"'
        ) from error
    for target, content in zip(targets, contents, strict=True):
        _write(target, content)
    click.echo(f"{' '.join(map(str, targets))}: {note}")


def _contents(
    path: Path,
    network: Network,
    shape: ImageShape,
    preprocessing: Preprocessing | None,
    fold_bn: bool,
) -> tuple[list[bytes], str]:
    """Return the content of each file, and a line about it.

    Raises:
        ModuleNotFoundError: the format's package is not installed.
    """
    if path.suffix == ".onnx":
        from igcnn.exchange.onnx import OPSET, largest_difference, onnx_model

        model = onnx_model(network, shape, preprocessing, fold_bn)
        difference = largest_difference(model, network, shape)
        if difference is None:
            click.echo(
                "igcnn: the model passed the ONNX checker, but its logits were not compared with "
                "igcnn's; pip install onnxruntime and export again to compare them",
                err=True,
            )
        checked = "" if difference is None else f", ONNX Runtime agrees within {difference:.1e}"
        return [model], f"ONNX opset {OPSET}{checked}"
    if path.suffix == ".pt":
        from igcnn.exchange.pytorch import pytorch_files

        module = path.stem if path.stem.isidentifier() else "net"
        return list(pytorch_files(network, shape, preprocessing, module)), "PyTorch"
    from igcnn.exchange.safetensors import safetensors_file

    return [safetensors_file(network, preprocessing)], f"{len(network.state_dict())} arrays"


def _write(path: Path, content: bytes) -> None:
    from igcnn.errors import CheckpointError
    from igcnn.files import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another -o"
        ) from error
