"""`igcnn predict`: what a trained network sees in images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .dataset import Progress
from .options import FILE, GroupedCommand

BATCH = 32


@click.command("predict", cls=GroupedCommand)
@click.argument("checkpoint", metavar="CHECKPOINT|RUN", type=FILE)
@click.argument("images", nargs=-1, required=True, metavar="IMAGES…", type=FILE)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def predict_command(checkpoint: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Classify images.

    Prints the most likely classes of each image, with probabilities in percent.
    Images are preprocessed as in training; the checkpoint holds the settings.

    \b
    igcnn predict runs/cifar10/… cat.jpg dog.png
    igcnn predict best.h5 photos/ --json

    IMAGES are files, folders (all images below them) and patterns. Unreadable images are
    skipped and named, and the exit code is 3.
    """
    from igcnn.errors import CheckpointError, DataError
    from igcnn.training import load_checkpoint
    from igcnn.training.predict import expanded, read_image, top_classes

    saved = load_checkpoint(checkpoint)
    prepared = saved.preprocessing
    if prepared is None or not prepared.side:
        raise CheckpointError(
            f"{checkpoint} does not say how images were prepared; use one that igcnn train wrote"
        )
    paths = expanded(images)
    progress = Progress("images", at_once=False)
    read: list[Path] = []
    unreadable: list[str] = []

    def pixels() -> Iterator[Any]:
        for i, path in enumerate(paths):
            try:
                image = read_image(path, prepared)
            except DataError as error:
                unreadable.append(str(error))
                continue
            read.append(path)
            progress("predict", i + 1, len(paths))
            yield image

    width = max(len(str(path)) for path in paths)
    rows: list[dict[str, Any]] = []
    batch = min(BATCH, len(paths))
    for k, row in enumerate(top_classes(saved.build(), pixels(), prepared, top, batch)):
        if as_json:
            classes = [{"class": c, "probability": p} for c, p in row]
            rows.append({"image": str(read[k]), "classes": classes})
        else:
            shown = "   ".join(f"{name} {100 * p:.1f} %" for name, p in row)
            click.echo(f"{read[k]!s:{width}}  {shown}")
    if as_json:
        click.echo(json.dumps(rows))
    if unreadable:
        for line in unreadable[:-1]:
            click.echo(f"igcnn: {line}", err=True)
        left = f" ({len(unreadable)} of {len(paths)} skipped)" if len(paths) > 1 else ""
        raise DataError(unreadable[-1] + left)
