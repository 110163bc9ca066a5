import json
import os
import tomllib
import xml.etree.ElementTree as ElementTree

import pytest

from igcnn.errors import ConfigError
from igcnn.training.run_directory import EPOCH_KEYS, LOG_KEYS, RunDirectory
from igcnn.training.run_folders import default_folder, new_run, newest_run


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "a" / "run")
    run.create()
    return run


def step_row(step):
    return dict.fromkeys(LOG_KEYS, 1 / 3) | {"step": step, "epoch": 1}


def epoch_row(epoch, step):
    return dict.fromkeys(EPOCH_KEYS, 1 / 3) | {"epoch": epoch, "step": step}


def test_rows_are_written_as_the_users_read_them(run):
    run.append_step(step_row(10))
    run.append_epoch(epoch_row(1, 12))
    (line,) = (run.path / "metrics.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == [
        "step",
        "epoch",
        "loss",
        "top1",
        "lr",
        "images_per_second",
        "seconds",
    ]
    head, row = (run.path / "metrics.csv").read_text().splitlines()
    assert head.startswith("epoch,step,train_loss,train_top1,test_loss,test_top1,test_top5")
    assert row.startswith("1,12,0.333")
    ElementTree.parse(run.path / "curves.svg")


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_row_that_does_not_fit_is_written_once(run, largest_file, room):
    """What a buffer still held was written as the file was closed, and with the next row again."""
    run.append_step(step_row(1))
    size = (run.path / "metrics.jsonl").stat().st_size
    largest_file(size + room)
    run.append_step(step_row(2))
    assert (run.path / "metrics.jsonl").stat().st_size == size
    largest_file(-1)
    run.append_step(step_row(3))
    assert [row["step"] for row in run.read_steps()] == [1, 2, 3]


def test_a_first_epoch_that_does_not_fit_ends_nothing(run, largest_file):
    largest_file(0)
    run.append_epoch(epoch_row(1, 1))
    assert run.read_epochs() == []
    largest_file(-1)
    run.append_epoch(epoch_row(2, 2))
    assert [row["step"] for row in run.read_epochs()] == [1, 2]


def test_curves_that_cannot_be_drawn_end_nothing(run, monkeypatch):
    def unreadable():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(run, "read_steps", unreadable)
    run.append_epoch(epoch_row(1, 1))
    assert len(run.read_epochs()) == 1


def test_files_of_a_run_that_do_not_fit(run, largest_file):
    largest_file(3)
    for write in (
        lambda: run.write_config({"net": "plain"}),
        lambda: run.write_result({"step": 1}),
    ):
        with pytest.raises(ConfigError, match=r"cannot write to .*run: File too large; choose"):
            write()


def test_rows_after_a_checkpoint_are_cut(run):
    for step in (10, 20, 30, 40):
        run.append_step(step_row(step))
    for epoch in (1, 2, 3):
        run.append_epoch(epoch_row(epoch, 12 * epoch))
    run.cut_after(24)
    assert [row["step"] for row in run.read_steps()] == [10, 20]
    assert [row["epoch"] for row in run.read_epochs()] == [1, 2]
    assert run.read_steps()[0] == step_row(10)  # exact numbers
    run.append_epoch(epoch_row(3, 36))
    assert (run.path / "metrics.csv").read_text().count("epoch") == 1


def test_a_line_that_a_kill_cut_short_is_dropped(run):
    run.append_step(step_row(10))
    run.append_epoch(epoch_row(1, 10))
    for name in ("metrics.jsonl", "metrics.csv"):
        with open(run.path / name, "a") as file:
            file.write('{"step": 2')
    run.cut_after(100)
    assert [row["step"] for row in run.read_steps()] == [10]
    assert [row["step"] for row in run.read_epochs()] == [10]


@pytest.mark.parametrize("left", ["", "epoch,st"])
def test_a_heading_that_a_kill_cut_short_is_written_again(run, left):
    (run.path / "metrics.csv").write_text(left)
    run.append_step(step_row(1))
    run.cut_after(1)
    run.append_epoch(epoch_row(1, 1))
    assert [row["step"] for row in run.read_epochs()] == [1]


def test_cutting_a_run_without_rows(run):
    run.cut_after(0)
    assert run.read_steps() == run.read_epochs() == []


def test_a_used_folder_is_refused_and_overwriting_spares_foreign_files(run):
    with pytest.raises(ConfigError, match="--overwrite"):
        run.refuse_if_used()
    (run.path / "thesis.tex").write_text("mine")
    run.write_config({"lr": 0.1})
    run.last.touch()
    run.create(overwrite=True)
    assert (run.path / "thesis.tex").read_text() == "mine"
    assert not (run.path / "config.toml").exists()
    assert not run.last.exists()


def test_an_empty_or_absent_folder_is_not_used(tmp_path):
    RunDirectory(tmp_path).refuse_if_used()
    RunDirectory(tmp_path / "absent").refuse_if_used()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"cannot write to .* --out"):
            RunDirectory(path).create()
    with pytest.raises(ConfigError, match="cannot write to"):
        RunDirectory(tmp_path / "file").refuse_if_used()


def test_config_comes_back(run):
    settings = {"net": "plain", "lr": 0.1, "lr_steps": (1, 2), "data_dir": None}
    run.write_config(settings)
    assert tomllib.loads((run.path / "config.toml").read_text())["lr"] == 0.1
    assert run.read_config() == {"net": "plain", "lr": 0.1, "lr_steps": [1, 2]}


def test_a_damaged_config_is_named(run):
    (run.path / "config.toml").write_text("lr = ")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        run.read_config()


def test_environment_tells_versions_and_no_more(run, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    run.write_environment("cpu")
    text = (run.path / "env.json").read_text()
    values = json.loads(text)
    assert {"igcnn", "python", "numpy"} <= set(values["versions"])
    assert values["device"] == "cpu"
    assert values["cores"] == os.cpu_count()
    assert "hunter2" not in text
    assert set(values) == {"versions", "blas", "device", "cores", "system", "machine"}


def test_where_runs_lie(tmp_path):
    settings = {"net": "plain_igc", "depth": 38, "L": 24, "M": 2}
    folder = default_folder(tmp_path, "cifar10", settings)
    assert folder == tmp_path / "cifar10" / "plain_igc-L24M2-d38"
    assert newest_run(folder) is None
    runs = []
    for age in (30, 10, 20):
        run = new_run(folder)
        assert run.path not in [other.path for other in runs]
        run.create()
        run.last.touch()
        os.utime(run.last, (1000 - age, 1000 - age))
        runs.append(run)
    assert newest_run(folder).path == runs[1].path
    runs[1].last.unlink()  # killed before its first checkpoint
    assert newest_run(folder).path == runs[2].path
