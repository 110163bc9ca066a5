"""`igcnn inspect`: a page about a network and one image."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .dataset import open_dataset, place_of_run
from .network import make_network, network_options, refuse_options
from .options import FILE, GroupedCommand, setting_options

if TYPE_CHECKING:
    from igcnn.inspection import Subject
    from igcnn.training.checkpoint import Checkpoint, Preprocessing

DEFAULT = "digits"  # the data set that is always there


@dataclass(frozen=True)
class Place:
    """Where an image is: a file's name, or a data set and an index."""

    image: str | None
    dataset: str | None
    index: int
    data_dir: str | None


@click.command("inspect", cls=GroupedCommand)
@click.argument("checkpoints", nargs=-1, metavar="[CHECKPOINT|RUN]…", type=FILE)
@network_options
@click.option("--image", metavar="FILE", type=FILE, help="Image to show the network.")
@setting_options("dataset", "data_dir", dataset="as in training")
@click.option("--index", type=click.IntRange(0), help="Test image to show instead. [default: 0]")
@click.option("-o", "--output", default="report.html", show_default=True, metavar="FILE")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object.")
def inspect_command(
    checkpoints: tuple[str, ...],
    image: str | None,
    dataset: str | None,
    index: int | None,
    data_dir: str | None,
    output: str,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a page about a network and an image.

    The page is a single HTML file that opens offline in any browser and computes the network
    itself: draw or drop an image, choose a class, and see activations, probabilities and
    gradients; silence a channel, change a weight. It also has formulas and source of each layer,
    wiring, composed kernels, gradients against central differences, other devices. Without a
    checkpoint the weights are the initial ones; several are shown beside each other, as are
    those of a run.

    \b
    pip install "igcnn[inspect]"
    igcnn inspect --depth 8 --L 24 --M 2 -o report.html
    igcnn inspect runs/cifar10/… --index 7 -o seven.html
    igcnn inspect early.h5 late.h5 -o both.html
    igcnn inspect best.h5 --image cat.jpg --json > cat.json
    """
    from igcnn.errors import ConfigError
    from igcnn.files import write_atomically
    from igcnn.inspection import make_live, make_report, other_devices

    try:
        from igcnn.inspection.page import render_page
    except ImportError as error:
        raise ConfigError(
            f'igcnn inspect needs {error.name}: pip install "igcnn[inspect]"'
        ) from error

    if image is not None and (dataset is not None or index is not None):
        raise ConfigError(
            "--image and the image of a data set cannot be combined; pass one of them"
        )
    path = Path(output)
    _check_output(path, overwrite)
    place = Place(image, dataset, index or 0, data_dir)
    others: list[Subject] = []
    if not checkpoints:
        subject = _of_initial_weights(options, place)
    else:
        refuse_options(checkpoints[0], options)
        subject = _of_checkpoint(checkpoints[0], place)
        others = [_beside(subject, other) for other in checkpoints[1:] or _of_run(checkpoints[0])]
    subject = replace(subject, command=_again(overwrite))
    report = make_report(subject, other_devices())
    page = render_page(report, make_live(subject, others))
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise _unwritable(path, error) from error
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(path)
    if report["failed"]:
        click.echo(f"gradients are wrong in: {', '.join(report['failed'])}")


def _again(overwrite: bool) -> str:
    """Return the command line, for a shell, that makes the page again in the same folder."""
    name, *rest = click.get_current_context().obj
    return shlex.join(["igcnn", name, *([] if overwrite else ["--overwrite"]), *rest])


def _check_output(path: Path, overwrite: bool) -> None:
    """Refuse what cannot be written before anything is computed."""
    from igcnn.errors import ConfigError

    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file by -o")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; choose another -o, or --overwrite it")
    trial = path.with_name(f".{path.name}.trial")
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> Exception:
    from igcnn.errors import ConfigError

    return ConfigError(f"cannot write {path}: {error.strerror or error}; choose another -o")


def _of_initial_weights(options: dict[str, Any], place: Place) -> Subject:
    """Return a new network, and an image of the size that it is for."""
    from igcnn.inspection.subject import with_picture, with_test_image

    if place.image is not None:
        network, (_, side, _) = make_network(**options)
        return with_picture(network, Path(place.image), side)
    name = place.dataset or DEFAULT
    data = open_dataset(name, place.data_dir, image_size=options["image_size"], workers=0)
    if place.dataset is not None:
        options["classes"] = options["classes"] or len(data.classes)
        options["image_size"] = options["image_size"] or data.test.image_shape[1]
    network, (_, side, _) = make_network(**options)
    return with_test_image(network, data, place.index, side)


def _of_run(path: str) -> list[str]:
    """Return the checkpoints of a run other than the one that its folder stands for."""
    from igcnn.training.run_directory import RunDirectory

    if not Path(path).is_dir():
        return []
    run = RunDirectory(path)
    # as load_checkpoint chooses it
    own = run.best if run.best.is_file() else run.last
    files = (run.previous, run.last, run.best)
    return [str(file) for file in files if file != own and file.is_file()]


def _beside(subject: Subject, path: str) -> Subject:
    """Return another checkpoint on the image of a subject.

    Raises:
        ConfigError: it is for images of another size.
    """
    from igcnn.errors import ConfigError
    from igcnn.inspection.subject import with_weights_of

    saved, prepared = _prepared(path)
    if prepared.side != subject.pixels.shape[1]:
        raise ConfigError(
            f"{path} is for images of {prepared.side} pixels a side, the first checkpoint for "
            f"{subject.pixels.shape[1]}; give checkpoints for images of one size"
        )
    return with_weights_of(subject, saved, prepared, path)


def _prepared(path: str) -> tuple[Checkpoint, Preprocessing]:
    """Return a checkpoint and how the images of its training were prepared."""
    from igcnn.errors import CheckpointError
    from igcnn.training import load_checkpoint

    saved = load_checkpoint(path)
    if saved.preprocessing is None or not saved.preprocessing.side:
        raise CheckpointError(
            f"{path} does not say how images were prepared; use one that igcnn train wrote"
        )
    return saved, saved.preprocessing


def _of_checkpoint(path: str, place: Place) -> Subject:
    """Return a trained network, and an image prepared as those of its training were."""
    from igcnn.inspection.subject import with_picture, with_test_image

    saved, prepared = _prepared(path)
    network = saved.build()
    if place.image is not None:
        subject = with_picture(network, Path(place.image), prepared.side, prepared)
    else:
        name = place.dataset or prepared.dataset
        own = place_of_run(path) if name == prepared.dataset else {}
        data = open_dataset(
            name,
            place.data_dir or own.get("data_dir"),
            image_size=prepared.side,
            workers=0,
            on_bad_image=own.get("on_bad_image"),
        )
        subject = with_test_image(network, data, place.index, prepared.side, prepared)
    return replace(subject, checkpoint=path, step=saved.progress.get("step"))
