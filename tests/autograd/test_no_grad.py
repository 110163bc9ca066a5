"""no_grad: nested, around functions and generators, per thread."""

import threading

import numpy as np
import pytest

from igcnn import Tensor, no_grad
from igcnn.autograd import is_grad_enabled
from igcnn.errors import AutogradError


def recorded():
    return (Tensor(np.ones(1), requires_grad=True) * 2).requires_grad


def test_with_and_without_brackets():
    with no_grad():
        assert not recorded()
    with no_grad:
        assert not recorded()
    assert no_grad(recorded)() is False
    assert no_grad()(recorded)() is False
    assert recorded()


def test_nested_by_one_object():
    off = no_grad()
    with off:
        with off, no_grad():
            assert not recorded()
        assert not recorded()
    assert recorded()


def test_a_function_that_calls_itself():
    @no_grad()
    def countdown(n):
        assert not recorded()
        return n and countdown(n - 1)

    countdown(3)
    assert recorded()


def test_blocks_may_end_in_any_order():
    first, second = no_grad(), no_grad()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not is_grad_enabled()
    second.__exit__(None, None, None)
    assert is_grad_enabled()


def test_an_exception_ends_it():
    @no_grad
    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert recorded()


def test_a_generator_records_nothing_and_leaves_its_caller_alone():
    closed = []

    @no_grad()
    def steps(n):
        try:
            for i in range(n):
                sent = yield (i, recorded())
                if sent is not None:
                    yield (sent, recorded())
        except ValueError as error:
            yield (str(error), recorded())
        finally:
            closed.append(recorded())
        return "end"

    generator = steps(3)
    assert next(generator) == (0, False)
    assert recorded()
    assert generator.send("sent") == ("sent", False)
    assert next(generator) == (1, False)
    assert generator.throw(ValueError("thrown")) == ("thrown", False)
    with pytest.raises(StopIteration, match="end"):
        next(generator)
    assert list(steps(2)) == [(0, False), (1, False)]
    generator = steps(3)
    next(generator)
    generator.close()
    assert closed == [False, False, False]
    assert recorded()


def test_names_and_arguments_of_the_function_stay():
    @no_grad()
    def scaled(x, *, by=2):
        """Return x·by."""
        return x * by

    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Return x·by.")
    assert scaled(3, by=5) == 15


def test_other_threads_go_on_recording():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(recorded()))
        thread.start()
        thread.join()
        assert not recorded()
    assert seen == [True]


def test_what_it_does_not_decorate():
    async def coroutine():
        pass

    class Thing:
        pass

    for what in (coroutine, Thing, 5):
        with pytest.raises(AutogradError, match="no_grad decorates functions and generators"):
            no_grad(what)
