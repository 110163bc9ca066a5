"""How fast training batches of CIFAR-10 shape are made: order, pad 4, crop, mirror, normalise.

    python benchmarks/data.py

Both orders of batches are checked to hold the same pixels for the same sample before anything
is timed. The limit: an image is read once as 3 kB and written once as 12 kB; at 15 GB/s that is
1.0 µs, a million images a second.
"""

import argparse

import numpy as np
from harness import measure, save

from igcnn.datasets.dataset import Augmentation, Split
from igcnn.datasets.loader import Loader

IMAGES = 10_000


def make(batch, augmentation):
    """Return a loader of random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    split = Split(images, np.arange(IMAGES) % 10)
    statistics = {"mean": (125.307, 122.950, 113.865), "std": (62.993, 62.089, 66.705)}
    return Loader(split, batch_size=batch, augmentation=augmentation, seed=0, **statistics)


def pixels(loader):
    """Return the sum of the pixels of each sample of epoch 0, by sample."""
    order = loader.order(0)[:IMAGES]
    sums = np.concatenate([x.sum(axis=(1, 2, 3)) for x, _ in loader.epoch(0)])[:IMAGES]
    result = np.empty(IMAGES)
    result[order] = sums
    return result


def main():
    """Print images per second, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    loaders = {
        "pad, crop, mirror, batch 64": make(64, Augmentation(pad=4, mirror=True)),
        "pad, crop, mirror, batch 250": make(250, Augmentation(pad=4, mirror=True)),
        "normalise only, batch 64": make(64, None),
    }
    first, second, _ = loaders.values()
    np.testing.assert_allclose(pixels(first), pixels(second), rtol=1e-4, atol=1e-2)
    candidates = {
        name: lambda m=m: sum(len(y) for _, y in m.epoch(0)) for name, m in loaders.items()
    }
    seconds = measure(candidates, arguments.rounds)
    rates = {}
    for name, values in seconds.items():
        rates[name] = IMAGES / sorted(values)[len(values) // 2]
        print(f"{name:32} {rates[name]:10,.0f} images a second")
    save("data", {"images": IMAGES, "seconds": seconds, "images_per_second": rates})


if __name__ == "__main__":
    main()
