"""The exponential moving average of the weights, which is evaluated and kept in their place.

After update t the parameters θ_t and the running statistics of batch norm enter the average:

    θ̄_t = d_t·θ̄_{t−1} + (1 − d_t)·θ_t      d_t = min(d, (1 + t)/(10 + t))      θ̄_0 = θ_0

B. T. Polyak and A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992, in
the exponential form that C. Szegedy et al. (CVPR 2016, section 8) evaluate. d_t lets a short run
forget its initial weights, as `num_updates` of TensorFlow's ExponentialMovingAverage does.
The statistics are averaged like the weights that they belong to: no pass over the training images
is needed. Training itself continues with the raw weights and is not changed by a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from ..backend import device_of, on_device
from ..layers import Layer
from .engine import Engine

Array = np.ndarray


class WeightAverage:
    """Follows the weights of a network that an engine trains.

    Args:
        network: what is trained.
        engine: where its weights are.
        decay: d, from 0 to below 1.
        state: name → array: the average so far; None to begin with the present weights.
    """

    def __init__(
        self,
        network: Layer,
        engine: Engine,
        decay: float,
        state: Mapping[str, Array] | None = None,
    ) -> None:
        self.network = network
        self.engine = engine
        self.decay = decay
        raw = network.state_dict()
        network.load_state_dict(raw if state is None else state)
        with self._on_device():
            self._averages = [array.copy() for array in engine.state_arrays()]
        network.load_state_dict(raw)

    def update(self, t: int) -> None:
        """Let the weights after update t, the first is 1, enter the average."""
        share = 1 - min(self.decay, (1 + t) / (10 + t))
        with self._on_device():
            for average, array in zip(self._averages, self.engine.state_arrays(), strict=True):
                change = array - average
                change *= share
                average += change

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the network has the averaged weights; then it has its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the averages in host memory, by the network's names."""
        with self.applied():
            return self.network.state_dict()

    def _exchange(self) -> None:
        with self._on_device():
            for average, array in zip(self._averages, self.engine.state_arrays(), strict=True):
                own = array.copy()
                array[...] = average
                average[...] = own

    def _on_device(self) -> AbstractContextManager[None]:
        return on_device(device_of(self.engine.state_arrays()[0]))
