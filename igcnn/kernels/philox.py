"""Philox4x32-10: random words as a function of a counter and a key (Salmon et al., SC 2011).

There is no state: the words of sample i depend on the counter i alone, computed for any set of
samples, in any order, on any device, with the same bits.
"""

import numpy as np

Array = np.ndarray

ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counter: tuple[Array | int, ...], key: tuple[int, int]) -> tuple[Array, ...]:
    """Return four arrays of random 32-bit words, held in uint64.

    Args:
        counter: four arrays (or numbers) of 32-bit words that broadcast to one shape.
        key: two 32-bit words.
    """
    a, b, c, d = (np.asarray(word, np.uint64) for word in np.broadcast_arrays(*counter))
    for i in range(ROUNDS):
        k0, k1 = (
            np.uint64((word + i * step) & 0xFFFFFFFF)
            for word, step in zip(key, KEY_STEPS, strict=True)
        )
        product0, product1 = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            (product1 >> HALF) ^ b ^ k0,
            product1 & LOW,
            (product0 >> HALF) ^ d ^ k1,
            product0 & LOW,
        )
    return a, b, c, d


def below(words: Array, limit: int) -> Array:
    """Return whole numbers from 0 to limit − 1, evenly from 32-bit words: ⌊word·limit/2³²⌋."""
    return (words * np.uint64(limit) >> HALF).astype(np.int64)
