"""The tape: order, listing, replay, memory, depth, wrong backward functions."""

import weakref

import numpy as np
import pytest

from igcnn import Tensor
from igcnn.autograd import Function, Tape
from igcnn.errors import AutogradError


def test_hundred_thousand_chained_operations():
    x = Tensor(np.ones(2), requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + x
    assert len(Tape.of(y)) == 100_000
    y.backward(np.array([1.0, 2.0]))
    assert x.grad.tolist() == [100_001, 200_002]


def test_a_long_graph_can_be_dropped_without_backward():
    y = Tensor(np.ones(2), requires_grad=True)
    for _ in range(100_000):
        y = y * 1.0
    del y


def test_records_are_listed_in_the_order_of_execution():
    x = Tensor([1.0, 2.0], requires_grad=True, name="x")
    a = x * 2
    b = x + 1
    loss = (b * a).sum()
    tape = Tape.of(loss)
    assert [record.function.name for record in tape] == ["multiply", "add", "multiply", "sum"]
    assert str(tape).splitlines()[0] == "   0  multiply(x, ()) -> (2,)"


def test_replay_computes_again_from_what_the_leaves_hold_now():
    x = Tensor([1.0, 2.0], requires_grad=True)
    loss = (x * x * 3).sum()
    tape = Tape.of(loss)
    x.data = np.array([3.0, 4.0], np.float32)
    assert tape.replay().item() == 75
    assert loss.item() == 75
    loss.backward(keep=True)
    loss.backward()
    assert x.grad.tolist() == [36, 48]
    with pytest.raises(AutogradError, match="backward has already freed this graph"):
        Tape.of(loss).replay()


def test_backward_frees_each_record_as_it_passes():
    alive = []

    class Spy(Function):
        name = "spy"

        def forward(self, x):
            saved = x.copy()
            self.save(saved)
            self.ref = weakref.ref(saved)
            return x * 2

        def backward(self, gy):
            alive.append([spy.ref() is not None for spy in spies])
            return (gy * 2,)

    spies = [Spy() for _ in range(3)]
    y = Tensor(np.ones(4), requires_grad=True)
    for spy in spies:
        y = spy(y)
    y.sum().backward()
    assert alive == [[True, True, True], [True, True, False], [True, False, False]]
    assert [spy.ref() for spy in spies] == [None, None, None]


def test_an_abandoned_graph_is_freed_at_once():
    x = Tensor(np.ones(3), requires_grad=True)
    y = x * x
    inner = weakref.ref(y)
    z = y * y
    del y
    assert inner() is not None
    del z
    assert inner() is None


def test_nothing_is_saved_where_no_gradient_is_wanted():
    class Saves(Function):
        def forward(self, x):
            self.save(x)
            return x

    function = Saves()
    function(Tensor([1.0]))
    assert function.saved_bytes() == 0
    function = Saves()
    function(Tensor([1.0], requires_grad=True))
    assert function.saved_bytes() == 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((), "returned 0 gradients for 1 inputs"),
        ((None,), "returned no gradient for input 0"),
        (
            (np.ones(2),),
            r"returned a gradient of shape \(2,\) and type float64 for input 0 of shape \(3,\)",
        ),
    ],
)
def test_a_backward_that_returns_nonsense_is_named(returned, message):
    class Wrong(Function):
        name = "wrong"

        def forward(self, x):
            return x * 1

        def backward(self, gy):
            return returned

    y = Wrong()(Tensor(np.ones(3), requires_grad=True))
    with pytest.raises(AutogradError, match=f"backward of wrong {message}"):
        y.backward(np.ones(3))


def test_backward_of_a_leaf():
    x = Tensor([1.0, 2.0], requires_grad=True)
    x.backward([5.0, 6.0])
    assert x.grad.tolist() == [5, 6]


def test_how_a_tape_is_shown():
    x = Tensor([1.0, 2.0], requires_grad=True, name="<x>")
    y = ((x * x) + (x * 2)).sum()
    tape = Tape.of(y)
    assert repr(tape) == "Tape(4 records to shape (): 2 multiply, 1 add, 1 sum)"
    page = tape._repr_html_()
    assert page.count("<tr>") == 1 + 4
    assert "&lt;x&gt;, &lt;x&gt;" in page
    assert "<x>" not in page
