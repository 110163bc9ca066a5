import numpy as np
import pytest

from igcnn.errors import ConfigError
from igcnn.optim import StepSchedule


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
