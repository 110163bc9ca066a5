"""How fast training batches are made: of CIFAR-10 shape in memory, and of JPEGs at 224×224.

    pip install -e ".[bench]" && python benchmarks/data.py

In memory: order, pad 4, crop, mirror, normalise. Batches of two sizes are checked to hold the
same pixels for the same sample before anything is timed. The limit: an image is read once as
3 kB and written once as 12 kB; at 15 GB/s that is 1.0 µs, a million images a second.

JPEGs: the 20 photographs of ImageNet that the package foolbox carries, 512×512, decoded and
augmented as in training. Pixels are checked to be equal for 0, 1 and 2 processes. The limit is
the decoder: Pillow alone takes what the column "decode only" says.
"""

import argparse
import importlib.util
import io
import time
from pathlib import Path

import numpy as np
from harness import measure, save
from PIL import Image

from igcnn.datasets import Augmentation, Decoding, Loader, Split
from igcnn.datasets.encoded import EncodedSplit
from igcnn.datasets.stores import Files

IMAGES = 10_000
JPEGS = 320  # read again and again from the 20 files
BATCH = 32


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


def photographs():
    """Return the store of foolbox's JPEGs, each several times."""
    spec = importlib.util.find_spec("foolbox")
    if spec is None:
        raise SystemExit('the photographs come with foolbox: pip install -e ".[bench]"')
    folder = Path(spec.submodule_search_locations[0]) / "data"
    paths = sorted(path.name for path in folder.glob("imagenet_*.jpg"))
    return Files(folder, (paths * (JPEGS // len(paths) + 1))[:JPEGS])


def rate(workers, store):
    """Return images a second after the first batch has come, and the sum of the pixels."""
    split = EncodedSplit(store, np.arange(JPEGS), Decoding(workers))
    loader = Loader(split, batch_size=BATCH, mean=(123.0,) * 3, std=(68.0,) * 3, seed=0)
    batches = loader.epoch(0)
    x, _ = next(batches)
    total = float(x.sum(dtype=np.float64))
    start = time.perf_counter()
    for x, _ in batches:
        total += float(x.sum(dtype=np.float64))
    return (JPEGS - BATCH) / (time.perf_counter() - start), total


def decode_only(store):
    """Return images a second of Pillow's decoder alone."""
    contents = [store.read(i) for i in range(20)]
    start = time.perf_counter()
    for data in contents:
        Image.open(io.BytesIO(data)).convert("RGB")
    return len(contents) / (time.perf_counter() - start)


def measure_jpegs(rounds):
    """Print and return images a second by number of processes, in turn."""
    store = photographs()
    rates = {f"{n} processes": [] for n in (0, 1, 2)} | {"decode only": []}
    for _ in range(rounds):
        sums = set()
        for n in (0, 1, 2):
            speed, total = rate(n, store)
            rates[f"{n} processes"].append(speed)
            sums.add(total)
        assert len(sums) == 1, sums
        rates["decode only"].append(decode_only(store))
    for name, values in rates.items():
        print(f"JPEG, 224×224, {name:17} {np.median(values):10,.0f} images a second")
    pairs = zip(rates["2 processes"], rates["1 processes"], strict=True)
    gain = float(np.median([two / one for two, one in pairs]))
    print(f"2 processes: {gain:.2f} × the speed of 1")
    return {"images_per_second": rates, "2 processes / 1": gain}


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
    result = {"images": IMAGES, "seconds": seconds, "images_per_second": rates}
    save("data", result | {"jpeg": measure_jpegs(arguments.rounds)})


if __name__ == "__main__":
    main()
