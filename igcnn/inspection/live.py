"""What the page of `igcnn inspect` needs to compute by itself: steps, weights, images, a check."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .steps import StepError, Steps, multiply_adds, read_steps
from .subject import Subject

Array = np.ndarray

MOST_BYTES = 1_600_000  # of all weights as text, so that a page stays below 3 MB
MOST_MACS = 150_000_000  # of one image, so that an answer takes no more than seconds


@dataclass(frozen=True)
class Live:
    """What a page computes by itself.

    Attributes:
        steps: of the first network; None where it contains something that has no step.
        data: for the page's script; None where it cannot compute.
        reason: why it cannot, or which further networks are left out; "" for neither.
    """

    steps: Steps | None
    data: dict[str, Any] | None
    reason: str


def make_live(subject: Subject, others: Sequence[Subject] = ()) -> Live:
    """Return what a page computes of a network, and of as many others as fit beside it.

    Args:
        subject: the network and the image that the page begins with.
        others: more checkpoints or networks, for images of the same size.
    """
    try:
        steps = read_steps(subject.network, _seen(subject), subject.label)
    except StepError as error:
        return Live(None, None, f"{error}, so the page cannot compute it")
    macs = multiply_adds(steps)
    if macs > MOST_MACS:
        most = f"{MOST_MACS // 10**6:,}"
        reason = (
            f"an image takes {macs // 10**6:,} million multiply-adds, more than {most} million"
        )
        return Live(steps, None, reason)
    first = _model(subject, steps)
    if len(first["weights"]) > MOST_BYTES:
        params = sum(array.size for array in steps.arrays)
        return Live(steps, None, f"its {params:,} numbers would make the page too large")
    models, left_out = [(subject, first, steps.to_json())], []
    room = MOST_BYTES - len(first["weights"])
    for other in others:
        try:
            own = read_steps(other.network, _seen(subject, other), subject.label)
        except StepError:
            left_out.append(other.title)
            continue
        model = _model(other, own)
        if len(model["weights"]) > room or own.shapes[-1] != steps.shapes[-1]:
            left_out.append(other.title)
            continue
        room -= len(model["weights"])
        models.append((other, model, own.to_json()))
    models.sort(key=lambda each: each[0].step or 0)
    programs: list[dict[str, Any]] = []
    for _, model, program in models:
        if program not in programs:
            programs.append(program)
        model["program"] = programs.index(program)
    data = {
        "programs": programs,
        "models": [model for _, model, _ in models],
        "first": next(k for k, each in enumerate(models) if each[0] is subject),
        "shape": list(subject.pixels.shape),
        "pixels": _text(subject.pixels.tobytes()),
        "classes": [_class(subject, k) for k in range(steps.values[-1].size)],
        "label": steps.label,
    }
    return Live(
        steps,
        data,
        f"left out, too large or with other classes: {', '.join(left_out)}" * bool(left_out),
    )


def _class(subject: Subject, k: int) -> str:
    return subject.classes[k] if k < len(subject.classes) else str(k)


def _seen(subject: Subject, by: Subject | None = None) -> Array:
    return (by or subject).normalised(subject.pixels[None])


def _model(subject: Subject, steps: Steps) -> dict[str, Any]:
    """Return a network's numbers: weights packed, its check, how it sees images."""
    weights = np.concatenate([array.ravel() for array in steps.arrays]).astype("<f4")
    # all first bytes, then all second bytes, …: signs and exponents are alike and pack well
    planes = weights.view(np.uint8).reshape(-1, 4).T.tobytes()
    return {
        "name": subject.title,
        "weights": _text(zlib.compress(planes, 9)),
        "check": steps.samples(),
        "mean": [float(value) for value in subject.mean],
        "std": [float(value) for value in subject.std],
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
