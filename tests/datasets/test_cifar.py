"""The readers of CIFAR, on files in the official formats, whole and damaged."""

import io
import os
import pickle
import tarfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from igcnn import load_dataset
from igcnn.datasets import Split, cifar
from igcnn.datasets.cifar_pack import packed, unpacked
from igcnn.errors import DataError

TRAIN, TEST = 20, 6
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", TRAIN)
    monkeypatch.setattr(cifar, "TEST_IMAGES", TEST)


class Python2Pickler:
    """Writes what Python 2.7 and NumPy 1 wrote in 2009: protocol 2, byte strings, numpy.core."""

    def __init__(self, fortran=False):
        self.fortran = fortran

    @staticmethod
    def text(value):
        return b"U" + bytes([len(value)]) + value

    @staticmethod
    def long_text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    @staticmethod
    def integer(value):
        return b"J" + value.to_bytes(4, "little", signed=True)

    def array(self, array):
        shape = b"".join(self.integer(n) for n in array.shape) + b"\x86"
        dtype = b"cnumpy\ndtype\n" + self.text(b"u1") + self.integer(0) + self.integer(1)
        dtype += b"\x87R("
        dtype += self.integer(3) + self.text(b"|") + b"NNN"
        dtype += self.integer(-1) + self.integer(-1) + self.integer(0) + b"tb"
        state = b"(" + self.integer(1) + shape + dtype
        state += b"\x88" if self.fortran else b"\x89"
        state += self.long_text(array.tobytes("F" if self.fortran else "C")) + b"t"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        made += self.integer(0) + b"\x85" + self.text(b"b") + b"\x87R"
        return made + state + b"b"

    def dictionary(self, key, labels, pixels):
        numbers = b"](" + b"".join(self.integer(int(n)) for n in labels) + b"e"
        items = self.text(b"data") + self.array(pixels)
        items += self.text(key) + numbers
        items += self.text(b"batch_label") + self.text(b"training batch")
        return b"\x80\x02}(" + items + b"u."


def make_files(name, form, seed=0):
    """Return {file name: bytes}, and images and labels of both splits as the files hold them."""
    rng = np.random.default_rng(seed)
    if name == "cifar10":
        parts = [(batch, TRAIN // 5) for batch in BATCHES] + [("test_batch", TEST)]
        key, classes = b"labels", 10
    else:
        parts = [("train", TRAIN), ("test", TEST)]
        key, classes = b"fine_labels", 100
    files, pixels, labels = {}, [], []
    for stem, count in parts:
        rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        numbers = rng.integers(0, classes, count, dtype=np.uint8)
        if form == "python":
            files[stem] = Python2Pickler().dictionary(key, numbers, rows)
        else:
            coarse = [] if name == "cifar10" else [numbers[:, None] // 5]
            records = np.concatenate([*coarse, numbers[:, None], rows], axis=1)
            files[f"{stem}.bin"] = records.astype(np.uint8).tobytes()
        pixels.append(rows.reshape(count, 3, 32, 32))
        labels.append(numbers)
    expected = [np.concatenate(p) for p in (pixels[:-1], labels[:-1], pixels[-1:], labels[-1:])]
    return files, expected


FOLDERS = {
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar100", "binary"): "cifar-100-binary",
    ("cifar100", "python"): "cifar-100-python",
}
ARCHIVES = {
    ("cifar10", "binary"): "cifar-10-binary.tar.gz",
    ("cifar10", "python"): "cifar-10-python.tar.gz",
    ("cifar100", "binary"): "cifar-100-binary.tar.gz",
    ("cifar100", "python"): "cifar-100-python.tar.gz",
}


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def check(data, expected):
    np.testing.assert_array_equal(data.train.images, expected[0])
    np.testing.assert_array_equal(data.train.labels, expected[1])
    np.testing.assert_array_equal(data.test.images, expected[2])
    np.testing.assert_array_equal(data.test.labels, expected[3])
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64


@pytest.mark.parametrize(("name", "form"), FOLDERS)
def test_files_as_people_have_them(tmp_path, name, form):
    files, expected = make_files(name, form)
    folder = FOLDERS[name, form]
    write_folder(tmp_path / "unpacked" / folder, files)
    check(load_dataset(name, tmp_path / "unpacked"), expected)
    check(load_dataset(name, tmp_path / "unpacked" / folder), expected)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / ARCHIVES[name, form]
    write_archive(archive, {f"{folder}/{n}": c for n, c in files.items()})
    check(load_dataset(name, tmp_path / "packed"), expected)
    check(load_dataset(name, archive), expected)


def test_what_a_published_data_set_is_made_of():
    assert len(set(cifar.CIFAR10_CLASSES)) == 10
    assert len(set(cifar.CIFAR100_CLASSES)) == 100
    assert list(cifar.CIFAR100_CLASSES) == sorted(cifar.CIFAR100_CLASSES)


def test_an_array_in_columns_is_read_as_such(tmp_path):
    files, expected = make_files("cifar100", "python")
    writer = Python2Pickler(fortran=True)
    rows = expected[0].reshape(TRAIN, 3072)
    files["train"] = writer.dictionary(b"fine_labels", expected[1], rows)
    write_folder(tmp_path / "cifar-100-python", files)
    check(load_dataset("cifar100", tmp_path), expected)


def test_the_writer_of_these_tests_writes_what_numpy_reads():
    rows = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    content = Python2Pickler().dictionary(b"labels", [3, 4], rows)
    read = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(read[b"data"], rows)
    assert read[b"labels"] == [3, 4]


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_runs_a_program_is_not_run(tmp_path):
    files, _ = make_files("cifar10", "python")
    victim = tmp_path / "made by the pickle"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        files["data_batch_2"] = pickle.dumps({b"data": Runs(victim)}, protocol)
        with pytest.raises(DataError, match="which no data file needs; nothing was run"):
            load_files(tmp_path / str(protocol), files)
        assert not victim.exists()


def load_files(folder, files):
    write_folder(folder / "cifar-10-batches-py", files)
    return load_dataset("cifar10", folder)


HOSTILE = {
    "huge memo number": b"\x80\x02]r\xff\xff\xff\xff.",
    "huge text": b"\x80\x02T\xff\xff\xff\x7f.",
    "a list of itself": b"\x80\x02]q\x00h\x00a.",
    "state for a name": b"\x80\x02cnumpy\nndarray\n}U\x01aU\x01bsb.",
    "attributes for a name": b"\x80\x02cnumpy\nndarray\nN}U\x0c__defaults__NsN\x86b.",
    "an array of objects": b"\x80\x02}U\x04datacnumpy\ndtype\nU\x02O8\x85Rs.",
    "no array": b"\x80\x02}U\x04dataK\x01s.",
    "nothing": b"",
    "an integer": b"\x80\x02K\x01.",
    "newobj": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "unknown opcode": b"\x80\x02\xff.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02U\x01aQ.",
    "os.system": b"cos\nsystem\n(S'exit 1'\ntR.",
    "posix.system": b"cposix\nsystem\n(S'exit 1'\ntR.",
    "eval": b"c__builtin__\neval\n(S'1/0'\ntR.",
    "exec, protocol 4": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x03x=1\x85R.",
    "getattr": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
    "an attribute of a name": b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.sort\x93)R.",
    "numpy.load": b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
    "numpy.fromfile": b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.",
    "runstring of numpy": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.",
    "subprocess": b"csubprocess\nPopen\n(S'true'\ntR.",
    "instance": b"(S'true'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'true'\no.",
    "import by name": b"c__builtin__\n__import__\n(S'os'\ntR.",
    "codecs": b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
    "a nested pickle": b"cpickle\nloads\n(S'N.'\ntR.",
    "deep nesting": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "a frame that is too long": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "huge bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "no end": b"\x80\x02}",
    "stack underflow": b"\x80\x020000.",
}


def test_the_list_of_hostile_pickles_is_long():
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, content):
    files, _ = make_files("cifar10", "python")
    files["data_batch_1"] = content
    with pytest.raises(DataError, match="data_batch_1"):
        load_files(tmp_path, files)


def is_refused(name, folder):
    """Return whether reading ends in one clear line; otherwise all images must be there."""
    try:
        data = load_dataset(name, folder)
    except DataError as error:
        message = str(error)
    else:
        assert data.train.images.shape == (TRAIN, 3, 32, 32)
        return False
    assert str(folder) in message
    assert "\n" not in message
    return True


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_damage_is_refused_or_harmless(tmp_path, name, form):
    """Any byte changed, any end cut off: a clear refusal, or images of the right shape."""
    files, _ = make_files(name, form)
    rng = np.random.default_rng(1)
    victim = max(files, key=len) if name == "cifar100" else next(iter(files))
    folder = tmp_path / FOLDERS[name, form]
    write_folder(folder, files)
    refused = 0
    for trial in range(150):
        content = bytearray(files[victim])
        place = int(rng.integers(len(content)))
        if trial % 3 == 0:
            del content[place:]
        elif trial % 3 == 1:
            content[int(rng.integers(min(400, len(content))))] = int(rng.integers(256))
        else:
            content[-int(rng.integers(1, 200))] = int(rng.integers(256))
        (folder / victim).write_bytes(content)
        refused += is_refused(name, tmp_path)
    assert refused >= 50


def test_a_label_out_of_range_is_named(tmp_path):
    files, _ = make_files("cifar10", "binary")
    content = bytearray(files["data_batch_4.bin"])
    content[2 * 3073] = 10
    files["data_batch_4.bin"] = bytes(content)
    write_folder(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=r"data_batch_4.bin has label 10 at image 2, where 0 to 9"):
        load_dataset("cifar10", tmp_path)


def test_a_file_of_another_size_is_named(tmp_path):
    files, _ = make_files("cifar10", "binary")
    files["test_batch.bin"] += b"x"
    write_folder(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=r"test_batch.bin has 18,439 bytes, not a whole number"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_other_numbers_of_images_are_read_with_a_note(tmp_path, monkeypatch, form):
    files, expected = make_files("cifar10", form)
    write_folder(tmp_path / FOLDERS["cifar10", form], files)
    said = []
    check(load_dataset("cifar10", tmp_path, say=said.append), expected)
    assert said == []
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 50_000)
    check(load_dataset("cifar10", tmp_path, say=said.append), expected)
    assert said == [
        f"{tmp_path / FOLDERS['cifar10', form]} does not hold the official cifar10: 20 training "
        "and 6 test images, not 50,000 and 6"
    ]


def test_files_of_different_numbers_of_images(tmp_path):
    rng = np.random.default_rng(0)
    records = {}
    for name, count in zip((*BATCHES, "test_batch"), (3, 1, 4, 2, 5, 7), strict=True):
        records[f"{name}.bin"] = rng.integers(0, 10, (count, 3073), dtype=np.uint8)
    write_folder(tmp_path / "own", {name: x.tobytes() for name, x in records.items()})
    train = np.concatenate([records[f"{name}.bin"] for name in BATCHES])
    test = records["test_batch.bin"]
    expected = [
        part for rows in (train, test) for part in (rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])
    ]
    check(load_dataset("cifar10", tmp_path / "own"), expected)
    own = load_dataset("cifar10", tmp_path / "own")
    cifar.pack_cifar10(own, tmp_path / "packed", lambda *_: None)
    check(load_dataset("cifar10", tmp_path / "packed"), expected)
    few = Split(own.train.images[:4], own.train.labels[:4])
    with pytest.raises(DataError, match="train has 4 images, too few for 5 files"):
        cifar.pack_cifar10(replace(own, train=few), tmp_path / "few", lambda *_: None)


def test_an_empty_file_is_refused(tmp_path):
    files, _ = make_files("cifar100", "binary")
    write_folder(tmp_path / "cifar-100-binary", files | {"test.bin": b""})
    with pytest.raises(DataError, match=r"test.bin has 0 bytes, not a whole number"):
        load_dataset("cifar100", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    files, _ = make_files("cifar10", "binary")
    del files["data_batch_5.bin"]
    write_folder(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=r"data_batch_5.bin missing; unpack"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("folder", [None, "empty", "absent"])
def test_no_data_says_what_to_put_where(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    place = None if folder is None else tmp_path / folder
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz \(170,052,171 bytes") as caught:
        load_dataset("cifar10", place)
    assert folder is None or str(place) in str(caught.value)


def test_an_archive_is_read_by_name_alone(tmp_path):
    """Members of other names, links and paths out of the folder are passed over."""
    files, expected = make_files("cifar10", "binary")
    folder = "cifar-10-batches-bin"
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo(f"{folder}/data_batch_1.bin")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)
        strangers = {"../out": b"x", "/tmp/out": b"x", "other/data_batch_1.bin": b"x"}
        members = strangers | {f"./{folder}/{n}": c for n, c in files.items()}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    check(load_dataset("cifar10", tmp_path), expected)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_damaged_archives_are_refused(tmp_path):
    files, _ = make_files("cifar10", "binary")
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, {f"cifar-10-batches-bin/{n}": c for n, c in files.items()})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(60):
        content = bytearray(whole)
        place = int(rng.integers(len(content) - 50))
        if trial % 2:
            del content[place:]
        else:
            content[place] ^= 0xFF
        path.write_bytes(content)
        is_refused("cifar10", tmp_path)


def test_a_member_of_absurd_size_is_not_read(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.size = 1 << 24
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="16,777,216 bytes, more than"):
        load_dataset("cifar10", tmp_path)


def test_packed_files_give_the_official_bytes_back(tmp_path):
    files, expected = make_files("cifar10", "binary")
    write_folder(tmp_path / "official", files)
    seen = []
    dataset = load_dataset("cifar10", tmp_path / "official")
    paths = cifar.pack_cifar10(dataset, tmp_path / "packed", lambda *row: seen.append(row))
    assert seen[-1] == ("test", TEST, TEST)
    assert {path.name.removesuffix(".packed") for path in paths} == set(files)
    for path in paths:
        assert unpacked(path.read_bytes()) == files[path.name.removesuffix(".packed")]
    check(load_dataset("cifar10", tmp_path / "packed"), expected)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 37])
def test_packed_files_of_any_number_of_images(count):
    data = np.random.default_rng(count).integers(0, 256, count * 3073, np.uint8).tobytes()
    assert unpacked(packed(data)) == data


def test_damage_to_a_packed_file_is_found_wherever_it_is():
    rng = np.random.default_rng(0)
    content = packed(rng.integers(0, 256, 4 * 3073, np.uint8).tobytes())
    for place in [*range(120), *rng.integers(120, len(content), 200)]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        with suppress(DataError):  # else it is a bit that WebP does not read
            assert unpacked(bytes(changed)) == unpacked(content)
    for end in (0, 5, 30, 90, 120, len(content) // 2, len(content) - 1):
        with pytest.raises(DataError):
            unpacked(content[:end])


def test_a_packed_file_that_is_damaged_is_named(tmp_path):
    files, _ = make_files("cifar10", "binary")
    write_folder(tmp_path / "official", files)
    dataset = load_dataset("cifar10", tmp_path / "official")
    path = cifar.pack_cifar10(dataset, tmp_path / "packed", lambda *_: None)[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin\.packed is damaged.*copy it again"):
        load_dataset("cifar10", tmp_path / "packed")
