import hashlib
import json

import h5py
import numpy as np
import pytest

from igcnn import build_network, load_checkpoint, save_checkpoint
from igcnn.errors import CheckpointError
from igcnn.functional import cross_entropy
from igcnn.layers import Chain, ReLU
from igcnn.optim import SGD
from igcnn.training import Preprocessing

PREPROCESSING = Preprocessing("toy", ("a", "b"), (1.5, 2.0, 0.1), (60.0, 61.0, 1 / 3))


def small(net="plain_igc", **settings):
    return build_network(net, **{"depth": 8, "L": 2, "M": 2, "num_classes": 3, **settings})


@pytest.fixture
def trained():
    """A network after one step, so that buffers and velocity are not at their start."""
    network = small()
    optimizer = SGD(network.named_parameters(), lr=0.1)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    cross_entropy(network(x), np.array([0, 1, 2, 0])).backward()
    optimizer.step()
    return network, optimizer


@pytest.fixture
def path(trained, tmp_path):
    path = tmp_path / "a.h5"
    network, optimizer = trained
    progress = {"step": 7, "loss": 1 / 3}
    save_checkpoint(
        path,
        network,
        optimizer,
        preprocessing=PREPROCESSING,
        training={"seed": 5},
        progress=progress,
    )
    return path


def test_everything_comes_back_to_the_bit(trained, path):
    network, optimizer = trained
    checkpoint = load_checkpoint(path)
    assert checkpoint.preprocessing == PREPROCESSING
    assert checkpoint.training == {"seed": 5}
    assert checkpoint.progress == {"step": 7, "loss": 1 / 3}
    assert checkpoint.network == network.settings
    state = network.state_dict()
    assert list(checkpoint.state) == list(state)  # the order too
    rebuilt = checkpoint.build()
    for name, array in rebuilt.state_dict().items():
        np.testing.assert_array_equal(array, state[name], strict=True)
    other = SGD(rebuilt.named_parameters(), lr=0.1)
    checkpoint.restore(other)
    for own, restored in zip(optimizer.velocity, other.velocity, strict=True):
        assert own.any()
        np.testing.assert_array_equal(restored, own, strict=True)


@pytest.mark.parametrize(
    ("net", "settings"),
    [
        ("plain", {"dtype": "float64"}),
        ("plain_igc", {"fusion": "summation"}),
        ("resnet_igc", {}),
    ],
)
def test_every_kind_of_network_is_rebuilt(tmp_path, net, settings):
    network = small(net, seed=3, **settings)
    save_checkpoint(tmp_path / "a.h5", network)
    checkpoint = load_checkpoint(str(tmp_path / "a.h5"))
    assert checkpoint.velocity == {}
    assert checkpoint.preprocessing is None
    state = checkpoint.build().state_dict()
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(state[name], array, strict=True)


def test_plain_h5py_reads_it(trained, path):
    network, _ = trained
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["network"])["net"] == "plain_igc"
        assert list(file["parameters"]) == [name for name, _ in network.named_parameters()]
        np.testing.assert_array_equal(
            file["parameters/fc_score_weight"], network.state_dict()["fc_score_weight"]
        )


def test_a_network_of_ones_own_is_loaded_by_hand(tmp_path):
    save_checkpoint(tmp_path / "a.h5", Chain({"relu": ReLU()}))
    with pytest.raises(CheckpointError, match=r"load_state_dict\(checkpoint.state\)"):
        load_checkpoint(tmp_path / "a.h5").build()


def test_a_checkpoint_of_another_network_does_not_fit(path):
    checkpoint = load_checkpoint(path)
    other = small(M=4)
    with pytest.raises(CheckpointError, match="shape"):
        other.load_state_dict(checkpoint.state)
    with pytest.raises(CheckpointError, match="velocities"):
        checkpoint.restore(SGD(other.named_parameters(), lr=0.1))


def test_settings_that_make_no_network(path, tmp_path, trained):
    network, _ = trained
    network.settings["depth"] = 9
    save_checkpoint(tmp_path / "b.h5", network)
    with pytest.raises(CheckpointError, match="cannot be built"):
        load_checkpoint(tmp_path / "b.h5").build()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"a\.h5"):
        load_checkpoint(path)


def test_damage_anywhere_is_found(path):
    rng = np.random.default_rng(0)
    original = path.read_bytes()
    # one flipped bit in the user block, at its edge, at the end, and in 500 other places
    positions = [0, 20, 100, 511, 512, len(original) - 1, *rng.integers(0, len(original), 500)]
    for position in positions:
        data = bytearray(original)
        data[position] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"^[^\n]*a\.h5[^\n]*$"):
            load_checkpoint(path)


def test_foreign_files(tmp_path, path):
    foreign = tmp_path / "foreign.h5"
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(foreign)
    foreign.write_text("PK\x03\x04 not at all")
    with pytest.raises(CheckpointError, match="not an igcnn checkpoint"):
        load_checkpoint(foreign)
    with h5py.File(foreign, "w") as file:
        file["weights"] = np.ones(3)
    with pytest.raises(CheckpointError, match="not an igcnn checkpoint"):
        load_checkpoint(foreign)


def edit(path, change):
    """Change a file with h5py and give it the checksum of what it then holds."""
    with h5py.File(path, "r+") as file:
        change(file)
    data = path.read_bytes()
    digest = hashlib.sha256(data[512:]).hexdigest()
    path.write_bytes(f"igcnn-checkpoint\n{digest}\n".encode().ljust(512, b"\0") + data[512:])


def test_a_changed_weight_is_found_by_the_checksum(path):
    with h5py.File(path, "r+") as file:
        file["parameters/fc_score_bias"][0] += 1e-6
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(path)


def test_a_newer_format_is_named(path):
    edit(path, lambda file: file.attrs.modify("format_version", 3))
    with pytest.raises(CheckpointError, match="format version 3"):
        load_checkpoint(path)


def external(file):
    del file["parameters/fc_score_bias"]
    file["parameters"].create_dataset(
        "fc_score_bias", (3,), "f4", external=[("/etc/hostname", 0, 12)]
    )


def link(file):
    del file["parameters/fc_score_bias"]
    file["parameters/fc_score_bias"] = h5py.ExternalLink("/etc/hostname", "/")


def huge(file):
    del file["parameters/fc_score_bias"]
    file["parameters"].create_dataset("fc_score_bias", (2**40,), "f4", chunks=(2**10,))


def group(file):
    del file["parameters/fc_score_bias"]
    file.create_group("parameters/fc_score_bias")


def missing(file):
    del file["parameters"]


def no_texts(file):
    del file.attrs["progress"]


def no_json(file):
    file.attrs["network"] = "os.system"


@pytest.mark.parametrize("change", [external, link, huge, group, missing, no_texts, no_json])
def test_crafted_files_are_refused_unread(path, change):
    edit(path, change)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(path)


def test_a_failed_save_leaves_the_old_file(path, trained, monkeypatch):
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, small())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.h5"]


def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, small())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.h5"]


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "a.h5", small())


def test_equal_content_makes_equal_bytes(trained, tmp_path):
    network, optimizer = trained
    for name in ("a.h5", "b.h5"):
        save_checkpoint(tmp_path / name, network, optimizer)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_version_is_written(path):
    assert load_checkpoint(path).format_version == 1  # nothing in it needs the newer format
