"""Functions and graphs: used twice, changed in place, cut off, shared by threads."""

import copy
import gc
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

import igcnn
from igcnn import Tensor
from igcnn import functional as F
from igcnn.autograd import Function, Hook, Tape
from igcnn.errors import AutogradError
from igcnn.optim import SGD


def leaf(*numbers):
    return Tensor(np.array(numbers, float), requires_grad=True)


class Square(Function):
    """y = x²; keeps x in two ways."""

    name = "square"

    def forward(self, x):
        self.save(x)
        self.x = x
        return x * x

    def backward(self, gy):
        (x,) = self.saved()
        assert x is self.x
        return (2 * x * gy,)


def test_one_function_object_called_twice():
    square, a, b = Square(), leaf(1.0, 2.0), leaf(10.0, 20.0)
    (square(a) + square(b) + square(square(a))).sum().backward()
    np.testing.assert_array_equal(a.grad, 2 * a.data + 4 * a.data**3)
    np.testing.assert_array_equal(b.grad, 2 * b.data)


def test_a_function_called_again_without_gradients():
    square, a = Square(), leaf(3.0)
    y = square(a)
    square(Tensor(np.array([7.0])))
    y.backward()
    assert a.grad.tolist() == [6]
    square(a).backward()
    assert a.grad.tolist() == [12]


def test_a_backward_that_changes_gy_in_place_is_refused():
    class Twice(Function):
        name = "twice"

        def forward(self, x):
            return 2 * x

        def backward(self, gy):
            gy *= 2
            return (gy,)

    a, b, gradient = leaf(1.0, 1.0), leaf(1.0, 1.0), np.ones(2)
    with pytest.raises(
        AutogradError, match=r"backward of twice changes gy in place.*gx = 2 \* gy"
    ):
        F.add(Twice()(a), Twice()(b)).backward(gradient)
    assert gradient.tolist() == [1, 1]
    assert gradient.flags.writeable


def test_another_value_error_in_backward_is_left_as_it_is():
    class Broken(Square):
        def backward(self, gy):
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        Broken()(leaf(1.0)).backward()


def test_gradients_can_be_changed_in_place_afterwards():
    a, b = leaf(1.0, 1.0), leaf(1.0, 1.0)
    (a + b).sum().backward()
    a.grad *= 0.5
    a.grad[0] = 7
    assert a.grad.tolist() == [7, 0.5]
    assert b.grad.tolist() == [1, 1]


@pytest.mark.parametrize("size", [3, 1000, 16_000])
def test_every_change_of_a_saved_array_of_up_to_16384_elements_is_found(size):
    rng = np.random.default_rng(0)
    for change in ("one element", "order"):
        x = Tensor(rng.standard_normal(size), requires_grad=True)
        y = Square()(x)
        if change == "order":
            x.data[:] = x.data[::-1].copy()
        else:
            x.data[rng.integers(size)] += 1e-15
        with pytest.raises(AutogradError, match="changed in place after forward"):
            y.sum().backward()


def test_labels_that_change_before_backward():
    logits, labels = Tensor(np.zeros((2, 3)), requires_grad=True), np.array([0, 1])
    loss = F.cross_entropy(logits, labels)
    labels[:] = 2
    loss.backward()
    np.testing.assert_allclose(logits.grad, [[-1 / 3, 1 / 6, 1 / 6], [1 / 6, -1 / 3, 1 / 6]])


def test_an_intermediate_tensor_can_be_cut_off():
    x = leaf(1.0, 2.0)
    h = x * 3
    h.requires_grad = False
    (h * x).sum().backward()
    assert x.grad.tolist() == [3, 6]
    assert h.record is None


def test_an_intermediate_tensor_that_is_cut_off_after_use():
    x = leaf(1.0, 2.0)
    h = x * 3
    y = (h * x).sum()
    h.requires_grad = False
    y.backward()
    assert x.grad.tolist() == [3, 6]


def test_a_leaf_that_is_frozen_before_backward_gets_no_gradient():
    x, w = leaf(1.0), leaf(2.0)
    y = x * w
    w.requires_grad = False
    y.backward()
    assert w.grad is None
    assert x.grad.tolist() == [2]


def test_a_leaf_that_was_no_input_with_gradient_gets_none():
    x, w = leaf(1.0), Tensor(np.array([2.0]))
    y = Square()(x) * w
    w.requires_grad = True
    y.backward()
    assert x.grad.tolist() == [4]
    assert w.grad is None


def test_copies_of_what_is_no_leaf_are_refused():
    y = leaf(1.0) * 2
    with pytest.raises(AutogradError, match="detach"):
        y + copy.deepcopy(y)


def test_threads_that_share_a_leaf_add_up():
    w, passes = Tensor(np.zeros(1000), requires_grad=True), 100

    def run():
        for _ in range(passes):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(w.grad, 4 * passes)


def test_hooks_see_the_gradients_that_are_used():
    seen = []

    class Look(Hook):
        def after_backward(self, function, gy, gradients):
            seen.append(
                (function.name, gy.tolist(), [g.tolist() for g in gradients if g is not None])
            )

    x = leaf(1.0, 2.0)
    y = Square()(x)
    with Look():
        y.backward([1.0, 10.0])
    assert seen == [("square", [1, 10], [[2, 40]])]


def test_backward_that_keeps_the_records():
    x = leaf(2.0)
    y = Square()(x)
    y.backward(keep=True)
    assert len(Tape.of(y)) == 1
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(AutogradError, match="call the first backward with keep=True"):
        y.backward()


@pytest.mark.parametrize("depth", [60])
def test_as_many_paths_as_there_are(depth):
    x = leaf(1.0)
    y = x
    for _ in range(depth):
        y = y + y
    y.backward()
    assert x.grad.tolist() == [2.0**depth]


def test_the_page_that_reads_the_engine_aloud_shows_all_of_it():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "engine.md").read_text()
    source = (root / "igcnn" / "autograd" / "function.py").read_text()
    assert len(source.splitlines()) <= 300
    shown = "".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    lines = [[line for line in text.splitlines() if line] for text in (shown, source)]
    assert lines[0] == lines[1]


def train_twice(seed):
    """The weights after two steps of a small network."""
    network = igcnn.build_network("resnet_igc", depth=8, L=4, M=2, seed=seed)
    sgd = SGD(network.named_parameters(), lr=0.05)
    for _ in range(2):
        sgd.zero_grad()
        F.cross_entropy(network(np.ones((2, 3, 8, 8), np.float32)), [0, 1]).backward()
        sgd.step()
    return network.state_dict()


def test_trainings_in_threads_and_after_a_fork_give_the_bits_of_one_after_another():
    expected = {seed: train_twice(seed) for seed in range(3)}
    got = {}
    threads = [
        threading.Thread(target=lambda seed=seed: got.update({seed: train_twice(seed)}))
        for seed in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, state in expected.items():
        assert all(np.array_equal(got[seed][name], array) for name, array in state.items())
    child = os.fork()
    if child == 0:
        state = train_twice(0)
        os._exit(any(not np.array_equal(state[name], a) for name, a in expected[0].items()))
    assert os.waitpid(child, 0)[1] == 0


def test_steps_leave_no_objects_behind():
    network = igcnn.build_network("resnet_igc", depth=8, L=4, M=2)
    sgd = SGD(network.named_parameters(), lr=0.01)
    counts = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(4):
            sgd.zero_grad()
            F.cross_entropy(network(np.zeros((2, 3, 8, 8), np.float32)), [0, 1]).backward()
            sgd.step()
            counts.append(sum(isinstance(o, Tensor | Function) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert len(set(counts[1:])) == 1
