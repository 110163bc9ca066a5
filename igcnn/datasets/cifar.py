"""CIFAR-10 and CIFAR-100 (A. Krizhevsky, 2009), from their official files.

Binary version: per image one label byte (CIFAR-100: coarse, fine) and 3,072 bytes, the red,
green and blue plane of 32 × 32 pixels. Python version: one pickled dictionary a file, with the
images as rows of one array. Both are read unpacked or from their .tar.gz, member by member; the
binary files of CIFAR-10 also packed (cifar_pack.py).

A pickle is a program. Those here run on stand-ins that only note what was asked for, so that
nothing in a file is executed, whoever wrote it.
"""

import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingDataError
from ..files import write_atomically
from .cifar_pack import EXTENSION, packed, unpacked
from .dataset import Augmentation, Dataset, Decoding, Split
from .registry import register_dataset

Array = np.ndarray

TRAIN_IMAGES = 50_000
TEST_IMAGES = 10_000
PIXELS = 3 * 32 * 32
# the python version spends some bytes more an image, on labels and file names
MAX_BYTES_PER_IMAGE = 2 * PIXELS

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)

Decoder = Callable[[bytes], tuple[Array, Array]]


@dataclass(frozen=True)
class Form:
    """One of the forms in which a data set is published.

    Attributes:
        folder: what the archive unpacks to.
        archive: its name.
        size: bytes of the archive; 0 where the publisher states none.
        train: names of the training files, in order.
        test: name of the test file.
        decode: turns a file's bytes into rows and labels.
    """

    folder: str
    archive: str
    size: int
    train: tuple[str, ...]
    test: str
    decode: Decoder


@register_dataset("cifar10")
def load_cifar10(data_dir: Path | None, decoding: Decoding) -> Dataset:
    """Return CIFAR-10: 50,000 training and 10,000 test images, uint8, (N, 3, 32, 32).

    Files of the same format with other numbers of images are read as well.

    Args:
        data_dir: a folder that holds an official archive, its unpacked folder or its files, those
            of pack_cifar10, or the path of the archive.
        decoding: its `say` is called if the numbers of images differ.

    Raises:
        DataError: files are missing or damaged.
    """
    batches = tuple(f"data_batch_{i}" for i in range(1, 6))
    binary = Form(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        size=170_052_171,
        train=tuple(f"{name}.bin" for name in batches),
        test="test_batch.bin",
        decode=lambda data: _decode_binary(data, label_bytes=1),
    )
    python = Form(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        size=0,
        train=batches,
        test="test_batch",
        decode=lambda data: _decode_pickle(data, labels=b"labels"),
    )
    forms = binary, python
    train, test = _load("cifar10", forms, data_dir, len(CIFAR10_CLASSES), decoding.say)
    return Dataset(
        name="cifar10",
        classes=CIFAR10_CLASSES,
        mean=(125.307, 122.950, 113.865),
        std=(62.993, 62.089, 66.705),
        augmentation=Augmentation(pad=4, mirror=True),
        train=train,
        test=test,
    )


def pack_cifar10(
    dataset: Dataset, folder: Path, report: Callable[[str, int, int], None]
) -> list[Path]:
    """Write CIFAR-10 as six packed files, which load_cifar10 reads; return their paths.

    Args:
        dataset: as load_cifar10 returns it.
        folder: of the files; made if it is not there.
        report: called with the split, images so far and images in all.

    Raises:
        DataError: a file cannot be written.
    """
    paths = []
    for name, split, files in (
        ("train", dataset.train, [f"data_batch_{i}.bin" for i in range(1, 6)]),
        ("test", dataset.test, ["test_batch.bin"]),
    ):
        assert isinstance(split, Split)  # in memory, as load_cifar10 makes it
        count = len(split.labels)
        pixels = split.images.reshape(count, PIXELS)
        records = np.concatenate([split.labels[:, None].astype(np.uint8), pixels], axis=1)
        if count < len(files):
            raise DataError(f"{name} has {count} images, too few for {len(files)} files")
        done = 0
        for i, part in enumerate(np.array_split(records, len(files))):
            path = folder / (files[i] + EXTENSION)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, packed(part.tobytes()))
            except OSError as error:
                raise DataError(f"cannot write {path}: {error.strerror}; make room") from error
            paths.append(path)
            done += len(part)
            report(name, done, count)
    return paths


@register_dataset("cifar100")
def load_cifar100(data_dir: Path | None, decoding: Decoding) -> Dataset:
    """Return CIFAR-100 with its 100 fine labels; sizes, arguments and errors as for CIFAR-10."""
    binary = Form(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        size=168_513_733,
        train=("train.bin",),
        test="test.bin",
        decode=lambda data: _decode_binary(data, label_bytes=2),
    )
    python = Form(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        size=0,
        train=("train",),
        test="test",
        decode=lambda data: _decode_pickle(data, labels=b"fine_labels"),
    )
    train, test = _load(
        "cifar100", (binary, python), data_dir, len(CIFAR100_CLASSES), decoding.say
    )
    return Dataset(
        name="cifar100",
        classes=CIFAR100_CLASSES,
        mean=(129.304, 124.070, 112.434),
        std=(68.170, 65.392, 70.418),
        augmentation=Augmentation(pad=4, mirror=True),
        train=train,
        test=test,
    )


def _load(
    name: str,
    forms: tuple[Form, ...],
    data_dir: Path | None,
    classes: int,
    say: Callable[[str], None],
) -> tuple[Split, Split]:
    """Return the training and the test split."""
    places = (
        []
        if data_dir is None
        else [
            (form, place)
            for form in forms
            for folder in (data_dir, data_dir / name)
            for place in (folder, folder / form.folder, folder / form.archive)
        ]
    )
    for form, place in places:
        contents = _read_place(place, form)
        if contents:
            train = _split(place, form, form.train, contents, classes)
            test = _split(place, form, (form.test,), contents, classes)
            if (len(train), len(test)) != (TRAIN_IMAGES, TEST_IMAGES):
                say(
                    f"{place} does not hold the official {name}: {len(train):,} training and "
                    f"{len(test):,} test images, not {TRAIN_IMAGES:,} and {TEST_IMAGES:,}"
                )
            return train, test
    form = forms[0]
    where = "no --data-dir was given" if data_dir is None else f"no files found in {data_dir}"
    raise MissingDataError(
        f"{name}: {where}; run igcnn data fetch {name}, or put {form.archive} ({form.size:,} "
        f"bytes, from https://www.cs.toronto.edu/~kriz/{form.archive}) or {forms[1].archive} into "
        "a folder, packed or unpacked, and pass the folder as --data-dir"
    )


def _read_place(place: Path, form: Form) -> dict[str, bytes]:
    """Return those of the form's files that a folder or an archive holds, by name."""
    wanted = {*form.train, form.test}
    try:
        if place.is_dir():
            found = {name: _read_file(place / name) for name in wanted if (place / name).is_file()}
            return found or _read_packed(place, wanted)
        if place.is_file():
            return dict(_read_archive(place, form.folder, wanted))
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"cannot read {place}: {error}; download it again") from error
    return {}


def _read_packed(place: Path, wanted: set[str]) -> dict[str, bytes]:
    contents = {}
    for path in (place / (name + EXTENSION) for name in wanted):
        if path.is_file():
            try:
                contents[path.name.removesuffix(EXTENSION)] = unpacked(_read_file(path))
            except DataError as error:
                raise DataError(f"{path} {error}; pack or copy it again") from error
    return contents


def _read_file(path: Path) -> bytes:
    limit = TRAIN_IMAGES * MAX_BYTES_PER_IMAGE
    if path.stat().st_size > limit:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes, more than {limit:,}; it is not CIFAR"
        )
    return path.read_bytes()


def _read_archive(path: Path, folder: str, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield wanted members of a .tar.gz; nothing is unpacked to disk."""
    limit = TRAIN_IMAGES * MAX_BYTES_PER_IMAGE
    missing = set(wanted)
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            inner, _, name = member.name.removeprefix("./").partition("/")
            if inner != folder or name not in missing or not member.isreg():
                continue
            if member.size > limit:
                raise DataError(
                    f"{path}: {member.name} has {member.size:,} bytes, more than {limit:,}; "
                    "not CIFAR"
                )
            content = archive.extractfile(member)
            assert content is not None  # a regular file
            yield name, content.read()
            missing.remove(name)
            if not missing:
                return


def _split(
    place: Path, form: Form, names: tuple[str, ...], contents: dict[str, bytes], classes: int
) -> Split:
    """Decode the named files into one split."""
    absent = [name for name in names if name not in contents]
    if absent:
        raise DataError(f"{place}: {', '.join(absent)} missing; unpack {form.archive} again")
    parts = []
    for name in names:
        try:
            pixels, labels = form.decode(contents.pop(name))
            wrong = np.flatnonzero((labels < 0) | (labels >= classes))
            if wrong.size:
                raise DataError(
                    f"has label {labels[wrong[0]]} at image {wrong[0]}, where 0 to {classes - 1} "
                    "are valid"
                )
        except DataError as error:
            raise DataError(f"{place}: {name} {error}; download {form.archive} again") from error
        parts.append((pixels, labels))
    # (N, 3072) → (N, 3, 32, 32)
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    return Split(images, np.concatenate([labels.astype(np.int64) for _, labels in parts]))


def _decode_binary(data: bytes, label_bytes: int) -> tuple[Array, Array]:
    """Return rows of pixels, (n, 3072), and labels, (n,): the last label byte."""
    record = label_bytes + PIXELS
    if not data or len(data) % record:
        raise DataError(
            f"has {len(data):,} bytes, not a whole number of images of {record:,} bytes: it is "
            "cut short or not CIFAR"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _decode_pickle(data: bytes, labels: bytes) -> tuple[Array, Array]:
    """Return rows of pixels, (n, 3072), and labels, (n,), of a pickled dictionary."""
    try:
        content = _unpickle(data)
        rows = content[b"data"].as_array()
        numbers = np.array([int(label) for label in content[labels]], np.int64)
    except DataError:
        raise
    except Exception as error:  # a foreign pickle can fail in any way
        raise DataError(f"is not a CIFAR pickle ({type(error).__name__}: {error})") from error
    count = len(numbers)
    if not count or rows.shape != (count, PIXELS):
        raise DataError(
            f"has pixels of shape {rows.shape} and {count} labels instead of (n, {PIXELS}) and n"
        )
    return rows, numbers


class _StandIn:
    """Takes the place of a NumPy name in a pickle: it notes its arguments and its state."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> "_StandIn":
        return _StandIn(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def as_array(self) -> Array:
        """Return the uint8 array that NumPy would have made of the state."""
        _, shape, dtype, fortran, raw = self.state
        if self.name != "_reconstruct" or dtype.name != "dtype" or dtype.arguments[0] != b"u1":
            raise DataError("holds no array of bytes under 'data'")
        flat = np.frombuffer(raw, np.uint8)
        return flat.reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        root = module.removeprefix("numpy").removeprefix("._core").removeprefix(".core")
        if (root, name) in {("", "ndarray"), ("", "dtype"), (".multiarray", "_reconstruct")}:
            return _StandIn(name)
        raise DataError(f"refers to {module}.{name}, which no data file needs; nothing was run")


def _unpickle(data: bytes) -> Any:
    # the unpickler reserves as much memory as the largest memo number in the file says
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
            raise DataError(f"numbers an object {argument}, more than the file has bytes")
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()
