"""A network by a plan, on any device: whole updates and logits, as lists of launches.

The images of the data set lie in the device's memory. One update is gather, augment, forward,
loss, backward, SGD, and writing down the loss, all in one list of launches: a CPU executes it in
one call on its threads, a GPU as one CUDA graph. What changes from update to update is read from
memory: the position in the epoch, which the last kernel moves on, seed and epoch, and the
learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..backend import copy_to, free_bytes, on_device, shared_bytes, to_device, to_host
from ..distributed import Communicator
from ..errors import ConfigError, DeviceError, PlanError, RankError, ShapeError
from ..kernels.augment import Resident
from ..kernels.capture import Call, Pass
from ..kernels.compiled import unavailable
from ..kernels.sgd_update import launch_sgd_update
from ..kernels.softmax_cross_entropy import launch_record_result
from ..layers import Layer
from .cpu_program import CpuProgram
from .gpu_program import GpuProgram
from .parameters import Parameters
from .program import Arena, Setup
from .trace import TracedGraph, trace

if TYPE_CHECKING:
    from ..datasets import Loader
    from ..optim import SGD

Array = np.ndarray

SLOTS = 4096  # results that are kept on the device until they are asked for
STATE_WORDS = 5  # position, seed low, seed high, epoch, updates
MAX_DATASET_FRACTION = 0.5  # of the device's memory


class Plan:
    """Computes updates and logits of a network.

    The network's parameters and running statistics become views of the plan's.

    Args:
        network: gives logits for images.
        image_shape: (C, H, W).
        batch_size: B, images of an update, and at most so many for logits.
        device: "cpu", "emu" or "cuda:i".
        threads: of the CPU; results have the same bits for every number.
        precision: of activations in a GPU's memory, "bf16", else the network's own type.
        training: whether updates are wanted; logits need less memory.
        label_smoothing: ε of the loss in training.
        communicator: connects the ranks that share each batch; None for one process.

    Attributes:
        graph: the network.
        program: the launches.
        parameters: trained parameters, their gradients, statistics.
        passes: what was launched so far, by name: update, refresh, logits.

    Raises:
        PlanError: the network contains something that plans do not support, or there is no
            compiler for the CPU's kernels.
        DeviceError: the device has no room for it.
    """

    def __init__(
        self,
        network: Layer,
        image_shape: tuple[int, int, int],
        batch_size: int,
        device: str = "cpu",
        *,
        threads: int = 1,
        precision: str = "fp32",
        training: bool = True,
        label_smoothing: float = 0.0,
        communicator: Communicator | None = None,
    ) -> None:
        if device == "cpu" and unavailable():
            raise PlanError(unavailable())
        self.communicator = communicator or Communicator()
        network.to("cpu")
        traced = trace(network, image_shape)
        self.network = network
        self.graph = traced.graph
        self.device = device
        self.threads = threads
        self.precision = precision
        self.batch_size = batch_size
        self.training = training
        self.label_smoothing = label_smoothing
        self.passes: dict[str, Pass] = {}
        with on_device(device):
            self._lay_out(traced)
        self._submitted = self._collected = 0
        self._share = 1.0  # of a batch's images, what this rank has
        self._optimizer: SGD | None = None
        self._rates: tuple[float, ...] = ()  # those in `rates`
        self._resident: Resident | None = None

    def __str__(self) -> str:
        size = f"{self.program.arena.used / 1e6:,.0f} MB"
        if self.device == "cpu":
            return f"compiled plan, {self.threads} thread{'s' * (self.threads > 1)}, {size}"
        if self.device == "emu":
            return f"plan on the emulator: one launch after another, {self.precision}, {size}"
        return f"plan on {self.device}: one CUDA graph per update, {self.precision}, {size}"

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _lay_out(self, traced: TracedGraph) -> None:
        """Move parameters and statistics to the device, and take the memory of the passes."""
        self.parameters = Parameters(self.network, traced.weights, traced.running, self.device)

        def program(arena: Arena) -> CpuProgram | GpuProgram:
            own = self.parameters
            gradients = own.weight_gradients, own.flat_gradient
            arrays = own.weights, *gradients, own.running
            flags = self.training, self.label_smoothing
            setup = Setup(self.graph, self.batch_size, arena, *arrays, *flags)
            if self.device == "cpu":
                return CpuProgram(setup)
            stored = "uint16" if self.precision == "bf16" else self.graph.dtype
            return GpuProgram(setup, stored, shared_bytes(self.device))

        needed = program(Arena(self.device)).arena.used
        room = free_bytes(self.device)
        if needed > room:
            fits = int(self.batch_size * room / needed)
            raise DeviceError(
                f"batch size {self.batch_size} needs {needed / 1e6:,.0f} MB on {self.device}, "
                f"which has {room / 1e6:,.0f} MB left; --batch-size {max(1, fits)} fits"
            )
        self.program = program(Arena(self.device, needed))
        for array in self.program.zeros:
            copy_to(array, np.zeros(array.shape, array.dtype))
        real = self.graph.dtype
        self.results = to_device(np.zeros((SLOTS, 2), real), self.device)
        self.state = to_device(np.zeros(STATE_WORDS, np.uint32), self.device)
        self.rates = to_device(np.zeros(3, real), self.device)

    # -- updates

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Take over the velocity, and bring the images to the device if they fit.

        Parameters that the optimizer does not have are frozen: their gradients are computed, but
        neither they nor a velocity of theirs change.

        Raises:
            ConfigError: the optimizer has parameters that the plan has no gradient of.
        """
        from ..datasets.dataset import AUGMENT_STREAM

        own = {id(tensor) for tensor in self.parameters.tensors}
        for name, tensor in zip(optimizer.names, optimizer.parameters, strict=True):
            if id(tensor) not in own:
                raise ConfigError(
                    "a plan updates parameters that the loss depends on and that require a "
                    f"gradient, which {name} does not; leave it out of the optimizer, or use the "
                    "tape (--eager)"
                )
        self.parameters.take_over()
        self.parameters.take_velocity(optimizer.parameters, optimizer.velocity)
        self._optimizer = optimizer
        self._loader = loader
        if self.communicator.size > 1:
            self._share = loader.local_batch_size / loader.batch_size
        images = getattr(loader.split, "images", None)
        with on_device(self.device):
            room = MAX_DATASET_FRACTION * free_bytes(self.device)
            if images is not None and images.nbytes < room:
                labels = loader.split.labels.astype(np.int32)
                data = np.ascontiguousarray(images), labels, np.zeros(len(labels), np.int32)
                arrays = [to_device(a, self.device) for a in (*data, loader.mean, loader.std)]
                images, labels, order, mean, std = arrays
                change = loader.augmentation
                pad, mirror = (change.pad, bool(change.mirror)) if change else (0, False)
                fixed = self.state, mean, std, pad, mirror, AUGMENT_STREAM
                self._resident = Resident(images, labels, order, *fixed)
        self._lay_out_updates()

    def _lay_out_updates(self) -> None:
        """Make the passes of an update: one, or for several ranks one a gradient bucket."""
        program = self.program
        assert self._optimizer is not None
        forward = program.forward if self._resident is None else program.begin(self._resident)
        own = self.parameters
        outcome = program.losses, program.correct, self.results, self.state
        record: Call = partial(launch_record_result, *outcome)
        step: list[Call] = [
            partial(launch_sgd_update, *arrays, self.rates, self._optimizer.nesterov)
            for arrays in own.trained(self._optimizer.parameters)
        ]
        self._nesterov = self._optimizer.nesterov
        if self.communicator.size == 1:
            self.passes["update"] = self._pass([*forward, *program.backward, *step, record])
            return
        self.buckets = own.buckets(program.backward)
        self.passes["forward"] = self._pass([*forward, record])
        self._backward = [self._pass(bucket.calls) for bucket in self.buckets]
        self.passes["step"] = self._pass(step)

    def _pass(self, calls: list[Call]) -> Pass:
        return Pass(calls, self.device, self.threads)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Array, Array] | None]:
        """Yield what update needs for each batch of an epoch: nothing if the images are here."""
        if self._resident is None:
            yield from self._loader.epoch(epoch, start)
            return
        seed = self._loader.seed
        words = start * self.batch_size, seed & 0xFFFFFFFF, seed >> 32, epoch, self._submitted
        with on_device(self.device):
            # one part of a batch after another; what is beyond the last image begins anew
            order = self._loader.parts(epoch).ravel()[: self._resident.order.size]
            copy_to(self._resident.order[: order.size], order.astype(np.int32))
            copy_to(self.state, np.array(words, np.uint32))
        for _ in range(start, len(self._loader)):
            yield None

    def update(self, batch: tuple[Array, Array] | None) -> None:
        """Submit one update; a GPU is not waited for."""
        assert self._optimizer is not None
        optimizer = self._optimizer
        if optimizer.nesterov != self._nesterov:
            raise ConfigError("a plan cannot change nesterov; set it before the first update")
        with on_device(self.device):
            self.parameters.take_over()
            rates = float(optimizer.lr), float(optimizer.momentum), float(optimizer.weight_decay)
            if rates != self._rates:
                copy_to(self.rates, np.array(rates, self.graph.dtype))
                self._rates = rates
            if batch is not None:
                x, labels = batch
                self.program.load(x)
                copy_to(self.program.labels[: len(labels)], labels.astype(np.int32))
            if self.communicator.size > 1:
                self._update_together()
            else:
                self.passes["update"]()
        self._submitted += 1

    def _update_together(self) -> None:
        """Do an update whose gradients are summed over the ranks, bucket by bucket.

        Raises:
            RankError: a rank was lost; parameters and statistics are those before the update.
        """
        statistics = self.parameters.flat_statistics.copy()
        waits = []
        try:
            self.passes["forward"]()
            for bucket, backward in zip(self.buckets, self._backward, strict=True):
                backward()
                waits.append(self.communicator.start_mean(bucket.gradients, self._share))
            own = self.parameters.flat_statistics
            waits.append(self.communicator.start_mean(own, self._share))
            slot = self._submitted % SLOTS
            result = self.results[slot : slot + 1]
            result[:, 0] *= self._share
            waits.append(self.communicator.start_sum(result))
            for wait in waits:
                wait()
        except RankError:
            self.parameters.flat_statistics[...] = statistics
            raise
        self.passes["step"]()

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return mean loss and correct answers of each update since the last call.

        A GPU tells them without `wait` only when its list of them is about to be full.
        """
        count = self._submitted - self._collected
        if not wait and self.device != "cpu" and count < SLOTS // 2:
            return []
        results = to_host(self.results)
        rows = results[np.arange(self._collected, self._submitted) % SLOTS].astype(np.float64)
        self._collected = self._submitted
        return [(float(loss), int(correct)) for loss, correct in rows]

    def state_arrays(self) -> list[Array]:
        """Return the arrays that hold all parameters and running statistics."""
        return [self.parameters.flat, self.parameters.flat_statistics]

    # -- evaluation

    def refresh(self) -> None:
        """Let the next logits be those of the present parameters and statistics."""
        with on_device(self.device):
            self.parameters.take_over()
            self._execute("refresh", self.program.refresh)

    def logits(self, x: Array) -> Array:
        """Return (n, K) for images (n, C, H, W), as of the last `refresh`.

        Raises:
            ShapeError: there are more images than the plan was made for.
        """
        if len(x) > self.batch_size:
            raise ShapeError(f"plan: {len(x)} images exceed the batch size {self.batch_size}")
        with on_device(self.device):
            self.program.load(x)
            self._execute("logits", self.program.evaluation)
            return self.program.read_logits(len(x))

    def _execute(self, name: str, calls: list[Call]) -> None:
        if name not in self.passes:
            self.passes[name] = self._pass(calls)
        self.passes[name]()

    def close(self) -> None:
        """Bring parameters and statistics back to the host."""
        with on_device(self.device):
            self.network.to("cpu")
