"""Runs on disk, from files written by hand."""

import re

import pytest
from written_runs import make_run

from igcnn.errors import ConfigError
from igcnn.training.runs import differing, draw_runs, find_runs, labels, read_run


def test_how_a_run_went(tmp_path):
    make_run(tmp_path / "a", [50.0, 75.0, 70.0])
    run = read_run(tmp_path / "a")
    assert (run.state, run.epoch, run.epochs, run.seconds) == ("stopped", 3, 4, 30.0)
    assert (run.best_top1, run.last_top1) == (75.0, 70.0)
    assert [run.epochs_to(top1) for top1 in (10, 50, 50.1, 75, 76)] == [1, 1, 2, 2, None]
    make_run(tmp_path / "b", [50.0] * 4)
    assert read_run(tmp_path / "b").state == "done"


def test_a_run_that_ended_early_is_done(tmp_path):
    """By --max-steps or --patience: it has a result."""
    run = make_run(tmp_path, [50.0], max_steps=30)
    assert read_run(tmp_path).state == "stopped"
    run.write_result({})
    assert read_run(tmp_path).state == "done"
    run.cut_after(0)  # it is resumed
    assert read_run(tmp_path).state == "stopped"


def test_validation_images_come_before_test_images(tmp_path):
    run = make_run(tmp_path, [])
    for epoch, top1 in enumerate([60.0, 80.0, 70.0], 1):
        row = {"epoch": epoch, "step": epoch, "train_loss": 1.0, "train_top1": 90.0}
        run.append_epoch(row | {"val_loss": 1.0, "val_top1": top1, "lr": 0.1, "seconds": 1.0})
    found = read_run(tmp_path)
    assert (found.best_top1, found.last_top1, found.epochs_to(75)) == (80.0, 70.0, 2)


def test_constants_that_follow_from_the_schedule_are_no_difference(tmp_path):
    constants = {"schedule": "exponential", "lr_steps": []}
    make_run(tmp_path / "a", epochs=4, lr_factor=1e-3 ** (1 / 4), **constants)
    make_run(tmp_path / "b", epochs=8, lr_factor=1e-3 ** (1 / 8), **constants)
    assert differing([read_run(tmp_path / name) for name in "ab"]) == ["epochs"]


def test_damaged_and_absent_runs(tmp_path):
    make_run(tmp_path / "runs" / "good")
    make_run(tmp_path / "runs" / "bad")
    (tmp_path / "runs" / "bad" / "config.toml").write_text("epochs = 'many'")
    assert [run.path.name for run in find_runs(tmp_path / "runs")] == ["good"]
    with pytest.raises(ConfigError, match="damaged"):
        read_run(tmp_path / "runs" / "bad")
    with pytest.raises(ConfigError, match="is not a run directory"):
        read_run(tmp_path)


def test_what_differs_names_a_run(tmp_path):
    make_run(tmp_path / "a", lr=0.05)
    make_run(tmp_path / "b", lr=0.1, epochs=8)  # other lr_steps follow from the epochs
    make_run(tmp_path / "c", lr=0.1, epochs=8, lr_steps=[7], max_steps=3, fusion="learned")
    make_run(tmp_path / "d", lr=0.05, sync_bn=False, dataset="folder", data_dir="/x/flowers")
    runs = [read_run(tmp_path / name) for name in "abcd"]
    assert differing(runs[:1]) == []
    assert differing(runs[:2]) == ["epochs", "lr"]
    # fusion is learned where nothing is said
    assert differing(runs[1:3]) == ["lr_steps", "max_steps"]
    assert differing([runs[0], runs[3]]) == ["dataset", "data_dir"]
    assert runs[3].settings["dataset"] == "flowers"
    assert labels(runs[:2]) == ["epochs 4, lr 0.05", "epochs 8, lr 0.1"]
    assert labels(runs[1:3]) == ["b", "lr_steps 7, max_steps 3"]
    make_run(tmp_path / "e", lr=0.05)
    twice = [read_run(tmp_path / name) for name in "aeb"]
    assert labels(twice) == ["epochs 4, lr 0.05 (a)", "epochs 4, lr 0.05 (e)", "epochs 8, lr 0.1"]


def test_a_picture_has_every_run_that_can_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
    make_run(tmp_path / "a", [50.0, 60.0], lr=0.05)
    make_run(tmp_path / "b", [40.0], lr=0.2)
    make_run(tmp_path / "c")
    picture = tmp_path / "x.svg"
    left_out = draw_runs([tmp_path / name for name in "abc"], picture)
    assert left_out == [tmp_path / "c"]
    text = picture.read_text()
    assert "lr 0.05" in text
    assert "lr 0.2" in text
    # the single epoch of b is a point, in the second colour
    points = re.findall(r'<use [^>]*fill: #([0-9a-f]{6}); stroke: #\1"', text)
    assert set(points) == {"ff7f0e"}


def test_an_empty_picture_is_refused(tmp_path):
    make_run(tmp_path / "c")
    with pytest.raises(ConfigError, match="nothing to plot: no epoch is complete"):
        draw_runs([tmp_path / "c"], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
