"""SVHN and its file format, on files that scipy wrote."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from igcnn import load_dataset
from igcnn.datasets import svhn
from igcnn.datasets.matfile import read_arrays
from igcnn.errors import DataError

COUNTS = {"train": 7, "extra": 300, "test": 5}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    parts = {part: (count, svhn.PARTS[part][1]) for part, count in COUNTS.items()}
    monkeypatch.setattr(svhn, "PARTS", parts)


def contents(part, label_type=np.uint8):
    rng = np.random.default_rng(len(part))
    count = COUNTS[part]
    images = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    return {"X": images, "y": rng.integers(1, 11, (count, 1)).astype(label_type)}


def mat_bytes(variables, compressed=True):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def write(folder, compressed=True, label_type=np.uint8):
    folder.mkdir(exist_ok=True)
    result = {}
    for part in COUNTS:
        result[part] = contents(part, label_type)
        content = mat_bytes(result[part], compressed)
        (folder / f"{part}_32x32.mat").write_bytes(content)
    return result


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("label_type", [np.uint8, np.float64])
def test_images_and_labels(tmp_path, compressed, label_type):
    written = write(tmp_path / "svhn", compressed, label_type)
    for folder in (tmp_path, tmp_path / "svhn"):
        data = load_dataset("svhn", folder)
        X = np.concatenate([written["train"]["X"], written["extra"]["X"]], axis=3)
        y = np.concatenate([written["train"]["y"], written["extra"]["y"]])[:, 0]
        np.testing.assert_array_equal(data.train.images, X.transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(data.train.labels, y.astype(int) % 10)
        X = written["test"]["X"]
        np.testing.assert_array_equal(data.test.images, X.transpose(3, 2, 0, 1))
        assert data.train.labels.dtype == np.int64
        assert set(data.train.labels.tolist()) == set(range(10))
        assert data.augmentation is None


def test_other_variables_and_orders(tmp_path):
    write(tmp_path)
    variables = {"note": "text", "y": contents("test")["y"], "cell": np.array([1, "a"], object)}
    variables |= {"z": np.eye(3), "X": contents("test")["X"]}
    (tmp_path / "test_32x32.mat").write_bytes(mat_bytes(variables))
    data = load_dataset("svhn", tmp_path)
    np.testing.assert_array_equal(data.test.labels, contents("test")["y"][:, 0] % 10)


def test_other_numbers_of_images_are_read_with_a_note(tmp_path, monkeypatch):
    written = write(tmp_path)
    said = []
    load_dataset("svhn", tmp_path, say=said.append)
    assert said == []
    monkeypatch.undo()
    for _ in range(2):  # the second time from the cache
        data = load_dataset("svhn", tmp_path, say=said.append)
        np.testing.assert_array_equal(data.test.images, written["test"]["X"].transpose(3, 2, 0, 1))
        assert len(data.train) == 307
    note = (
        f"{tmp_path} does not hold the official svhn: 307 training and 5 test images, not 604,388 "
        "and 26,032"
    )
    assert said == [note, note]


def test_files_whose_arrays_do_not_fit_are_refused(tmp_path):
    write(tmp_path)
    victim = tmp_path / "test_32x32.mat"
    images = contents("test")
    for message, variables in {
        r"y has shape \(4, 1\) instead of \(5, 1\)": images | {"y": images["y"][:4]},
        r"X has shape \(32, 32, 3, 0\)": {"X": images["X"][..., :0], "y": images["y"][:0]},
        r"X has shape \(16, 32, 3, 5\)": images | {"X": images["X"][:16]},
    }.items():
        victim.write_bytes(mat_bytes(variables))
        with pytest.raises(DataError, match=message):
            load_dataset("svhn", tmp_path)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_of_every_type_are_read_as_scipy_reads_them(tmp_path, kind, compressed):
    path = tmp_path / "a.mat"
    rng = np.random.default_rng(0)
    variables = {
        "a": rng.integers(0, 100, (3, 5)).astype(kind),
        "scalar": np.array([[7]], kind),
        "long_name_of_an_array": rng.integers(0, 2, (2, 1, 4)).astype(kind),
    }
    path.write_bytes(mat_bytes(variables, compressed))
    names = []
    for array in read_arrays(path):
        expected = variables[array.name]
        assert array.shape == expected.shape
        values = array.read(expected.size).reshape(array.shape, order="F")
        np.testing.assert_array_equal(values, expected)
        names.append(array.name)
    assert names == list(variables)


def test_an_array_that_is_not_read_is_passed_over(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(mat_bytes({"a": np.ones((50, 50)), "b": np.eye(2)}))
    assert [array.name for array in read_arrays(path)] == ["a", "b"]


@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_and_changed_files_are_refused_or_harmless(tmp_path, compressed):
    write(tmp_path, compressed)
    victim = tmp_path / "test_32x32.mat"
    whole = victim.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(0, 300, 7), *rng.integers(0, len(whole), 150).tolist()]
    refused = 0
    for place in places:
        for content in (whole[:place], whole[:place] + rng.bytes(1) + whole[place + 1 :]):
            victim.write_bytes(content)
            refused += is_refused(tmp_path)
    assert refused >= len(places)


def is_refused(folder):
    try:
        data = load_dataset("svhn", folder)
    except DataError as error:
        message = str(error)
    else:
        assert data.test.images.shape == (COUNTS["test"], 3, 32, 32)
        return False
    assert "test_32x32.mat" in message
    assert "\n" not in message
    return True


def test_foreign_files_are_named(tmp_path):
    write(tmp_path)
    victim = tmp_path / "test_32x32.mat"
    header = bytearray(victim.read_bytes()[:128])
    files = {
        "version 7.3": b"MATLAB 7.3 MAT-file" + bytes(200),
        "big-endian": bytes(header[:126]) + b"MI",
        "is not a MAT-file": b"<html>" + bytes(200),
        "has no array X": mat_bytes({"y": contents("test")["y"]}),
        "complex numbers in X": mat_bytes({"X": np.ones((2, 2)) * 1j}),
        r"X has shape \(2, 2\) instead": mat_bytes({"X": np.ones((2, 2))}),
        "holds float64": mat_bytes({"X": contents("test")["X"] / 3}),
        "has label 11 at image 4": mat_bytes(contents("test") | {"y": [[1], [2], [3], [4], [11]]}),
    }
    for message, content in files.items():
        victim.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_dataset("svhn", tmp_path)


def test_a_forged_size_takes_no_memory(tmp_path):
    """An array that claims 2 GB in a file of 1 KB."""
    body = struct.pack("<IIII", 6, 8, 9, 0)
    body += struct.pack("<IIiiii", 5, 16, 32, 32, 3, 700_000)
    body += struct.pack("<HH4s", 1, 1, b"X")
    body += struct.pack("<II", 2, 32 * 32 * 3 * 700_000) + bytes(100)
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body)
    write(tmp_path)
    header = (tmp_path / "test_32x32.mat").read_bytes()[:128]
    content = header + struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "test_32x32.mat").write_bytes(content)
    with pytest.raises(DataError, match="too small for 700,000 images"):
        load_dataset("svhn", tmp_path)


def test_memory_stays_bounded(tmp_path, monkeypatch):
    """Beside the images no more than a few blocks, however large the file."""
    monkeypatch.setattr(svhn, "PARTS", {"train": (9000, 1), "extra": (1, 1), "test": (1, 1)})
    rng = np.random.default_rng(0)
    for part, (count, _) in svhn.PARTS.items():
        images = rng.integers(0, 4, (32, 32, 3, count), dtype=np.uint8)
        variables = {"X": images, "y": np.ones((count, 1), np.uint8)}
        (tmp_path / f"{part}_32x32.mat").write_bytes(mat_bytes(variables))
    del images, variables
    tracemalloc.start()
    try:
        data = load_dataset("svhn", tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < data.train.images.nbytes + data.train.labels.nbytes + (6 << 20)


def test_no_data_says_what_to_put_where(tmp_path):
    with pytest.raises(
        DataError, match=r"not in .*: train.* extra_32x32.mat \(1,329,278,602 bytes"
    ):
        load_dataset("svhn")
    write(tmp_path)
    (tmp_path / "extra_32x32.mat").unlink()
    with pytest.raises(
        DataError, match=r"not in .*: extra_32x32.mat; run igcnn data fetch svhn, or put extra"
    ) as caught:
        load_dataset("svhn", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "train_32x32" not in str(caught.value)


def test_a_disk_that_fails_while_the_file_is_read_is_no_half_filled_array(tmp_path, monkeypatch):
    write(tmp_path)

    def broken(array, images):
        images[:1] = 7
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(svhn, "_read_images", broken)
    with pytest.raises(DataError, match=r"cannot read .*train_32x32\.mat: Input/output error"):
        load_dataset("svhn", tmp_path)
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*"))
