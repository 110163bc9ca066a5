"""A network and an image that it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets import Dataset
from ..errors import ConfigError
from ..networks import Network
from ..training.checkpoint import Checkpoint, Preprocessing
from ..training.predict import read_image

Array = np.ndarray

HEIGHT = 560  # of the frame in a notebook, in pixels
OTHERS = 64  # test images beside the one that is shown


@dataclass(frozen=True)
class Subject:
    """What a report is about; a notebook shows it as a small page that computes the network.

    Attributes:
        network: float32, on the CPU.
        pixels: the image, uint8, (3, H, W).
        mean: (3,) in pixel values; the network sees (pixels − mean) / std.
        std: likewise.
        source: where the image is from.
        classes: names, () where they are not known.
        label: of the image, None where it is not known.
        others: more images for the search for dead channels, uint8, (N, 3, H, W).
        checkpoint: name of the file, "" for initial weights.
        command: the command line that makes the page again, "" where there is none.
        step: updates that the network was trained for, None where it is not known.
    """

    network: Network
    pixels: Array
    mean: Array
    std: Array
    source: str
    classes: tuple[str, ...] = ()
    label: int | None = None
    others: Array | None = None
    checkpoint: str = ""
    command: str = ""
    step: int | None = None

    @property
    def title(self) -> str:
        """What a choice of several networks calls it."""
        if not self.checkpoint:
            return "initial weights"
        return Path(self.checkpoint).name + ("" if self.step is None else f", step {self.step}")

    def _repr_html_(self) -> str:
        """Return the part of the page of `igcnn inspect` that computes, in a sandboxed frame."""
        try:
            from .page import render_view
        except ImportError as error:
            return f"<p>To see it compute: <code>pip install igcnn[inspect]</code> ({error})</p>"
        return render_view(self, HEIGHT)

    def normalised(self, pixels: Array) -> Array:
        """Return images as the network sees them, (N, 3, H, W)."""
        column = (slice(None), None, None)
        x = (pixels.astype(np.float32) - self.mean[column]) / self.std[column]
        return np.asarray(x, np.float32)


def with_picture(
    network: Network, path: Path, side: int, prepared: Preprocessing | None = None
) -> Subject:
    """Return a network with a picture of any size, cut to a square and resized to `side`.

    Args:
        network: float32, on the CPU.
        path: of the picture.
        side: in pixels.
        prepared: as the network's training had it; by default the picture is normalised by its
            own mean and standard deviation.

    Raises:
        DataError: the file cannot be read or is not an image.
    """
    plain = Preprocessing("", (), mean=(0, 0, 0), std=(1, 1, 1), side=side)
    pixels = read_image(path, prepared or plain)
    if prepared is None:
        channels = pixels.reshape(3, -1)  # (3, H, W) → (3, H·W)
        std = channels.std(axis=1).clip(1.0)
        return Subject(network, pixels, channels.mean(axis=1), std, path.name)
    mean, std = np.array(prepared.mean), np.array(prepared.std)
    return Subject(network, pixels, mean, std, path.name, prepared.classes)


def with_test_image(
    network: Network,
    data: Dataset,
    index: int,
    side: int,
    prepared: Preprocessing | None = None,
) -> Subject:
    """Return a network with a test image of a data set, and 64 others.

    Args:
        network: float32, on the CPU.
        data: where the images are from.
        index: of the image.
        side: in pixels; images of another side are resized.
        prepared: as the network's training had it; by default as training on `data` would.

    Raises:
        ConfigError: the index is out of range.
    """
    count = len(data.test)
    if not 0 <= index < count:
        raise ConfigError(f"{data.name} has test images 0 to {count - 1}, not {index}")
    indices = np.array([index, *range(min(OTHERS, count))])
    _, pixels = next(iter(data.test.batches([indices], None)))
    if pixels.shape[2:] != (side, side):
        pixels = np.stack([_resized(each, side) for each in pixels])
    return Subject(
        network,
        pixels[0],
        np.array((prepared or data).mean),
        np.array((prepared or data).std),
        f"{data.name}, test image {index}",
        data.classes if len(data.classes) == network.settings["num_classes"] else (),
        int(data.test.labels[index]),
        pixels[1:],
    )


def with_weights_of(
    subject: Subject, saved: Checkpoint, prepared: Preprocessing, path: str
) -> Subject:
    """Return a subject with the network of another checkpoint, which sees images its own way."""
    return replace(
        subject,
        network=saved.build(),
        mean=np.array(prepared.mean),
        std=np.array(prepared.std),
        checkpoint=path,
        step=saved.progress.get("step"),
    )


def _resized(pixels: Array, side: int) -> Array:
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    return np.asarray(image.resize((side, side))).transpose(2, 0, 1)
