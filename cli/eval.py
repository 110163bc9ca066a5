"""`igcnn eval`: loss and accuracy of a checkpoint."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from .dataset import open_dataset, place_of_run
from .options import FILE, GroupedCommand, setting_options

if TYPE_CHECKING:
    from igcnn.training.metrics import Evaluation


@click.command("eval", cls=GroupedCommand)
@click.argument("checkpoint", metavar="CHECKPOINT|RUN", type=FILE)
@setting_options(
    "dataset",
    "data_dir",
    "device",
    "cores",
    "workers",
    "on_bad_image",
    dataset="as in training",
    data_dir="as in training",
    on_bad_image="as in training",
)
@click.option("--batch-size", type=int, metavar="N", help="Images at a time; only for speed.")
@click.option("--per-class", is_flag=True, help="Show accuracy and main confusion per class.")
@click.option("--confusion", is_flag=True, help="Show the confusion matrix.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def evaluate_command(
    checkpoint: str,
    dataset: str | None,
    data_dir: str | None,
    batch_size: int | None,
    device: str,
    cores: int | None,
    per_class: bool,
    confusion: bool,
    workers: int | None,
    on_bad_image: str | None,
    as_json: bool,
) -> None:
    """Evaluate a checkpoint or a run.

    Tests a checkpoint, or the best one of a run, on the test images of a data set. Prints
    top-1 and top-5 accuracy in percent, the mean cross-entropy and the number of images.

    \b
    igcnn eval runs/digits/…/20260101-120000
    igcnn eval best.h5 --dataset cifar10 --json
    """
    from igcnn.backend import keep_memory, resolve_device
    from igcnn.errors import CheckpointError, ConfigError, DivergedError
    from igcnn.training import evaluate, load_checkpoint, make_engine
    from igcnn.training.evaluate import BATCH_SIZE

    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    device = resolve_device(device)
    keep_memory()
    saved = load_checkpoint(checkpoint)
    trained_on = saved.preprocessing
    name = dataset or (trained_on.dataset if trained_on else None)
    if name is None:
        raise ConfigError("the checkpoint does not name a data set; pass --dataset")
    place: dict[str, str | None] = {}
    if trained_on and name == trained_on.dataset:
        place |= place_of_run(checkpoint)
    given = {"data_dir": data_dir, "on_bad_image": on_bad_image}
    place |= {key: value for key, value in given.items() if value is not None}
    network = saved.build()
    side = trained_on.side if trained_on else None
    data = open_dataset(
        name,
        place.get("data_dir"),
        image_size=side,
        workers=workers,
        on_bad_image=place.get("on_bad_image"),
    )
    if network.settings["num_classes"] != len(data.classes):
        raise CheckpointError(
            f"{checkpoint} has {network.settings['num_classes']} classes, but "
            f"{name} has {len(data.classes)}; evaluate it on {_trained_on(trained_on)}"
        )
    if trained_on and name != trained_on.dataset and data.classes != trained_on.classes:
        raise ConfigError(
            f"{checkpoint} was trained on the classes of {trained_on.dataset}, but {name} has "
            f"different ones; evaluate it on {trained_on.dataset}"
        )
    # the network knows images as they were in its training
    prepared = trained_on or data
    batch_size = min(batch_size or BATCH_SIZE, len(data.test))
    image_shape = data.test.image_shape
    engine, _ = make_engine(
        network, image_shape, batch_size, device=device, cores=cores, training=False
    )
    try:
        result = evaluate(
            engine, data.test, mean=prepared.mean, std=prepared.std, batch_size=batch_size
        )
    finally:
        engine.close()
    if not math.isfinite(result.loss):
        raise DivergedError(
            f"the loss is {result.loss}: the weights in {checkpoint} come from a diverged run; "
            "use an earlier checkpoint"
        )
    if as_json:
        click.echo(json.dumps(_content(result, data.classes)))
        return
    click.echo(f"top-1   {result.top1:.2f} %")
    click.echo(f"top-5   {result.top5:.2f} %")
    click.echo(f"loss    {result.loss:.4f}")
    click.echo(f"images  {result.images}")
    if per_class:
        _print_classes(result.confusion, data.classes)
    if confusion:
        _print_confusion(result.confusion)


def _content(result: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {
        key: getattr(result, key) for key in ("top1", "top5", "loss", "images")
    }
    content["classes"] = [
        {"class": name, "images": int(row.sum()), "top1": None if math.isnan(top1) else top1}
        for name, row, top1 in zip(
            classes, result.confusion, result.class_top1().tolist(), strict=True
        )
    ]
    content["confusion"] = result.confusion.tolist()
    return content


def _print_classes(confusion: Any, classes: tuple[str, ...]) -> None:
    width = max(map(len, classes))
    click.echo(f"\n{'class':{width}}  images   top-1   most often taken for")
    for k, name in enumerate(classes):
        click.echo(f"{name:{width}}  {_class_line(confusion[k], k, classes)}")


def _print_confusion(confusion: Any) -> None:
    click.echo("\nconfusion: rows are labels, columns are predictions")
    cell = max(len(str(confusion.max())), len(str(len(confusion) - 1))) + 1
    numbers = range(len(confusion))
    click.echo(" " * 5 + "".join(f"{k:{cell}}" for k in numbers))
    for k in numbers:
        click.echo(f"{k:4} " + "".join(f"{n:{cell}}" for n in confusion[k]))


def _class_line(row: Any, label: int, classes: tuple[str, ...]) -> str:
    """Return images, accuracy and the commonest mistake of a class."""
    images, right = int(row.sum()), int(row[label])
    if not images:
        return f"{0:6}       –"
    wrong = row.copy()
    wrong[label] = 0
    other = int(wrong.argmax())
    mistake = f"{classes[other]} ({100 * wrong[other] / images:.1f} %)" if wrong[other] else ""
    return f"{images:6}  {100 * right / images:6.2f}  {mistake}".rstrip()


def _trained_on(preprocessing: object) -> str:
    return getattr(preprocessing, "dataset", "the data set that it was trained on")
