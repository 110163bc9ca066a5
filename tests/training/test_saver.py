"""What is on the disk when a checkpoint is, and what happens when it takes none."""

import dataclasses
import errno

import pytest

from igcnn import load_checkpoint
from igcnn.errors import CheckpointError
from igcnn.training.run_directory import LOG_KEYS


@pytest.fixture
def trainer(make_trainer):
    """A trainer that has not begun: its folder holds no checkpoint."""
    return make_trainer()


def save(trainer, step, needed=False):
    state = dataclasses.replace(trainer.state, step=step)
    return trainer.saver.save(trainer.run_directory.last, state, needed)


def test_rows_that_did_not_fit_are_on_the_disk_before_a_checkpoint(trainer, largest_file):
    run = trainer.run_directory
    largest_file(0)
    run.append_step(dict.fromkeys(LOG_KEYS, 1))
    assert run.read_steps() == []
    largest_file(-1)
    assert save(trainer, 1) is None
    assert len(run.read_steps()) == 1


def test_no_checkpoint_is_newer_than_rows_that_still_do_not_fit(trainer, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    assert save(trainer, 1) is None
    monkeypatch.setattr(trainer.run_directory, "flush", full)
    said = save(trainer, 2)
    assert said.startswith("step 2 could not be saved, continuing: ")
    assert load_checkpoint(trainer.run_directory.last).progress["step"] == 1
    with pytest.raises(CheckpointError, match="No space left on device; the previous file is"):
        save(trainer, 2, needed=True)


def test_a_disk_that_is_full_ends_a_run_only_where_the_checkpoint_is_needed(trainer, largest_file):
    assert save(trainer, 1) is None
    largest_file(1000)
    assert "could not be saved" in save(trainer, 2)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save(trainer, 2, needed=True)
    largest_file(-1)
    assert load_checkpoint(trainer.run_directory.last).progress["step"] == 1


def test_the_checkpoint_before_the_last_is_kept(trainer):
    run = trainer.run_directory
    for step in (1, 2, 3):
        assert save(trainer, step) is None
    found = [load_checkpoint(path).progress["step"] for path in (run.previous, run.last)]
    assert found == [2, 3]
    state = dataclasses.replace(trainer.state, step=4)
    trainer.saver.save(run.best, state, needed=False)
    assert load_checkpoint(run.previous).progress["step"] == 2
