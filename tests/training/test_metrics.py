import numpy as np
import pytest

from igcnn.training.metrics import Evaluation, Sums, count_hits


def test_hits_against_sorting():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 7))
    labels = rng.integers(0, 7, 50)
    order = np.argsort(-logits, axis=1)
    for k in range(1, 9):
        expected = sum(label in row[:k] for row, label in zip(order, labels, strict=True))
        assert count_hits(logits, labels, k) == expected


def test_equal_logits_gain_nothing():
    labels = np.arange(10)
    assert count_hits(np.zeros((10, 10)), labels) == 1  # class 0 alone
    assert count_hits(np.zeros((10, 10)), labels, 5) == 5


def test_nan_is_never_a_hit():
    labels = np.array([0, 1])
    assert count_hits(np.full((2, 3), np.nan), labels) == 0
    assert count_hits(np.array([[1.0, np.nan], [0.0, 1.0]]), labels) == 1


def test_the_accuracy_of_a_class_is_the_share_of_its_images():
    confusion = np.array([[6, 2, 0], [0, 5, 0], [0, 0, 0]])
    by_class = Evaluation(0, 0, 0, 13, confusion).class_top1()
    np.testing.assert_array_equal(by_class, [75, 100, np.nan])


def test_sums_weigh_batches_by_their_size():
    sums = Sums()
    sums.add(30, 1.0, 15, 0.5)
    sums.add(10, 2.0, 10, 0.5)
    assert sums.mean_loss == 1.25
    assert sums.top1 == pytest.approx(62.5)
    assert sums.images_per_second == 40
