"""`igcnn train --dry-run`: what would be done, and nothing of it."""

from pathlib import Path

import pytest

from .conftest import TINY
from .test_train import fingerprint

LINE = (*TINY, "--dry-run")


def sources(out):
    """Name of a setting → (value, where it is from), of the table."""
    rows = out[: out.index("\n\n")].splitlines()[1:]
    return {row.split()[0]: tuple(row.split(maxsplit=1)[1].rsplit("  ", 1)) for row in rows}


def told(out, label):
    (line,) = (line for line in out.splitlines() if line.startswith(label))
    return line


def test_settings_with_their_sources(igcnn, monkeypatch):
    Path("mine.toml").write_text("momentum = 0.5\nseed = 4")
    monkeypatch.setenv("IGCNN_SEED", "3")
    code, out, err = igcnn(*LINE, "--config", "mine.toml", "--set", "batch-size=32")
    assert code == 0, err
    found = {name: (value.strip(), source) for name, (value, source) in sources(out).items()}
    expected = {
        "net": ("plain_igc", "flags"),
        "momentum": ("0.5", "mine.toml"),
        "seed": ("3", "environment"),
        "batch_size": ("32", "--set"),
        "lr": ("0.05", "preset"),
        "lr_factor": ("0.1", "default"),
        "dataset": ("digits", "default"),
        "image_size": ("32", "default"),
        "growth": ("–", "default"),  # of another network
    }
    assert {name: found[name] for name in expected} == expected
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_network_memory_and_time_fit(igcnn, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = igcnn(*LINE, "--epochs", "3")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= columns
    assert "2,814 parameters" in " ".join(out.split())
    assert told(out, "backend  ").endswith("MB")
    # 1437 images in batches of 64, the last one filled up
    assert ": 23 updates of" in told(out, "epoch  ")
    assert "for 3 epochs" in told(out, "run   ")
    assert list(Path().iterdir()) == []


def test_a_run_stays_as_it_is(igcnn):
    assert igcnn(*TINY, "--max-steps", "3", "--progress", "none", "--out", "run")[0] == 0
    last = Path("run/checkpoints/last.h5")
    last.write_bytes(last.read_bytes()[:-1])  # the one before is taken, which a log would tell
    before = fingerprint("run")
    code, out, err = igcnn("train", "--resume", "run", "--dry-run")
    assert code == 0, err
    assert sources(out)["L"][1] == "config.toml of the run"
    assert told(out, "resumed") == "resumed     after step 0"
    assert fingerprint("run") == before


def test_data_are_not_downloaded(refused, monkeypatch):
    monkeypatch.setattr("igcnn.datasets.fetch.fetch", lambda *arguments: pytest.fail("fetched"))
    assert "cifar-10-binary" in refused(3, *LINE, "--dataset", "cifar10", "--data-dir", ".")


def test_several_processes(refused):
    for option in (("--ranks", "2"), ("--gpus", "0,1"), ("--seeds", "0,1")):
        assert "takes a single process" in refused(2, *LINE, *option)


def test_an_epoch_of_a_single_update(igcnn):
    code, out, err = igcnn(*LINE, "--batch-size", "1437")
    assert code == 0, err
    assert ": 1 updates of" in told(out, "epoch  ")
