"""Mutated files of every format: a DataError or a harmless result, soon, in little memory.

The quick form tries a few of each; `pytest -m long` tries thousands.
"""

import io
import resource
import tarfile
import time

import numpy as np
import pytest

from igcnn.datasets import Draw, cifar, load_dataset, svhn
from igcnn.datasets.pack import pack
from igcnn.datasets.photographs import evaluation_view, square_view, training_view
from igcnn.datasets.stores import class_folders, flat_tar, packed, training_tar
from igcnn.errors import DataError

from .pictures import encoded, make_tree
from .test_encoded import tar_of
from .test_svhn import COUNTS, contents, mat_bytes

DRAW = Draw(0, 0, (123, 113, 99), None)
QUICK, LONG = 40, 3000


def mutations(data, count, seed=0):
    """Yield changed versions of some bytes: cut, overwritten, bits flipped, parts repeated."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutated = bytearray(data)
        match rng.integers(5):
            case 0:
                del mutated[rng.integers(len(mutated)) :]
            case 1:
                place = int(rng.integers(len(mutated)))
                mutated[place : place + int(rng.integers(1, 64))] = rng.bytes(rng.integers(1, 64))
            case 2:
                for place in rng.integers(0, min(2048, len(mutated)), 8):
                    mutated[place] = rng.integers(256)
            case 3:
                for place in rng.integers(0, len(mutated), 3):
                    mutated[place] ^= 1 << rng.integers(8)
            case 4:
                a, b = sorted(rng.integers(0, len(mutated), 2).tolist())
                mutated[a:a] = mutated[a:b]
        yield bytes(mutated)


@pytest.fixture(params=[QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def count(request):
    return request.param


def attempt(data, count, read):
    """Let `read` have each mutation; nothing but DataError may come of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    messages = set()
    slowest = 0.0
    for mutated in mutations(data, count):
        began = time.process_time()
        try:
            read(mutated)
        except DataError as error:
            refused += 1
            messages.add(str(error))
        slowest = max(slowest, time.process_time() - began)
    assert refused
    assert not any("\n" in message for message in messages)
    assert slowest < 5  # an endless loop, not a slow machine
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # kB
    return refused, slowest


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_images(count, form):
    def read(data):
        square_view(data, 8)
        evaluation_view(data, 32)
        training_view(data, 0, DRAW, 32)

    attempt(encoded(0, (40, 30), form), count, read)


def test_mat_files(count, tmp_path, monkeypatch):
    monkeypatch.setattr(svhn, "PARTS", {part: (n, 1) for part, n in COUNTS.items()})
    for part in COUNTS:
        (tmp_path / f"{part}_32x32.mat").write_bytes(mat_bytes(contents(part)))

    def read(data):
        (tmp_path / "test_32x32.mat").write_bytes(data)
        load_dataset("svhn", tmp_path)

    attempt(mat_bytes(contents("test")), count, read)


@pytest.fixture
def records(monkeypatch):
    """Files of a small CIFAR-10 by name."""
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 10)
    monkeypatch.setattr(cifar, "TEST_IMAGES", 2)
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = {}
    for name in names:
        rows = rng.integers(0, 256, (2, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        files[name] = rows.tobytes()
    return files


def test_cifar_binary(count, tmp_path, records):
    for name, data in records.items():
        (tmp_path / name).write_bytes(data)

    def read(data):
        (tmp_path / "test_batch.bin").write_bytes(data)
        load_dataset("cifar10", tmp_path)

    attempt(records["test_batch.bin"], count, read)


def test_cifar_archives(count, tmp_path, records):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in records.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    def read(data):
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data)
        load_dataset("cifar10", tmp_path)

    attempt(stream.getvalue(), count, read)


@pytest.fixture
def small_tars(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = [(f"{i}.JPEG", encoded(i, (9, 7))) for i in range(3)]
    inner = tar_of(images)
    return tar_of([("n1.tar", inner), ("n2.tar", inner)]), inner


@pytest.mark.parametrize("nested", [True, False])
def test_tars(count, tmp_path, small_tars, nested):
    path = tmp_path / "images.tar"

    def read(data):
        path.write_bytes(data)
        store = training_tar(path).store if nested else flat_tar(path)
        for i in range(len(store)):
            store.read(i)
            store.name(i)

    attempt(small_tars[0 if nested else 1], count, read)


def test_packed_files(count, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = make_tree(tmp_path / "tree", 2, 2, (12, 10))
    path = tmp_path / "imagenet.h5"
    pack(load_dataset("imagenet", tree), path, 0, lambda *_: None)

    def read(data):
        path.write_bytes(data)
        for split in ("train", "test"):
            store = packed(path, split).store
            for i in range(len(store)):
                store.read(i)

    attempt(path.read_bytes(), count, read)


def test_an_index_that_was_changed_is_not_believed(count, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = make_tree(tmp_path / "tree", 2, 2, (12, 10))
    expected = class_folders(tree / "train")
    path = tree / ".train.igcnn-index.json"
    for mutated in mutations(path.read_bytes(), count):
        path.write_bytes(mutated)
        found = class_folders(tree / "train")
        assert found.store == expected.store
        assert found.labels.tolist() == expected.labels.tolist()
