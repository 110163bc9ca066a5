"""no_grad: code in which nothing is recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ..errors import AutogradError
from .function import _state


class NoGrad:
    """Context and decorator in which this thread records nothing and keeps nothing for backward.

        with no_grad():
            y = network(x)

        @no_grad()
        def evaluate(x): ...

    The brackets may be left out. Blocks may be nested; a generator is run without gradients
    between its `yield`s, and its caller is left as it was.

    Raises:
        AutogradError: it decorates a class or an `async` function.
    """

    def __enter__(self) -> None:
        _state.no_grad_blocks = getattr(_state, "no_grad_blocks", 0) + 1

    def __exit__(self, *exception: object) -> None:
        _state.no_grad_blocks -= 1

    def __call__(self, function: Callable[..., Any] | None = None) -> Any:
        """Return a function that runs without gradients; without one, this context itself."""
        if function is None:
            return self
        if not callable(function) or isinstance(function, type) or _is_async(function):
            raise AutogradError(
                "no_grad decorates functions and generators; elsewhere write `with no_grad():` "
                "around code that should not be recorded"
            )

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = function(*args, **kwargs)
            return self._steps(result) if inspect.isgenerator(result) else result

        return call

    def _steps(self, generator: Any) -> Iterator[Any]:
        """Run a generator step by step, passing on what is sent and thrown."""
        step, argument = generator.send, None
        while True:
            try:
                with self:
                    value = step(argument)
            except StopIteration as stop:
                return stop.value
            try:
                step, argument = generator.send, (yield value)
            except GeneratorExit:
                with self:
                    generator.close()
                raise
            except BaseException as error:
                step, argument = generator.throw, error


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


no_grad = NoGrad()
