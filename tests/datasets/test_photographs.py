"""Decoding and the augmentation of ImageNet against slow formulas."""

import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from igcnn.datasets import Draw
from igcnn.datasets.photographs import (
    evaluation_view,
    shift_colour,
    shrunk,
    square_view,
    training_view,
)
from igcnn.errors import DataError

from .pictures import encoded, ramp, to_bytes

DRAW = Draw(7, 2, (123, 113, 99), None)


@pytest.mark.parametrize("shifts", [(0, 0, 0), (36, 50, 50), (-36, -50, -50), (11, -7, 30)])
def test_colours_move_as_in_the_standard_library(shifts):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    pixels[:4] = [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0]]
    hue, lightness, saturation = shifts
    for own, (red, green, blue) in zip(shift_colour(pixels, *shifts), pixels / 255, strict=True):
        h, l, s = colorsys.rgb_to_hls(red, green, blue)  # noqa: E741
        h = min(180, max(0, h * 180 + hue)) / 180
        l = min(255, max(0, l * 255 + lightness)) / 255  # noqa: E741
        s = min(255, max(0, s * 255 + saturation)) / 255
        expected = 255 * np.array(colorsys.hls_to_rgb(h, l, s))
        np.testing.assert_allclose(own, expected, atol=0.51)


def uncoloured(monkeypatch):
    from igcnn.datasets import photographs

    for name in ("HUE", "LIGHTNESS", "SATURATION"):
        monkeypatch.setattr(photographs, name, 0)


@pytest.mark.parametrize("size", [(480, 640), (700, 480), (375, 500), (90, 120)])
def test_where_pixels_go(monkeypatch, size):
    """On a ramp every pixel tells where it comes from: that must be where the formula says."""
    uncoloured(monkeypatch)
    width, height = size
    data = to_bytes(Image.fromarray(ramp(width, height)), "PNG")
    bordered = 0
    for index in range(40):
        words = [w / 2**32 for p in (0, 1) for (w,) in DRAW.words(np.array([index]), 1, p)]
        s, r = 0.533 + 0.467 * words[0], 0.75 + 0.5 * words[1]
        stored = 480 / min(size)
        pixels = training_view(data, index, DRAW).astype(float)
        if words[7] >= 0.5:
            pixels = pixels[:, :, ::-1]
        inside = np.ones((224, 224), bool)
        for axis, (n, factor, place) in enumerate(
            ((width, 2 * s / (1 + r), words[2]), (height, 2 * s * r / (1 + r), words[3]))
        ):
            factor *= stored
            canvas = max(256.0, s * stored * n)
            corner = np.floor(place * (canvas - 224 + 1))
            centre = np.arange(224) + 0.5
            source = (centre + corner - canvas / 2) / factor + n / 2
            within = (source > 1.5) & (source < n - 1.5)
            expected = (source - 0.5) * 255 / (n - 1)
            shape = (1, 224) if axis == 0 else (224, 1)
            inside &= within.reshape(shape)
            error = np.abs(pixels[axis] - expected.reshape(shape))
            step = 255 / n / min(1, factor)
            known = within.reshape(shape) & (pixels[2] == 77)
            assert error[known].max() <= 1.5 + step, (index, axis)
        outside = ~inside & (pixels[2] == 99)
        assert np.all(pixels[2][inside] == 77)
        assert np.all(DRAW.fill == pixels[:, outside].T)
        bordered += outside.any()
    assert bordered  # some show the border


def test_the_middle_for_evaluation():
    data = to_bytes(Image.fromarray(ramp(640, 480)), "PNG")
    view = evaluation_view(data).astype(float)
    # 480 → 256, then 224 of the middle: 420 pixels from 110 on and from 30 on
    source = 110 + (np.arange(224) + 0.5) * 420 / 224 - 0.5
    np.testing.assert_allclose(view[0].mean(axis=0), source * 255 / 639, atol=1)
    source = 30 + (np.arange(224) + 0.5) * 420 / 224 - 0.5
    np.testing.assert_allclose(view[1].mean(axis=1), source * 255 / 479, atol=1)


def test_the_square():
    view = square_view(to_bytes(Image.fromarray(ramp(60, 40)), "PNG"), 40)
    np.testing.assert_array_equal(view, ramp(60, 40)[:, 10:50].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("GIF", "P")],
)
def test_all_kinds_of_images_become_rgb(form, mode):
    data = encoded(0, form=form, mode=mode)
    assert square_view(data, 9).shape == (3, 9, 9)
    assert training_view(data, 0, DRAW).shape == (3, 224, 224)


def test_sizes_at_the_limits():
    for size in ((1, 1), (1, 300), (3000, 2)):
        data = to_bytes(Image.new("RGB", size, (5, 6, 7)), "PNG")
        assert evaluation_view(data).reshape(3, -1).T.tolist() == [[5, 6, 7]] * 224**2
        for index in range(5):
            assert training_view(data, index, DRAW).shape == (3, 224, 224)


def test_packing():
    small, large = encoded(0, (300, 200)), encoded(1, (1000, 600))
    assert shrunk(small) == small
    with Image.open(io.BytesIO(shrunk(large))) as image:
        assert image.size == (800, 480)
        assert image.format == "JPEG"
    with Image.open(io.BytesIO(shrunk(encoded(2, (300, 200), "PNG")))) as image:
        assert (image.size, image.format) == ((300, 200), "JPEG")


def test_damaged_images_raise_one_error():
    data = encoded(0)
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(300):
        mutated = bytearray(data[: rng.integers(1, len(data))])
        for place in rng.integers(0, len(mutated), 3):
            mutated[place] = rng.integers(256)
        try:
            training_view(bytes(mutated), 0, DRAW)
        except DataError:
            broken += 1
    assert broken > 100


def test_a_bomb_is_refused():
    header = b"P5 60000 60000 255\n"
    with pytest.raises(DataError):
        square_view(header + b"x" * 100, 8)


def file_of(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels_of(data, side=4):
    return square_view(data, side).transpose(1, 2, 0)


RAMP = np.array([[0, 85, 170, 255]] * 4, np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_by_its_range(form):
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    np.testing.assert_array_equal(pixels_of(file_of(image, form))[..., 0], RAMP)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (RAMP.astype(np.float32) / 255, "floating-point"),
        (RAMP.astype(np.int32) << 16, "32-bit"),
    ],
)
def test_pixels_of_no_known_range_are_refused(array, kind):
    with pytest.raises(DataError, match=f"{kind}.*save it with 8 or 16 bits"):
        square_view(file_of(Image.fromarray(array), "TIFF"), 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_mode_shows_its_colours(mode):
    form = "PNG" if mode in ("1", "L", "P", "RGB") else "TIFF"
    grey = np.where(RAMP > 127, 255, 0).astype(np.uint8) if mode == "1" else RAMP
    how = {"palette": Image.Palette.ADAPTIVE} if mode == "P" else {}
    image = Image.fromarray(grey).convert("RGB").convert(mode, **how)
    shown = pixels_of(file_of(image, form)).astype(int)
    assert np.abs(shown - grey[..., None]).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_mean_of_what_is_not(mode):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = 200, 200, 200, 255
    pixels[2:] = 10, 10, 10, 0  # a colour that nobody has seen
    image = Image.fromarray(pixels)
    options = {}
    if mode == "P":
        image = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        options["transparency"] = image.getpixel((0, 3))
    else:
        image = image.convert(mode)
    shown = pixels_of(file_of(image, "PNG", **options)).astype(int)
    assert np.abs(shown - 200).max() <= 1


def test_an_image_of_which_nothing_is_visible_is_grey():
    image = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    assert set(pixels_of(file_of(image)).ravel().tolist()) <= {127, 128}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says_but_not_imagenets(orientation):
    upright = Image.fromarray(np.arange(0, 160, 10, np.uint8).reshape(4, 4)).convert("RGB")
    stored = (
        upright
        if orientation == 1
        else upright.transpose(
            {
                2: Image.Transpose.FLIP_LEFT_RIGHT,
                3: Image.Transpose.ROTATE_180,
                4: Image.Transpose.FLIP_TOP_BOTTOM,
                5: Image.Transpose.TRANSPOSE,
                6: Image.Transpose.ROTATE_90,
                7: Image.Transpose.TRANSVERSE,
                8: Image.Transpose.ROTATE_270,
            }[orientation]
        )
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(stored, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels_of(data), np.asarray(upright))
    plain = evaluation_view(data, 4), evaluation_view(data, 4, upright=True)
    same = np.array_equal(*plain)
    assert same == (orientation == 1)
