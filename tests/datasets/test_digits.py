"""digits: the shipped file, against another publisher's copy."""

import gzip
from importlib.resources import files

import numpy as np
import pytest

from igcnn import load_dataset
from igcnn.datasets import digits
from igcnn.errors import DataError


def test_split_and_shape():
    data = load_dataset("digits")
    assert data.train.images.shape == (1437, 3, 8, 8)
    assert data.test.images.shape == (360, 3, 8, 8)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert data.train.images.max() == 255
    assert data.classes == tuple("0123456789")
    assert np.bincount(data.test.labels).min() > 25
    for channel in (1, 2):
        np.testing.assert_array_equal(data.test.images[:, 0], data.test.images[:, channel])


def test_mean_and_deviation_are_those_of_the_training_images():
    data = load_dataset("digits")
    assert data.train.images.mean() == pytest.approx(data.mean[0], abs=5e-4)
    assert data.train.images.std() == pytest.approx(data.std[0], abs=5e-4)


def test_first_image_by_hand():
    """The first row of the file is a zero: its outline, in sixteenths."""
    data = load_dataset("digits")
    sixteenths = np.round(data.test.images[0, 0].astype(int) * 16 / 255).astype(int)
    assert sixteenths[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert sixteenths[3].tolist() == [0, 4, 12, 0, 0, 8, 8, 0]
    assert data.test.labels[0] == 0
    assert data.train.labels[:3].tolist() == [1, 2, 3]


def test_attribution_is_shipped():
    text = (files("igcnn.datasets") / "data" / "DIGITS-LICENSE.md").read_text()
    assert "CC BY 4.0" in text or "creativecommons.org/licenses/by/4.0" in text
    assert "Alpaydin" in text


def test_a_damaged_file_is_refused(monkeypatch):
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="damaged"):
        load_dataset("digits")


def test_rows_are_complete():
    text = gzip.decompress((files("igcnn.datasets") / "data" / "digits.csv.gz").read_bytes())
    rows = [line.split(b",") for line in text.splitlines()]
    assert {len(row) for row in rows} == {65}
    assert len(rows) == 1797
