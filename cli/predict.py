"""`igcnn predict`: what a trained network sees in images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("predict")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES…")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def predict_command(checkpoint: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Tell the classes of images, with their probabilities in percent.

    The images are prepared as those of the training were; the checkpoint knows how.

    \b
    igcnn predict runs/cifar10/…/checkpoints/best.h5 cat.jpg dog.png
    igcnn predict best.h5 photos/*.jpg --json
    """
    from igcnn.errors import CheckpointError
    from igcnn.training import load_checkpoint
    from igcnn.training.predict import read_image, top_classes

    saved = load_checkpoint(checkpoint)
    prepared = saved.preprocessing
    if prepared is None or not prepared.side:
        raise CheckpointError(
            f"{checkpoint} does not say how images were prepared; use one that igcnn train wrote"
        )
    # every image is read before the first is computed: a wrong path costs no waiting
    pixels = [read_image(Path(path), prepared) for path in images]
    ranked = top_classes(saved.build(), pixels, prepared, top)
    if as_json:
        rows: list[dict[str, Any]] = [
            {"image": path, "classes": [{"class": c, "probability": p} for c, p in row]}
            for path, row in zip(images, ranked, strict=True)
        ]
        click.echo(json.dumps(rows))
        return
    width = max(map(len, images))
    for path, row in zip(images, ranked, strict=True):
        shown = "   ".join(f"{name} {100 * p:.1f} %" for name, p in row)
        click.echo(f"{path:{width}}  {shown}")
