"""`igcnn eval`: loss and accuracy of a checkpoint."""

from __future__ import annotations

import json
import math

import click


@click.command("eval")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--dataset", help="digits, cifar10, cifar100 or svhn.  [default: as in training]")
@click.option("--data-dir", help="Folder with the data set's files.")
@click.option("--batch-size", type=int, help="Images at a time; changes the speed alone.")
@click.option("--cores", type=int, help="Processes that share the work.  [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print top1, top5, loss, images as JSON.")
def evaluate_command(
    checkpoint: str,
    dataset: str | None,
    data_dir: str | None,
    batch_size: int | None,
    cores: int | None,
    as_json: bool,
) -> None:
    """Evaluate a checkpoint on the test images of a data set.

    Prints top-1 and top-5 accuracy in percent, the mean cross-entropy and the number of images.

    \b
    igcnn eval runs/digits/resnet_igc-L24M2-d20/20260101-120000/checkpoints/best.h5
    igcnn eval best.h5 --dataset cifar10 --data-dir ~/data --json
    """
    from igcnn.backend import keep_memory
    from igcnn.datasets import load_dataset
    from igcnn.errors import CheckpointError, ConfigError, DivergedError
    from igcnn.training import evaluate, load_checkpoint, make_engine
    from igcnn.training.evaluate import BATCH_SIZE

    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    keep_memory()
    saved = load_checkpoint(checkpoint)
    trained_on = saved.preprocessing
    name = dataset or (trained_on.dataset if trained_on else None)
    if name is None:
        raise ConfigError("the checkpoint names no data set; give one by --dataset")
    network = saved.build()
    data = load_dataset(name, data_dir)
    if network.settings["num_classes"] != len(data.classes):
        raise CheckpointError(
            f"{checkpoint} is of a network with {network.settings['num_classes']} classes, but "
            f"{name} has {len(data.classes)}; evaluate it on {_trained_on(trained_on)}"
        )
    # the network knows images as they were in its training
    prepared = trained_on or data
    batch_size = min(batch_size or BATCH_SIZE, len(data.test))
    image_shape = data.test.images.shape[1:]
    engine, _ = make_engine(network, image_shape, batch_size, cores=cores, training=False)
    try:
        result = evaluate(
            engine, data.test, mean=prepared.mean, std=prepared.std, batch_size=batch_size
        )
    finally:
        engine.close()
    if not math.isfinite(result.loss):
        raise DivergedError(
            f"the loss is {result.loss}: the weights in {checkpoint} are of a run that diverged; "
            "use an earlier checkpoint"
        )
    if as_json:
        keys = ("top1", "top5", "loss", "images")
        click.echo(json.dumps({key: getattr(result, key) for key in keys}))
        return
    click.echo(f"top-1   {result.top1:.2f} %")
    click.echo(f"top-5   {result.top5:.2f} %")
    click.echo(f"loss    {result.loss:.4f}")
    click.echo(f"images  {result.images}")


def _trained_on(preprocessing: object) -> str:
    return getattr(preprocessing, "dataset", "the data set that it was trained on")
