"""Lines printed at the start of a run, and records and lines of an epoch."""

from __future__ import annotations

from ..datasets import Dataset
from ..layers import BatchNorm, Layer
from ..optim import SGD
from .metrics import Evaluation, Sums

NAMES = {"val": "validation", "test": "test"}
# when batch norm is to blame: accuracies so many points apart, and a share of the running
# statistics that is still of their initial values
GAP = 20.0
INITIAL_SHARE = 0.05


def unusual_lines(dataset: Dataset, network: Layer, optimizer: SGD) -> list[str]:
    """Return what is not as usual: how the images are divided, what is not trained.

    Args:
        dataset: as it is trained on.
        network: what is trained.
        optimizer: has the parameters that are not frozen.
    """
    lines = [f"split       {note}" for note in dataset.notes]
    if dataset.validation is not None:
        lines.append(
            f"validation  {len(dataset.validation)} of the training images are held out to choose "
            f"best.h5, {len(dataset.train)} are trained on; the test images are evaluated once, "
            "at the end"
        )
    total = len(network.parameters())
    frozen = total - len(optimizer.parameters)
    if frozen:
        lines.append(
            f"frozen      {frozen} of {total} parameters; the running statistics of batch norm "
            "still follow the training images"
        )
    return lines


def step_row(
    step: int, updates_per_epoch: int, training: Sums, lr: float, seconds: float
) -> dict[str, float]:
    """Return the row of metrics.jsonl.

    Args:
        step: updates done.
        updates_per_epoch: of these.
        training: sums since the last row.
        lr: of the last update.
        seconds: duration of the run so far.
    """
    return {
        "step": step,
        "epoch": (step - 1) // updates_per_epoch + 1,
        "loss": training.mean_loss,
        "top1": training.top1,
        "lr": lr,
        "images_per_second": round(training.images_per_second, 2),
        "seconds": round(seconds, 3),
    }


def epoch_row(
    epoch: int,
    step: int,
    training: Sums,
    evaluation: Evaluation,
    held_out: str,
    lr: float,
    seconds: float,
) -> dict[str, float]:
    """Return the row of metrics.csv.

    Args:
        epoch: from 1.
        step: updates done.
        training: sums over the epoch.
        evaluation: on the held-out images.
        held_out: which these are, "val" or "test".
        lr: of the last update.
        seconds: duration of the run so far.
    """
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": training.mean_loss,
        "train_top1": training.top1,
        f"{held_out}_loss": evaluation.loss,
        f"{held_out}_top1": evaluation.top1,
        f"{held_out}_top5": evaluation.top5,
        "lr": lr,
        "seconds": round(seconds, 3),
    }


def epoch_line(epoch: int, epochs: int, training: Sums, evaluation: Evaluation, on: str) -> str:
    """Return an epoch in words; `on` as held_out in epoch_row."""
    return (
        f"epoch {epoch}/{epochs} done: training loss {training.mean_loss:.4f}, top-1 "
        f"{training.top1:.2f} %; {NAMES[on]} loss {evaluation.loss:.4f}, top-1 "
        f"{evaluation.top1:.2f} %, top-5 {evaluation.top5:.2f} %"
    )


def lagging_statistics(
    network: Layer, step: int, train_top1: float, held_out_top1: float
) -> str | None:
    """Return why a network does well in training only, if batch norm explains it, else None.

    Training uses the statistics of the batch, evaluation running ones, of which the share
    momentum^step is still of their initial values.

    Args:
        network: its batch norms say their momentum.
        step: updates done.
        train_top1: accuracy in training, in percent.
        held_out_top1: accuracy on images that are not trained on.
    """
    momenta = [x.momentum for _, x in network.named_layers() if isinstance(x, BatchNorm)]
    momentum = max(momenta, default=0.0)
    share, updates = momentum**step, 0
    if share < INITIAL_SHARE or train_top1 - held_out_top1 < GAP:
        return None
    while momentum**updates >= INITIAL_SHARE:
        updates += 1
    return (
        f"batch norm  after {step} updates its running statistics (momentum {momentum:g}) are "
        f"still {share:.0%} initial values, so the accuracy of {held_out_top1:.2f} % is not "
        f"meaningful yet; train for at least {updates} updates"
    )
