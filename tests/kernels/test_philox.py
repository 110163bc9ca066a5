"""Philox4x32-10 against the published known answers of Random123."""

import numpy as np
import pytest

from igcnn.kernels.philox import below, philox

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, words):
    assert tuple(int(word) for word in philox(counter, key)) == words


def test_arrays_of_counters_are_computed_one_by_one():
    together = philox((np.arange(5), 3, 1, 0), (7, 8))
    for i in range(5):
        alone = philox((i, 3, 1, 0), (7, 8))
        assert [int(word[i]) for word in together] == [int(word) for word in alone]


def test_below_covers_its_range_evenly():
    words = philox((np.arange(90_000), 0, 0, 0), (1, 2))[0]
    counts = np.bincount(below(words, 9))
    assert len(counts) == 9
    assert abs(counts - 10_000).max() < 500  # five standard deviations
    assert below(np.array([0, ONES], np.uint64), 9).tolist() == [0, 8]
