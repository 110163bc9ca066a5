"""Hooks: timer, record, NaN."""

import numpy as np
import pytest

from igcnn import Tensor
from igcnn.autograd import Function, NaNHook, RecordHook, TimerHook
from igcnn.autograd.hooks import active_hooks
from igcnn.errors import AutogradError


def step():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    (x * x * 2).sum().backward()


def test_timer_counts_every_call():
    with TimerHook() as timer:
        step()
        step()
    multiply = timer.timings["multiply"]
    assert (multiply.forward_calls, multiply.backward_calls) == (4, 4)
    assert multiply.forward_seconds > 0
    assert multiply.backward_seconds > 0
    assert "multiply" in str(timer)
    assert active_hooks() == ()


def test_record_lists_calls_in_order_with_shapes_and_bytes():
    with RecordHook() as record:
        step()
    listed = [(call.direction, call.name) for call in record.calls]
    forward = ["multiply", "multiply", "sum"]
    assert listed == [("forward", n) for n in forward] + [("backward", n) for n in forward[::-1]]
    first = record.calls[0]
    assert first.input_shapes == ((2, 3), (2, 3))
    assert first.output_shape == (2, 3)
    assert first.saved_bytes == 2 * 6 * 8


def test_hooks_nest_and_leave_in_order():
    with RecordHook() as outer, RecordHook() as inner:
        assert active_hooks() == (outer, inner)
        step()
    step()
    assert outer.calls == inner.calls


def test_nan_hook_names_the_operation_and_the_element():
    x = Tensor(np.array([[1.0, 2.0], [0.0, 3.0]]), requires_grad=True)
    with NaNHook(), np.errstate(divide="ignore"):
        x * 2
        with pytest.raises(AutogradError, match=r"forward of divide: inf at \(1, 0\)"):
            1 / x


def test_nan_hook_sees_gradients():
    class Bad(Function):
        name = "bad"

        def forward(self, x):
            return x * 1

        def backward(self, gy):
            return (gy * np.nan,)

    y = Bad()(Tensor(np.ones(2), requires_grad=True))
    with NaNHook(), pytest.raises(AutogradError, match="backward of bad, input 0: nan"):
        y.backward(np.ones(2))
