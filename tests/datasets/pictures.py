"""Encoded images for tests, made by Pillow: smooth, so that JPEG keeps them."""

import io

import numpy as np
from PIL import Image


def ramp(width, height):
    """Return an image whose red grows to the right and green downwards, (H, W, 3)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels[..., 2] = 77
    return pixels


def encoded(seed, size=(80, 60), form="JPEG", mode="RGB"):
    """Return the bytes of an image of a few soft colours."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC).convert(mode)
    return to_bytes(image, form)


def to_bytes(image, form):
    """Return the bytes of a Pillow image."""
    stream = io.BytesIO()
    image.save(stream, form, **({"quality": 95} if form == "JPEG" else {}))
    return stream.getvalue()


def make_tree(folder, classes=3, images=5, size=(80, 60)):
    """Write train/ and val/ with a folder for each class."""
    for s, split in enumerate(("train", "val")):
        for c in range(classes):
            own = folder / split / f"n{c:03}"
            own.mkdir(parents=True)
            for i in range(images):
                data = encoded(100 * s + 10 * c + i, size)
                (own / f"{split}_{i}.JPEG").write_bytes(data)
    return folder
