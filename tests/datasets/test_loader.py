"""The loader: what a sample looks like depends on (seed, epoch, sample) alone."""

import numpy as np
import pytest

from igcnn.datasets import Augmentation, Loader, Split, evaluation_batches, load_dataset
from igcnn.datasets.dataset import AUGMENT_STREAM
from igcnn.datasets.splitting import stratified
from igcnn.errors import ConfigError

MEAN = (120.4, 110.0, 100.0)
STD = (60.0, 50.0, 40.0)


def split(N=23, size=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 3, size, size), dtype=np.uint8)
    return Split(images, np.arange(N))


def loader(data=None, batch_size=5, seed=3, augmentation=Augmentation(2, True)):  # noqa: B008
    data = data or split()
    return Loader(
        data, batch_size=batch_size, mean=MEAN, std=STD, augmentation=augmentation, seed=seed
    )


def by_sample(loader, epoch):
    """Pixels by label (the label is the sample's number)."""
    pixels = {}
    for x, labels in loader.epoch(epoch):
        for n, label in enumerate(labels):
            pixels[int(label)] = x[n]
    return pixels


def test_every_sample_once_and_the_last_batch_completed_from_the_start():
    batches = [labels for _, labels in loader().epoch(0)]
    assert [len(labels) for labels in batches] == [5] * 5
    seen = np.concatenate(batches)
    assert sorted(seen[:23]) == list(range(23))
    assert seen[23:].tolist() == seen[:2].tolist()


def test_pixels_do_not_depend_on_the_batch_size():
    one, other = by_sample(loader(batch_size=5), 4), by_sample(loader(batch_size=7), 4)
    assert one.keys() == other.keys()
    for label in one:
        np.testing.assert_array_equal(one[label], other[label])


def test_an_epoch_continues_where_it_was_left():
    whole = list(loader().epoch(2))
    rest = list(loader().epoch(2, start=3))
    assert len(rest) == 2
    for (x, labels), (x2, labels2) in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(labels, labels2)


def test_order_and_pixels_change_with_epoch_and_seed():
    draws = (3, 0), (3, 1), (4, 0), (2**40 + 3, 0)
    orders = [loader(seed=s).order(e).tolist() for s, e in draws]
    assert len({tuple(order) for order in orders}) == 4
    first, second = by_sample(loader(), 0), by_sample(loader(), 1)
    assert any((first[i] != second[i]).any() for i in first)


def test_the_order_tells_nothing_of_the_crops_and_of_what_is_held_out():
    """Draws of one stream would: the first samples of an epoch would be those cropped topmost."""
    one = loader(split(200))
    images = np.arange(200)
    (top,) = one._draw(0).words(images, AUGMENT_STREAM)[:1]
    held_out = np.flatnonzero(stratified(np.zeros(200, int), 0.5, one.seed))
    for chosen in (np.argsort(top)[:100], held_out):
        common = np.intersect1d(one.order(0)[:100], chosen)
        assert 35 < len(common) < 65  # 50 ± 3.5 by chance


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_every_batch_and_every_image_of_an_evaluation(ranks):
    """Batches of 8 that not every number of ranks divides."""
    settings = {"batch_size": 8, "mean": MEAN, "std": STD}
    parts = [Loader(split(), **settings, rank=rank, ranks=ranks) for rank in range(ranks)]
    sizes = [part.local_batch_size for part in parts]
    assert sum(sizes) == 8
    assert max(sizes) - min(sizes) <= 1
    together = np.concatenate([part.parts(1) for part in parts], axis=1)
    np.testing.assert_array_equal(together, Loader(split(), **settings).parts(1))
    for part in parts:
        assert {len(labels) for _, labels in part.epoch(1)} == {part.local_batch_size}
    settings["batch_size"] = 4
    seen = [
        label
        for rank in range(ranks)
        for _, labels in evaluation_batches(split(), **settings, rank=rank, ranks=ranks)
        for label in labels
    ]
    assert sorted(seen) == list(range(23))


def test_augmented_pixels_against_a_loop():
    """Every sample is one of the 5×5 crops, mirrored or not, of the image in mean colour."""
    data = split()
    fill = np.round(MEAN).astype(np.uint8)
    crops_seen, mirrored = set(), 0
    for label, x in by_sample(loader(data), 0).items():
        pixels = np.round(x * np.array(STD).reshape(3, 1, 1) + np.array(MEAN).reshape(3, 1, 1))
        padded = np.empty((3, 10, 10), np.uint8)
        padded[...] = fill.reshape(3, 1, 1)
        padded[:, 2:8, 2:8] = data.images[label]
        found = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (1, -1)
            if (padded[:, top : top + 6, left : left + 6][:, :, ::flip] == pixels).all()
        ]
        assert len(found) == 1
        crops_seen.add(found[0][:2])
        mirrored += found[0][2] == -1
    assert len(crops_seen) > 10
    assert 4 < mirrored < 19


def test_without_augmentation_only_normalised():
    data = split()
    for label, x in by_sample(loader(data, augmentation=None), 0).items():
        pixels = x * np.array(STD).reshape(3, 1, 1) + np.array(MEAN).reshape(3, 1, 1)
        np.testing.assert_allclose(pixels, data.images[label], atol=1e-4)


def test_batches_lie_with_the_batch_innermost():
    x, labels = next(iter(loader().epoch(0)))
    assert x.shape == (5, 3, 6, 6)
    assert x.dtype == np.float32
    assert labels.dtype == np.int64
    assert x.transpose(1, 2, 3, 0).flags.c_contiguous


def test_evaluation_batches_are_every_image_in_order():
    data = split()
    batches = list(evaluation_batches(data, batch_size=10, mean=MEAN, std=STD))
    assert [len(labels) for _, labels in batches] == [10, 10, 3]
    assert np.concatenate([labels for _, labels in batches]).tolist() == list(range(23))
    pixels = batches[2][0][2] * np.array(STD).reshape(3, 1, 1) + np.array(MEAN).reshape(3, 1, 1)
    np.testing.assert_allclose(pixels, data.images[22], atol=1e-4)


def test_refusals():
    with pytest.raises(ConfigError, match="from 1 to 23, the number of training images, not 24"):
        loader(batch_size=24)
    with pytest.raises(ConfigError, match="not 0"):
        loader(batch_size=0)
    for seed in (-1, 2**64):
        with pytest.raises(ConfigError, match="seed must be from 0"):
            loader(seed=seed)
    assert len(loader(seed=2**64 - 1).order(0)) == 23
    with pytest.raises(ConfigError, match="at least 1"):
        next(evaluation_batches(split(), batch_size=0, mean=MEAN, std=STD))
    with pytest.raises(ConfigError, match="unknown data set 'cifar': did you mean cifar10"):
        load_dataset("cifar")
