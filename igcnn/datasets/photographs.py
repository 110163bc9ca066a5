"""From an encoded image to the pixels a network sees, as in the authors' ImageNet training.

Sizes refer to an image whose short side is 480, as the authors store them. In training the
image is scaled by s ∈ [0.533, 1] and its aspect changed by r ∈ [0.75, 1.25], width by 2s/(1 + r)
and height by 2s·r/(1 + r), about the centre of a canvas of max(256, s·W) × max(256, s·H) in the
mean colour; a random square is cut out; hue, lightness and saturation each move by one number an
image; half are mirrored. For evaluation the short side becomes 256 and the middle is cut out.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import DataError
from .dataset import AUGMENT_STREAM, Draw

Array = np.ndarray

STORED_SIDE = 480
SMALLEST_SCALE = 0.533
CANVAS_SIDE = 256
SIDE = 224
ASPECT = 0.25
HUE, LIGHTNESS, SATURATION = 36, 50, 50
MAX_PIXELS = 1 << 27

assert not ImageFile.LOAD_TRUNCATED_IMAGES


def training_view(data: bytes, index: int, draw: Draw, side: int = SIDE) -> Array:
    """Return one augmented image, uint8, (3, side, side).

    Raises:
        DataError: the bytes are not a readable image.
    """
    a, b, c, d = (int(word[0]) / 2**32 for word in draw.words(np.array([index]), AUGMENT_STREAM))
    e, f, g, h = (int(w[0]) / 2**32 for w in draw.words(np.array([index]), AUGMENT_STREAM, 1))
    s = SMALLEST_SCALE + (1 - SMALLEST_SCALE) * a
    r = 1 - ASPECT + 2 * ASPECT * b
    scale = s, 2 * s / (1 + r), 2 * s * r / (1 + r)
    pixels = _cut(_open(data, draft=True), scale, (c, d), side, draw.fill)
    shifts = [
        int(np.floor((2 * m + 1) * u)) - m for m, u in ((HUE, e), (LIGHTNESS, f), (SATURATION, g))
    ]
    pixels = shift_colour(pixels, *shifts)
    if h >= 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def evaluation_view(data: bytes, side: int = SIDE, upright: bool = False) -> Array:
    """Return the middle of one image, uint8, (3, side, side); its short side 256/224·side first.

    Args:
        data: the encoded image.
        side: in pixels.
        upright: turn it as its EXIF data say; ImageNet's recipe does not.

    Raises:
        DataError: the bytes are not a readable image.
    """
    image = _open(data, draft=False, upright=upright)
    return _middle(image, min(image.size) * side / round(side * CANVAS_SIDE / SIDE), side)


def square_view(data: bytes, side: int) -> Array:
    """Return the largest square in the middle of one image, resized, uint8, (3, side, side).

    The image is turned as its EXIF data say.

    Raises:
        DataError: the bytes are not a readable image.
    """
    image = _open(data, draft=False, upright=True)
    return _middle(image, min(image.size), side)


def _middle(image: Image.Image, cut: float, side: int) -> Array:
    """Return the square of `cut` pixels in the middle, resized, (3, side, side)."""
    left, top = (image.width - cut) / 2, (image.height - cut) / 2
    box = (left, top, left + cut, top + cut)
    resized = image.resize((side, side), _filter(side / cut, side / cut), box)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def shrunk(data: bytes, short_side: int = STORED_SIDE, quality: int = 95) -> bytes:
    """Return a JPEG of the image with this short side; smaller images and their bytes stay.

    Raises:
        DataError: the bytes are not a readable image.
    """
    image = _open(data, draft=False)
    if min(image.size) <= short_side and data[:2] == b"\xff\xd8":
        return data
    factor = min(1.0, short_side / min(image.size))
    size = round(image.width * factor), round(image.height * factor)
    result = io.BytesIO()
    image.resize(size, _filter(factor, factor)).save(result, "JPEG", quality=quality)
    return result.getvalue()


def _open(data: bytes, draft: bool, upright: bool = False) -> Image.Image:
    """Decode to RGB; as a draft, a JPEG comes at ½, ¼ or ⅛ of its size if that is enough."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"has {image.width} × {image.height} pixels, too many")
                if draft:
                    # at least as many pixels as the largest training scale shows
                    factor = STORED_SIDE / min(image.size)
                    size = round(image.width * factor), round(image.height * factor)
                    image.draft("RGB", size)
                return _as_rgb(ImageOps.exif_transpose(image) if upright else image)
    except DataError:
        raise
    except UnidentifiedImageError:
        # Pillow would name the buffer
        raise DataError("is not a readable image") from None
    # what Pillow raises on damaged files is not listed anywhere
    except Exception as error:
        raise DataError(f"is not a readable image ({error or type(error).__name__})") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as red, green and blue of 8 bits.

    Grey of 16 bits is scaled by its range. What is transparent shows the mean colour of what is
    not, instead of colours that nobody has seen.

    Raises:
        DataError: the range of its numbers is not known.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise DataError(f"has pixels of unknown range ({kind}); save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    pixels = np.asarray(image.convert("RGBA"), np.float64)
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    visible = alpha.sum()
    mean = (colours * alpha).sum(axis=(0, 1)) / visible if visible else np.full(3, 127.5)
    return Image.fromarray(np.rint(colours * alpha + mean * (1 - alpha)).astype(np.uint8))


def _cut(
    image: Image.Image,
    scale: tuple[float, float, float],
    corner: tuple[float, float],
    side: int,
    fill: tuple[int, int, int],
) -> Array:
    """Scale, put on the canvas and cut out a square, (side, side, 3)."""
    s, *factors = scale
    stored = STORED_SIDE / min(image.size)  # from this image to the size that s refers to
    zoom = side / SIDE
    edges, boxes = [], []
    for size, factor, place in zip(image.size, factors, corner, strict=True):
        # a pixel x of the image lies at first + x·factor of the square
        factor *= stored * zoom
        canvas = max(CANVAS_SIDE * zoom, s * stored * size * zoom)
        first = (canvas - size * factor) / 2 - np.floor(place * (canvas - side + 1))
        start = min(side, max(0, int(np.ceil(first - 0.5))))
        stop = max(start, min(side, int(np.floor(first + size * factor + 0.5))))
        edges.append((start, stop))
        boxes.append([min(size, max(0.0, (edge - first) / factor)) for edge in (start, stop)])
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[...] = fill
    (left, right), (top, bottom) = edges
    if right > left and bottom > top:
        (x0, x1), (y0, y1) = boxes
        method = _filter(*(f * stored * zoom for f in factors))
        part = image.resize((right - left, bottom - top), method, (x0, y0, x1, y1))
        pixels[top:bottom, left:right] = np.asarray(part)
    return pixels


def _filter(x: float, y: float) -> Image.Resampling:
    """Return the interpolation: cubic to enlarge, the mean of areas to shrink, else linear."""
    if x >= 1 and y >= 1:
        return Image.Resampling.BICUBIC
    if x <= 1 and y <= 1:
        return Image.Resampling.BOX
    return Image.Resampling.BILINEAR


def shift_colour(pixels: Array, hue: int, lightness: int, saturation: int) -> Array:
    """Return pixels, uint8, (…, 3), moved in HLS space.

    Hue counts from 0 to 180 (half degrees), lightness and saturation from 0 to 255; each sum is
    cut off at these bounds.
    """
    planes = np.moveaxis(pixels, -1, 0).astype(np.float32, order="C")
    planes /= 255
    red, green, blue = planes
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    span, total = high - low, high + low
    divisor = np.where(span == 0, 1, span)
    H = np.where(
        high == red,
        (green - blue) / divisor,
        np.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    H *= 30
    H += np.where(H < 0, np.float32(180 + hue), np.float32(hue))
    np.clip(H, 0, 180, out=H)
    S = span / np.maximum(np.where(total < 1, total, 2 - total), np.float32(1e-9))
    S += np.float32(saturation / 255)
    np.clip(S, 0, 1, out=S)
    L = total / 2
    L += np.float32(lightness / 255)
    np.clip(L, 0, 1, out=L)
    # channel k of (red, green, blue) = L − a·max(−1, min(t − 3, 9 − t, 1)), t = (k + 2H) mod 12
    a = S * np.minimum(L, 1 - L)
    H /= 15
    result = np.empty(pixels.shape, np.uint8)
    for channel, k in enumerate((0, 8, 4)):
        t = H + np.float32(k)
        t -= np.where(t >= 12, np.float32(12), np.float32(0))
        value = np.minimum(t - 3, 9 - t)
        np.clip(value, -1, 1, out=value)
        value *= a
        np.subtract(L, value, out=value)
        value *= 255
        result[..., channel] = np.rint(value, out=value)
    return result
