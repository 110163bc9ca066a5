import numpy as np
import pytest

from igcnn.errors import ConfigError
from igcnn.optim import CosineSchedule, ExponentialSchedule, Schedule, StepSchedule


def test_a_boundary_is_the_last_update_at_the_old_rate():
    schedule = StepSchedule(0.1, (3, 5), 0.1)
    rates = [schedule.lr_at(update) for update in range(1, 8)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_without_boundaries_the_rate_is_constant():
    schedule = StepSchedule(0.1)
    assert {schedule.lr_at(update) for update in (1, 10**6)} == {0.1}


@pytest.mark.parametrize(
    "arguments",
    [
        *((lr,) for lr in (-0.1, float("nan"), float("inf"), "0.1", None, True)),
        *((0.1, boundaries) for boundaries in ((5, 3), (3, 3), (-1,), "35", 3, (None,), (True,))),
        *((0.1, (3,), factor) for factor in (-1, "0.1", float("nan"))),
    ],
)
def test_what_is_no_schedule_is_refused(arguments):
    with pytest.raises(ConfigError, match="schedule"):
        StepSchedule(*arguments)


def test_numbers_and_boundaries_of_every_kind():
    schedule = StepSchedule(np.float32(0.5), np.array([3, 5]), factor=1)
    assert schedule == StepSchedule(0.5, (3, 5), 1.0)
    assert schedule.lr_at(6) == 0.5


def rates(schedule, count):
    return [schedule.lr_at(update) for update in range(1, count + 1)]


def test_warm_up_rises_in_a_straight_line_to_the_rate():
    assert rates(Schedule(0.4, warmup=4), 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    stepped = StepSchedule(0.4, (5,), 0.5, warmup=2)
    assert rates(stepped, 6) == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4, 0.2])


def test_cosine_at_the_points_that_need_no_cosine():
    """After 0, 1/3, 1/2 and 2/3 of the way the cosine is 1, 1/2, 0 and −1/2."""
    schedule = CosineSchedule(1.0, total=15, lr_min=0.2, warmup=3)
    rate = dict(enumerate(rates(schedule, 17), 1))
    assert rate[3] == rate[4] == 1
    assert [rate[u] for u in (8, 10, 12)] == pytest.approx([0.8, 0.6, 0.4])
    assert rate[15] > rate[16] == rate[17] == 0.2
    assert rates(schedule, 15)[2:] == sorted(rates(schedule, 15)[2:], reverse=True)


def test_exponential_falls_after_each_epoch():
    schedule = ExponentialSchedule(0.8, epoch=2, factor=0.5, lr_min=0.15, warmup=1)
    expected = [0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.15, 0.15]
    assert rates(schedule, 9) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(0.1, warmup=-1), "warmup"),
        (lambda: CosineSchedule(0.1, total=10, lr_min=0.2), "lr_min must be at most lr = 0.1"),
        (lambda: CosineSchedule(0.1, total=10, warmup=10), "fewer warmup_epochs"),
        (lambda: CosineSchedule(0.1, total=float("nan")), "total"),
        (lambda: ExponentialSchedule(0.1, epoch=0, factor=0.5), "at least 1 update"),
        (lambda: ExponentialSchedule(0.1, epoch=1, factor=-1), "factor"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
