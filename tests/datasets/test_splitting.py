"""Images held out: by class, by the seed, and the same ones everywhere."""

import numpy as np
import pytest

from igcnn.datasets import Augmentation, Dataset, Loader, Split, hold_out, load_dataset
from igcnn.datasets.dataset import Decoding
from igcnn.datasets.encoded import EncodedSplit
from igcnn.datasets.splitting import stratified
from igcnn.errors import DataError

from .pictures import encoded, make_tree


def dataset(train):
    rgb = (1.0, 1.0, 1.0)
    return Dataset("x", ("a", "b", "c"), rgb, rgb, Augmentation(1, True), train, train)


@pytest.mark.parametrize(("fraction", "counts"), [(0.1, [10, 2, 1, 0]), (0.9, [90, 14, 1, 0])])
def test_a_fraction_of_each_class(fraction, counts):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [100, 15, 2, 1]))
    held_out = stratified(labels, fraction, seed=3)
    assert np.bincount(labels[held_out], minlength=4).tolist() == counts


def test_the_seed_chooses_and_nothing_else():
    labels = np.arange(1000) % 10
    first = stratified(labels, 0.2, seed=5)
    np.testing.assert_array_equal(first, stratified(labels.copy(), 0.2, seed=5))
    others = [stratified(labels, 0.2, seed) for seed in (6, 5 + 2**32)]
    for other in others:  # two draws of a fifth share about a fifth of their images
        assert 0.1 < (first & other).sum() / first.sum() < 0.3


def test_held_out_images_are_not_trained_on():
    labels = np.arange(40) % 3
    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 3, 2, 2))
    parts = hold_out(dataset(Split(images, labels)), 0.25, seed=1)
    train, validation = (part.images[:, 0, 0, 0] for part in (parts.train, parts.validation))
    assert sorted([*train, *validation]) == list(range(40))
    assert len(validation) == 4 + 3 + 3  # of 14, 13 and 13
    np.testing.assert_array_equal(parts.train.labels, train % 3)
    np.testing.assert_array_equal(parts.validation.labels, validation % 3)


def test_of_encoded_images_the_chosen_ones_are_decoded():
    class Numbers:
        def __len__(self):
            return 8

        def read(self, index):
            return encoded(index)

        def name(self, index):
            return f"image {index}"

    whole = EncodedSplit(Numbers(), np.arange(8) % 2, Decoding(), 16, whole_square=True)
    _, expected = next(whole.batches([np.arange(8)], None))
    some = whole.take(np.array([6, 1]))
    ((indices, pixels),) = some.batches([np.array([0, 1])], None)
    assert indices.tolist() == [0, 1]
    np.testing.assert_array_equal(pixels, expected[[6, 1]])
    assert some.labels.tolist() == [0, 1]
    assert some.store.name(0) == "image 6"


def test_a_loader_of_encoded_images_with_some_held_out(tmp_path):
    folder = make_tree(tmp_path / "imagenet", classes=2, images=4, size=(40, 30))
    parts = hold_out(load_dataset("imagenet", folder, workers=1), 0.25, seed=0)
    assert [len(parts.train), len(parts.validation)] == [6, 2]
    loader = Loader(parts.train, batch_size=3, mean=parts.mean, std=parts.std, seed=0)
    assert [len(labels) for _, labels in loader.epoch(0)] == [3, 3]


def test_no_class_with_two_images():
    split = Split(np.zeros((3, 3, 2, 2), np.uint8), np.arange(3))
    with pytest.raises(DataError, match="no class has two; leave out --validation"):
        hold_out(dataset(split), 0.1, seed=0)


def class_folders(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.png").write_bytes(encoded(10 * count + i, (20, 20), "PNG"))
    return folder


def test_class_folders_without_train_and_test(tmp_path):
    photos = class_folders(tmp_path / "photos", {"cat": 10, "dog": 6})
    data = load_dataset("folder", photos, image_size=8)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    assert np.bincount(data.train.labels).tolist() == [8, 5]
    np.testing.assert_allclose(data.mean, data.train.images.mean(axis=(0, 2, 3)), atol=1e-6)
    (note,) = data.notes
    assert (
        "3 of its 16 images are held out for testing, a random 20% of each class, the same" in note
    )
    again = load_dataset("folder", photos, image_size=8)
    np.testing.assert_array_equal(data.test.images, again.test.images)


def test_one_class_is_none(tmp_path):
    photos = class_folders(tmp_path / "photos", {"cat": 3})
    with pytest.raises(DataError, match="only one class directory, cat"):
        load_dataset("folder", photos, image_size=8)
