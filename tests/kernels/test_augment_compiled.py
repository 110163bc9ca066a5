"""Compiled augmentation: the bits of the loader."""

import numpy as np
import pytest
from vectors import every_case, without_compiler

from igcnn.datasets.dataset import AUGMENT_STREAM, Augmentation, Split
from igcnn.datasets.loader import Loader

pytestmark = without_compiler
SEED = 2**40 + 12345
MEAN, STD = (125.31, 0.5, 254.7), (63.0, 62.1, 66.7)
CHANGES = [None, (0, False), (0, True), (1, False), (4, True)]


@every_case
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_batches_of_the_loader(case, change):
    count, H, W = case.N + 5, 7, 6
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 3, H, W), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, count))
    augmentation = None if change is None else Augmentation(*change)
    kwargs = {"mean": MEAN, "std": STD, "augmentation": augmentation, "seed": SEED}
    loader = Loader(split, batch_size=case.N, **kwargs)
    epoch = 3
    pad, mirror = change or (0, False)
    x, labels = case.vectors((case.N, 3, H, W)), np.zeros(case.N, np.int32)
    # the second batch goes on at the beginning of the order
    for number, (expected, expected_labels) in enumerate(loader.epoch(epoch)):
        state = np.array([number * case.N, SEED & 0xFFFFFFFF, SEED >> 32, epoch], np.uint32)
        case.launch(
            "augment",
            "augment",
            case.jobs,
            [x, labels],
            images=images,
            labels=split.labels.astype(np.int32),
            order=loader.order(epoch).astype(np.int32),
            state=state,
            mean=loader.mean,
            std=loader.std,
            x=x,
            batch_labels=labels,
            N=case.N,
            count=count,
            H=H,
            W=W,
            pad=pad,
            mirror=int(mirror),
            stream=AUGMENT_STREAM,
            batch=case.batch,
        )
        np.testing.assert_array_equal(case.get(x), expected.astype(float))
        np.testing.assert_array_equal(labels, expected_labels)
        assert not case.unused(x).any()
