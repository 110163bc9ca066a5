"""`igcnn train` as people use it: what it leaves, what stops it, what brings it back."""

import hashlib
import json
import signal
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from igcnn import load_checkpoint
from igcnn.datasets import cifar
from igcnn.training import RunDirectory

from .conftest import TINY

EPOCHS = 4
WHOLE = (*TINY, "--epochs", str(EPOCHS), "--log-interval", "5", "--progress", "none")


def weights(run):
    checkpoint = load_checkpoint(Path(run) / "checkpoints" / "last.h5")
    return {name: array.tobytes() for name, array in checkpoint.state.items()}


def rows(run):
    """Rows of metrics.jsonl without what depends on the clock."""
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in r.items() if k not in clock} for r in RunDirectory(run).read_steps()]


def fingerprint(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for_rows(run, count, process):
    """Wait until a run has logged so many rows."""
    for _ in range(2000):
        assert process.poll() is None, process.stderr.read()
        if len(RunDirectory(run).read_steps()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no progress")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    from igcnn.cli.main import main

    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*WHOLE, "--out", str(out)]) == 0
    return out


def test_what_a_run_leaves(whole):
    names = {path.name for path in whole.rglob("*") if path.is_file()}
    assert names == {
        "config.toml",
        "env.json",
        "train.log",
        "metrics.jsonl",
        "metrics.csv",
        "curves.svg",
        "summary.txt",
        "last.h5",
        "previous.h5",
        "best.h5",
        "result.json",
    }
    keys = ["step", "epoch", "loss", "top1", "lr", "images_per_second", "seconds"]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [keys] * len(lines)
    assert lines[-1]["step"] == 90
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_config_of_a_run_makes_it_again(igcnn, whole):
    code, _, err = igcnn("train", "--config", whole / "config.toml", "--out", "again")
    assert code == 0, err
    assert weights("again") == weights(whole)
    first = tomllib.loads((whole / "config.toml").read_text())
    assert tomllib.loads(Path("again/config.toml").read_text()) == first


@pytest.mark.parametrize("threads", ["1", "2"])
def test_blas_threads_change_no_bit(start, whole, threads):
    process = start(*WHOLE, "--out", "other", OPENBLAS_NUM_THREADS=threads)
    assert process.wait(120) == 0
    assert weights("other") == weights(whole)


def test_killed_and_resumed_is_never_killed(start, igcnn, whole):
    process = start(*WHOLE, "--out", "run")
    wait_for_rows("run", 8, process)  # 18 in all
    process.kill()
    process.wait()
    code, out, err = igcnn("train", "--resume", "run")
    assert code == 0, err
    assert "resumed" in out
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_interrupted_and_resumed_is_never_interrupted(start, igcnn, whole):
    process = start(*WHOLE, "--out", "run")
    wait_for_rows("run", 7, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    err = process.stderr.read()
    assert "igcnn train --resume run" in err
    assert "Traceback" not in err
    saved = load_checkpoint("run/checkpoints/last.h5").progress["step"]
    assert saved >= 35
    code, _, err = igcnn("train", "--resume", "run")
    assert code == 0, err
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_resume_finds_the_newest_run(igcnn):
    assert igcnn(*WHOLE, "--max-steps", "3")[0] == 0
    assert igcnn(*WHOLE, "--max-steps", "5")[0] == 0
    code, out, _ = igcnn(*WHOLE, "--max-steps", "7", "--resume")
    assert code == 0
    assert "resumed     after step 5" in out
    assert len(list(Path("runs/digits/plain_igc-L2M2-d8").iterdir())) == 2


def test_settings_come_from_flags_environment_and_file(igcnn, monkeypatch):
    Path("mine.toml").write_text('lr = 0.5\nmomentum = 0.5\nweight_decay = 0.5\nnet = "plain"\n')
    monkeypatch.setenv("IGCNN_MOMENTUM", "0.25")
    monkeypatch.setenv("IGCNN_LR", "0.25")
    arguments = (*WHOLE, "--max-steps", "1", "--config", "mine.toml", "--lr", "0.125")
    assert igcnn(*arguments, "--set", "weight-decay=0", "--out", "run")[0] == 0
    config = tomllib.loads(Path("run/config.toml").read_text())
    assert (config["lr"], config["momentum"], config["weight_decay"]) == (0.125, 0.25, 0)
    assert config["net"] == "plain_igc"


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """A folder of CIFAR-10 in the official layout, with 20 images a file."""
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 100)
    monkeypatch.setattr(cifar, "TEST_IMAGES", 20)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return folder.parent


def test_the_line_of_the_authors_readme(igcnn, small_cifar):
    arguments = (
        "train",
        "--network=plain_igc",
        "--depth=38",
        "--primary-partition=24",
        "--secondary-partition=2",
        "--batch-size=64",
        f"--data-dir={small_cifar}",
        "--dataset=cifar10",
    )
    code, out, err = igcnn(*arguments, "--max-steps", "2", "--out", "run")
    assert code == 0, err
    assert "plain_igc, depth 38, L 24, M 2" in out
    assert "epochs 400" in out
    config = tomllib.loads(Path("run/config.toml").read_text())
    assert config["lr_steps"] == [200, 300, 350]
    assert config["weight_decay"] == 1e-4


def test_missing_data_says_which_files_go_where(igcnn, tmp_path):
    code, _, line = igcnn("train", "--dataset", "svhn", "--data-dir", tmp_path)
    assert code == 3
    for name in ("train_32x32.mat", "test_32x32.mat", "extra_32x32.mat", str(tmp_path)):
        assert name in line
    assert "cifar-10-binary.tar.gz" in igcnn("train", "--dataset", "cifar10")[2]
    assert "cifar-100-binary.tar.gz" in igcnn("train", "--dataset", "cifar100")[2]
    assert not Path("runs").exists()


def test_truncated_data_is_named_and_stays(refused, small_cifar):
    victim = small_cifar / "cifar-10-batches-bin" / "data_batch_3.bin"
    victim.write_bytes(victim.read_bytes()[:-1])
    before = fingerprint(small_cifar)
    line = refused(3, "train", "--dataset", "cifar10", "--data-dir", small_cifar)
    assert "data_batch_3.bin" in line
    assert "61,459 bytes, not a whole number of images of 3,073 bytes" in line
    assert fingerprint(small_cifar) == before
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--net", "resnet_icg"), "did you mean resnet_igc"),
        (("--net", "resnet_igc", "--depth", "21"), "depth"),
        (("--L", "0"), "L"),
        (("--net", "resnet_igc", "--L", "5", "--M", "3", "--dataset", "digitz"), "digits"),
        (("--epochs", "none"), "epochs must be an integer"),
        (("--batch-size", "0"), "batch_size"),
        (("--lr", "nan"), "lr"),
        (("--momentum", "1"), "momentum"),
        (("--max-steps", "0"), "max_steps"),
        (("--set", "lr"), "key=value"),
    ],
)
def test_what_cannot_be_carried_out(refused, arguments, words):
    assert words in refused(2, "train", *arguments)
    assert not Path("runs").exists()


def test_a_device_that_is_not_there(refused):
    assert "--device cpu" in refused(4, "train", "--device", "cuda:7")


def test_divergence(refused, whole):
    line = refused(5, *WHOLE, "--lr", "1e30", "--out", "run")
    assert "last good weights" in line
    state = load_checkpoint("run/checkpoints/last.h5").state
    assert all(np.isfinite(array).all() for array in state.values())


def test_a_used_folder_is_spared(refused, igcnn, whole, tmp_path):
    assert igcnn(*WHOLE, "--max-steps", "2", "--out", "run")[0] == 0
    before = fingerprint("run")
    assert "--overwrite" in refused(2, *WHOLE, "--out", "run")
    refused(2, *WHOLE, "--resume", "run", "--out", "run")
    refused(2, *WHOLE, "--resume", "run", "--overwrite")
    refused(2, *WHOLE, "--resume", "run", "--seed", "1")
    refused(6, "train", "--resume", "run", "--net", "resnet_igc")
    assert fingerprint("run") == before


def test_a_damaged_checkpoint_is_named_and_stays(refused, igcnn):
    assert igcnn(*WHOLE, "--max-steps", "2", "--out", "run")[0] == 0
    for name in ("last.h5", "previous.h5"):
        path = Path("run/checkpoints", name)
        path.write_bytes(path.read_bytes()[:1000])
    before = fingerprint("run")
    assert "last.h5" in refused(6, "train", "--resume", "run")
    assert fingerprint("run") == before
    refused(6, "train", "--resume", "nothing-here.h5")


def test_after_a_damaged_checkpoint_comes_the_one_before(igcnn, whole):
    arguments = (*WHOLE, "--checkpoint-steps", "10")
    assert igcnn(*arguments, "--max-steps", "37", "--out", "run")[0] == 0
    last = Path("run/checkpoints/last.h5")
    last.write_bytes(last.read_bytes()[:-1])
    code, out, err = igcnn("train", "--resume", "run")
    assert code == 0, err
    assert "damaged" in err
    assert "continuing from previous.h5" in err
    assert "resumed     after step 30" in out
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_a_run_in_a_folder_that_another_process_trains_in(start, refused):
    process = start(*TINY, "--epochs", "400", "--progress", "none", "--out", "run")
    wait_for_rows("run", 1, process)
    # A file that is being written goes again when it takes its name.
    before = {name for name in fingerprint("run/checkpoints") if not name.endswith(".part")}
    assert "another process" in refused(2, *WHOLE, "--out", "run", "--overwrite")
    assert "another process" in refused(2, "train", "--resume", "run")
    assert before <= fingerprint("run/checkpoints").keys()


def test_an_output_folder_that_cannot_be_written(refused):
    Path("file").write_text("mine")
    assert "--out" in refused(2, *WHOLE, "--out", "file/run")
    assert Path("file").read_text() == "mine"
