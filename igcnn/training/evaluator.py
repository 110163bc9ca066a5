"""Which weights of a run are evaluated, and on which images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..datasets import Dataset, Images
from ..distributed import Communicator
from ..networks import Network
from .average import WeightAverage
from .engine import Engine
from .evaluate import evaluate
from .metrics import Evaluation

Array = np.ndarray


class Evaluator:
    """Evaluates the network of a run: its weights, their average where there is one, or others.

    Args:
        network: what is trained.
        dataset: its images.
        batch_size: of all ranks together.
        communicator: connects the ranks.
        check: called before every batch; may raise, and the network then has its own weights.

    Attributes:
        average: of the weights; None for none.
        held_out: the images that best.h5 is chosen on: the validation images or, without any,
            the test images.
        on: which these are: "val" or "test".
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        batch_size: int,
        communicator: Communicator,
        check: Callable[[], None],
    ) -> None:
        self.network = network
        self.dataset = dataset
        self.batch_size = batch_size // communicator.size
        self.communicator = communicator
        self.check = check
        self.average: WeightAverage | None = None
        validation = dataset.validation
        self.held_out: Images = dataset.test if validation is None else validation
        self.on = "test" if validation is None else "val"

    def evaluate(
        self, engine: Engine, split: Images, weights: Mapping[str, Array] | None = None
    ) -> Evaluation:
        """Return the accuracy on a split.

        Args:
            engine: computes the network.
            split: some of the images.
            weights: name → array, parameters and running statistics; None for those that the
                network has, or their average.
        """
        with self._in_the_network(weights):
            return evaluate(
                engine,
                split,
                mean=self.dataset.mean,
                std=self.dataset.std,
                batch_size=self.batch_size,
                check=self.check,
                communicator=self.communicator,
            )

    def averages(self) -> dict[str, Array] | None:
        """Return the averages by name, None if there are none."""
        return None if self.average is None else self.average.state_dict()

    @contextlib.contextmanager
    def _in_the_network(self, weights: Mapping[str, Array] | None) -> Iterator[None]:
        """Context in which the network has the weights that are to be evaluated."""
        if weights is None:
            with self.average.applied() if self.average else contextlib.nullcontext():
                yield
            return
        own = self.network.state_dict()
        self.network.load_state_dict(weights)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
