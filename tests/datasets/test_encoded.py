"""ImageNet and people's folders: every form gives the same pixels, whoever decodes them."""

import io
import json
import os
import tarfile

import h5py
import numpy as np
import pytest

from igcnn.datasets import Loader, evaluation_batches, load_dataset
from igcnn.datasets.pack import pack
from igcnn.datasets.stores import class_folders, packed, training_tar
from igcnn.errors import ConfigError, DataError, MissingDataError

from .pictures import encoded, make_tree


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_tree(tmp_path / "imagenet")


def pixels(dataset, batch_size=7, epoch=1, start=0):
    """Return all training batches of an epoch."""
    loader = Loader(
        dataset.train, batch_size=batch_size, mean=dataset.mean, std=dataset.std, seed=5
    )
    return [x.copy() for x, _ in loader.epoch(epoch, start)]


@pytest.mark.parametrize("workers", [1, 2])
def test_pixels_do_not_depend_on_workers(tree, workers):
    own = pixels(load_dataset("imagenet", tree))
    other = pixels(load_dataset("imagenet", tree, workers=workers))
    for a, b in zip(own, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pixels_do_not_depend_on_the_batch_or_a_stop(tree):
    dataset = load_dataset("imagenet", tree)
    seven, five = np.concatenate(pixels(dataset, 7)), np.concatenate(pixels(dataset, 5))
    np.testing.assert_array_equal(seven[:15], five)
    np.testing.assert_array_equal(np.concatenate(pixels(dataset, 5, start=2)), five[10:])
    assert not np.array_equal(five, np.concatenate(pixels(dataset, 5, epoch=2)))


def tar_of(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def archives(tree, tmp_path):
    """The same images as official archives."""
    folder = tmp_path / "tars"
    folder.mkdir()
    inner = []
    for own in sorted((tree / "train").iterdir()):
        if own.is_dir():
            images = [(path.name, path.read_bytes()) for path in sorted(own.iterdir())]
            inner.append((f"{own.name}.tar", tar_of(images)))
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    flat, names = [], []
    for path in sorted((tree / "val").rglob("*.JPEG")):
        flat.append((f"ILSVRC2012_val_{len(flat):08}.JPEG", path.read_bytes()))
        names.append(path.parent.name)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(flat[::-1]))
    (folder / "validation_classes.txt").write_text("\n".join(names) + "\n")
    return folder


def assert_equal(one, other):
    assert one.classes == other.classes
    for a, b in ((one.train, other.train), (one.test, other.test)):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert [a.store.read(i) for i in range(len(a))] == [b.store.read(i) for i in range(len(b))]


def test_archives_are_read_as_they_are(tree, archives):
    expected = load_dataset("imagenet", tree)
    assert_equal(load_dataset("imagenet", archives), expected)
    assert (archives / ".ILSVRC2012_img_train.tar.igcnn-index.json").is_file()
    assert_equal(load_dataset("imagenet", archives), expected)  # now by the index
    x, labels = next(
        evaluation_batches(expected.test, batch_size=15, mean=expected.mean, std=expected.std)
    )
    assert x.shape == (15, 3, 224, 224)
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_an_index_is_made_again_when_images_change(tree):
    assert len(class_folders(tree / "train").labels) == 15
    (tree / "train" / "n001" / "new.jpg").write_bytes(encoded(0))
    assert len(class_folders(tree / "train").labels) == 16


def test_a_damaged_index_is_made_again(tree):
    class_folders(tree / "train")
    path = tree / ".train.igcnn-index.json"
    text = path.read_text()
    for damaged in ("", "{", "[]", text.replace("n000/train_1", "../../secret"), "null"):
        path.write_text(damaged)
        assert class_folders(tree / "train").store.paths[1] == "n000/train_1.JPEG"
    assert path.read_text() == text


def test_packed_images_are_the_same_images(tree, tmp_path):
    dataset = load_dataset("imagenet", tree)
    path = tmp_path / "packed" / "imagenet.h5"
    path.parent.mkdir()
    seen = []
    assert pack(dataset, path, 0, lambda *row: seen.append(row)) == {"train": 0, "test": 0}
    assert seen[-1] == ("test", 15, 15)
    assert [p.name for p in path.parent.iterdir()] == ["imagenet.h5"]
    assert_equal(load_dataset("imagenet", path.parent), dataset)
    with h5py.File(path) as file:  # as anyone can read it
        group = file["train"]
        first = group["data"][group["offsets"][0] : group["offsets"][1]].tobytes()
        assert first == dataset.train.store.read(0)
        assert json.loads(file.attrs["classes"]) == ["n000", "n001", "n002"]


def test_packing_onto_a_full_disk_leaves_the_old_file(tree, tmp_path, largest_file):
    """Whatever the HDF5 library makes of it: it lost such errors, or crashed."""
    dataset = load_dataset("imagenet", tree)
    path = tmp_path / "imagenet.h5"
    pack(dataset, path, 0, lambda *_: None)
    old = path.read_bytes()
    path.write_bytes(b"old")
    for size in range(0, len(old), len(old) // 40):
        largest_file(size)
        with pytest.raises(DataError, match=r"cannot write .*imagenet\.h5: File too large"):
            pack(dataset, path, 0, lambda *_: None)
        assert [(p.name, p.read_bytes()) for p in tmp_path.glob("*.h5*")] == [(path.name, b"old")]
    largest_file(-1)
    pack(dataset, path, 0, lambda *_: None)
    assert path.read_bytes() == old


def test_damaged_packed_files_raise_one_error(tree, tmp_path):
    path = tmp_path / "imagenet.h5"
    pack(load_dataset("imagenet", tree), path, 0, lambda *_: None)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 30):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError):
            packed(path, "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_or_left_out(tree, workers):
    broken = tree / "train" / "n001" / "train_2.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(
        DataError, match=r"train_2\.JPEG is not a readable image .*--on-bad-image skip"
    ):
        pixels(load_dataset("imagenet", tree, workers=workers))
    said = []
    dataset = load_dataset("imagenet", tree, workers=workers, skip_broken=True, say=said.append)
    first = pixels(dataset)
    assert [len(x) for x in first] == [7, 7, 7]
    assert len(dataset.train.broken) == 1
    assert len(said) == 1
    assert "(1 so far)" in said[0]
    for a, b in zip(first, pixels(dataset), strict=True):
        np.testing.assert_array_equal(a, b)
    (tree / "val" / "n000" / "val_0.JPEG").write_bytes(b"")
    dataset = load_dataset("imagenet", tree, skip_broken=True)
    batches = evaluation_batches(dataset.test, batch_size=4, mean=dataset.mean, std=dataset.std)
    assert [len(labels) for _, labels in batches] == [3, 4, 4, 3]
    batches = evaluation_batches(dataset.test, batch_size=1, mean=dataset.mean, std=dataset.std)
    assert [len(labels) for _, labels in batches] == [1] * 14


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingDataError, match=r"ILSVRC2012_img_train\.tar \(147,897,477,120"):
        load_dataset("imagenet", tmp_path)
    with pytest.raises(MissingDataError, match="train/ and test/"):
        load_dataset("folder", tmp_path)
    with pytest.raises(MissingDataError, match="no --data-dir"):
        load_dataset("folder")
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in class folders"):
        load_dataset("folder", tmp_path)
    with pytest.raises(ConfigError, match="image_size"):
        load_dataset("folder", tmp_path, image_size=0)


def test_classes_must_agree(tree):
    os.rename(tree / "val" / "n002", tree / "val" / "n009")
    for name in ("imagenet", "folder"):
        with pytest.raises(DataError, match="n002, n009"):
            load_dataset(name, tree)


@pytest.mark.parametrize("lines", [["n000"] * 14, ["n000"] * 14 + ["n777"], []])
def test_wrong_class_lists_are_named(archives, lines):
    (archives / "validation_classes.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"validation_classes\.txt"):
        load_dataset("imagenet", archives)
    (archives / "validation_classes.txt").unlink()
    with pytest.raises(DataError, match="a line for each image"):
        load_dataset("imagenet", archives)


def test_own_folders(tree):
    dataset = load_dataset("folder", tree, image_size=16, workers=1)
    assert dataset.classes == ("n000", "n001", "n002")
    assert dataset.train.images.shape == (15, 3, 16, 16)
    np.testing.assert_allclose(dataset.mean, dataset.train.images.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(dataset.std, dataset.train.images.std(axis=(0, 2, 3)), atol=1e-6)
    assert dataset.augmentation.pad == 2
    (tree / "train" / "n001" / "train_2.JPEG").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train_2\.JPEG"):
        load_dataset("folder", tree)
    assert len(load_dataset("folder", tree, skip_broken=True).train) == 14


def test_damaged_archives_raise_one_error(archives):
    path = archives / "ILSVRC2012_img_train.tar"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(60):
        mutated = bytearray(data)
        for place in rng.integers(0, len(data), 20):
            # headers are where damage hurts
            mutated[place // 512 * 512 + rng.integers(512)] = rng.integers(256)
        path.write_bytes(bytes(mutated[: len(data) - int(trial * 997 % len(data))]))
        try:
            found = training_tar(path)
        except DataError:
            continue
        assert all(len(found.store.read(i)) <= len(data) for i in range(len(found.store)))
