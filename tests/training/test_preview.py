"""Estimates of the time of an epoch, by a clock that the engine moves."""

from types import SimpleNamespace

import pytest

from igcnn.training.preview import Preview, preview


def test_an_epoch_is_its_updates_and_a_test():
    assert Preview("tape", 10, 3, update_seconds=2.0, test_seconds=5.0).epoch_seconds == 25.0


class Engine:
    """Takes its time for updates, ten times as long for the first, and 0.25 s for logits."""

    def __init__(self, seconds, updates):
        self.seconds = seconds
        self.available = updates
        self.updates = 0
        self.now = 100.0

    def prepare(self, optimizer, loader):
        pass

    def refresh(self):
        pass

    def batches(self, epoch, start):
        return iter(range(self.available))

    def update(self, batch):
        self.now += self.seconds * (1 if self.updates else 10)
        self.updates += 1

    def collect(self, wait):
        return []

    def logits(self, x):
        self.now += 0.25


@pytest.mark.parametrize(
    ("seconds", "available", "made", "expected"),
    [
        (0.125, 100, 22, 0.125),  # two that are not timed, and twenty that are
        (2.0, 100, 4, 2.0),  # after three seconds it is enough
        (0.5, 2, 2, 0.5),
        (0.5, 1, 1, 5.0),  # there is nothing but the first
    ],
)
def test_the_first_updates_are_not_timed(
    make_trainer, monkeypatch, seconds, available, made, expected
):
    trainer = make_trainer()
    engine = trainer.engine = Engine(seconds, available)
    clock = SimpleNamespace(perf_counter=lambda: engine.now)
    monkeypatch.setattr("igcnn.training.preview.time", clock)
    result = preview(trainer, "slow")
    assert engine.updates == made
    assert result.update_seconds == expected
    assert result.test_seconds == 2 * 0.25  # 60 test images in batches of 32
    assert (result.updates, result.epochs) == (4, 3)
