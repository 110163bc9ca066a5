"""A network by a plan on a GPU, or on the emulator: whole updates, without a word from the host.

The images of the data set lie in device memory. One update is gather, augment, forward, loss,
backward, SGD, and writing down the loss: on a GPU one CUDA graph, captured once and replayed.
What changes from update to update is read from device memory: the position in the epoch, which
the last kernel moves on, seed and epoch, and the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import copy_to, free_bytes, on_device, shared_bytes, to_device, to_host
from ..communicator import Communicator
from ..errors import DeviceError, RankError, ShapeError
from ..kernels.augment import Resident
from ..kernels.sgd_update import launch_sgd_update
from ..kernels.softmax_cross_entropy import launch_record_result
from ..layers import Layer
from .arena import Arena
from .device_program import DeviceProgram
from .graph import trace
from .pieces import cut

if TYPE_CHECKING:
    from ..datasets import Loader
    from ..optim import SGD

Array = np.ndarray

SLOTS = 4096  # results that are kept on the device until they are asked for
STATE_WORDS = 5  # position, seed low, seed high, epoch, updates
RESIDENT_SHARE = 0.5  # of the device's memory that images may take


class DevicePlan:
    """Computes updates and logits of a network on a device.

    Parameters, their gradients, the velocity and the running statistics lie each in one array;
    the network's tensors become views of them.

    Args:
        network: gives logits for images; on the device.
        image_shape: (C, H, W).
        batch_size: B, images of an update, and at most so many for logits.
        device: "cuda:i" or "emu".
        precision: of activations in memory, "bf16", else the network's own type.
        communicator: connects the ranks that share each batch; None for one process.

    Raises:
        PlanError: the network contains something that has no place in a plan.
        DeviceError: the device has no room for it.
    """

    def __init__(
        self,
        network: Layer,
        image_shape: tuple[int, int, int],
        batch_size: int,
        device: str,
        precision: str = "fp32",
        communicator: Communicator | None = None,
    ) -> None:
        self.communicator = communicator or Communicator()
        network.to("cpu")
        traced = trace(network, image_shape)
        self.network = network
        self.graph = traced.graph
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.real = self.graph.dtype
        with on_device(device):
            self._lay_out(network, traced.weights, traced.running)
        self._captured: dict[str, Any] = {}
        self._submitted = self._collected = 0
        self._share = 1.0  # of a batch's images, what this rank has
        self._optimizer: SGD | None = None
        self._resident: Resident | None = None

    def __str__(self) -> str:
        name = "the emulator" if self.device == "emu" else self.device
        how = "one launch after another" if self.device == "emu" else "one CUDA graph an update"
        size = self.program.arena.used / 1e6
        return f"plan on {name}: {how}, {self.precision}, {size:,.0f} MB"

    def _lay_out(
        self, network: Layer, tensors: list[Any], running: list[tuple[Array, Array]]
    ) -> None:
        """Move parameters and statistics into arenas, and take the memory of the passes."""
        self.tensors = [tensor for tensor in tensors if tensor.requires_grad]
        arrays = [tensor.data for tensor in self.tensors]
        zeros = [np.zeros_like(array) for array in arrays]
        self.flat, parameters = self._flat(arrays)
        self.flat_gradient, self.gradients = self._flat(zeros)
        self.starts = _starts(arrays)[0]
        self.flat_velocity, self.velocity = self._flat(zeros)
        for tensor, view in zip(self.tensors, parameters, strict=True):
            tensor.data = view
        # constants, such as the weights of a summation, lie by themselves
        weights = [to_device(to_host(tensor.data), self.device) for tensor in tensors]
        gradients: list[Array | None] = [None] * len(tensors)
        for tensor, view, gradient in zip(self.tensors, parameters, self.gradients, strict=True):
            place = tensors.index(tensor)
            weights[place], gradients[place] = view, gradient
        statistics = [array for pair in running for array in pair]
        self.flat_statistics, moved = self._flat(statistics)
        places = {id(array): view for array, view in zip(statistics, moved, strict=True)}
        for _, layer in network.named_layers():
            for name, array in layer._buffers.items():
                moved_array = places.get(id(array))
                if moved_array is None:
                    moved_array = to_device(array, self.device)
                layer.add_buffer(name, moved_array)
                setattr(layer, name, moved_array)
        pairs = [(places[id(m)], places[id(v)]) for m, v in running]
        stored = "uint16" if self.precision == "bf16" else self.real

        def program(arena: Arena) -> DeviceProgram:
            arrays = weights, gradients, pairs
            sizes = self.graph, self.batch_size, arena
            return DeviceProgram(*sizes, *arrays, stored, shared_bytes(self.device))

        needed = program(Arena(self.device)).arena.used
        room = free_bytes(self.device)
        if needed > room:
            fits = int(self.batch_size * room / needed)
            raise DeviceError(
                f"batch size {self.batch_size} needs {needed / 1e6:,.0f} MB on {self.device}, "
                f"which has {room / 1e6:,.0f} MB left; --batch-size {max(1, fits)} fits"
            )
        self.program = program(Arena(self.device, needed))
        copy_to(self.program.gloss, np.ones((), self.real))
        copy_to(self.program.tickets, np.zeros(self.program.tickets.shape, np.uint32))
        self.results = to_device(np.zeros((SLOTS, 2), self.real), self.device)
        self.state = to_device(np.zeros(STATE_WORDS, np.uint32), self.device)
        self.constants = to_device(np.zeros(3, self.real), self.device)
        backward = self.program.backward
        self.pieces = cut(backward, self.gradients, self.starts, self.flat_gradient.size)

    def _flat(self, arrays: list[Array]) -> tuple[Array, list[Array]]:
        """Return one array on the device with the content of all, and views of each in it."""
        starts, size = _starts(arrays)
        content = np.zeros(size, self.real)
        for array, start in zip(arrays, starts, strict=True):
            content[start : start + array.size] = array.ravel()
        flat = to_device(content, self.device)
        views = [
            flat[start : start + array.size].reshape(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]
        return flat, views

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Take over the velocity, and bring the images to the device if they fit."""
        from ..datasets.dataset import AUGMENT_STREAM

        by_tensor = {id(t): v for t, v in zip(self.tensors, self.velocity, strict=True)}
        for i, tensor in enumerate(optimizer.parameters):
            view = by_tensor[id(tensor)]
            copy_to(view, to_host(optimizer.velocity[i]))
            optimizer.velocity[i] = view
        self._optimizer = optimizer
        self._loader = loader
        if self.communicator.size > 1:
            self._share = loader.local_batch_size / loader.batch_size
        self._rates: tuple[float, ...] = ()
        images = getattr(loader.split, "images", None)
        with on_device(self.device):
            if images is not None and images.nbytes < RESIDENT_SHARE * free_bytes(self.device):
                labels = loader.split.labels.astype(np.int32)
                change = loader.augmentation
                self._resident = Resident(
                    to_device(images, self.device),
                    to_device(labels, self.device),
                    to_device(np.zeros(len(labels), np.int32), self.device),
                    self.state,
                    to_device(loader.mean, self.device),
                    to_device(loader.std, self.device),
                    change.pad if change else 0,
                    bool(change and change.mirror),
                    AUGMENT_STREAM,
                )

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
        """Submit one update; nothing is waited for."""
        assert self._optimizer is not None
        optimizer = self._optimizer
        with on_device(self.device):
            rates = float(optimizer.lr), float(optimizer.momentum), float(optimizer.weight_decay)
            if rates != self._rates:
                copy_to(self.constants, np.array(rates, self.real))
                self._rates = rates
            if batch is not None:
                self._bring(*batch)
            if self.communicator.size > 1:
                self._update_together()
            else:
                self._execute("update", self._update)
        self._submitted += 1

    def _update(self) -> None:
        self._forward()
        for call in self.program.backward:
            call()
        self._finish()

    def _update_together(self) -> None:
        """Do an update whose gradients are summed over the ranks, piece by piece.

        Raises:
            RankError: a rank was lost; parameters and statistics are those before the update.
        """
        statistics = self.flat_statistics.copy()
        waits = []
        try:
            self._execute("forward", self._forward)
            for number, piece in enumerate(self.pieces):
                self._execute(f"backward {number}", partial(_call_all, piece.calls))
                waits.append(self._start_mean(self.flat_gradient[piece.start : piece.stop]))
            waits.append(self._start_mean(self.flat_statistics))
            for wait in waits:
                wait()
        except RankError:
            self.flat_statistics[...] = statistics
            raise
        self._execute("finish", self._finish)

    def _start_mean(self, array: Array) -> Callable[[], None]:
        array *= self._share
        return self.communicator.start_sum(array)

    def _forward(self) -> None:
        program = self.program
        begun = self._resident is not None and program.begin(self._resident)
        _call_all(program.after_stem if begun else program.forward)

    def _finish(self) -> None:
        """Update the parameters and write down the results."""
        program = self.program
        assert self._optimizer is not None
        parameters = self.flat, self.flat_gradient, self.flat_velocity
        launch_sgd_update(*parameters, self.constants, self._optimizer.nesterov)
        launch_record_result(program.losses, program.right, self.results, self.state)

    def _bring(self, x: Array, labels: Array) -> None:
        """Copy a batch of the host to the device."""
        copy_to(self.program.x[: len(x)], self._stored(x))
        copy_to(self.program.labels[: len(labels)], labels.astype(np.int32))

    def _stored(self, x: Array) -> Array:
        """Return host activations in the element type that they have on the device."""
        x = np.ascontiguousarray(x)
        if self.precision != "bf16":
            return x.astype(self.real, copy=False)
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return mean loss and right answers of each update since the last call.

        Without `wait` only when the device's list of them is about to be full.
        """
        count = self._submitted - self._collected
        if not wait and count < SLOTS // 2:
            return []
        results = to_host(self.results)
        rows = results[np.arange(self._collected, self._submitted) % SLOTS].astype(np.float64)
        self._collected = self._submitted
        if not self.communicator.broken:
            rows[:, 0] *= self._share
            self.communicator.sum(rows)
        return [(float(loss), int(right)) for loss, right in rows]

    def refresh(self) -> None:
        """Do nothing: a pass reads the parameters as they are."""

    def logits(self, x: Array) -> Array:
        """Return (n, K) for images (n, C, H, W), with batch norm by its running statistics.

        Raises:
            ShapeError: there are more images than the plan was made for.
        """
        n = len(x)
        if n > self.batch_size:
            raise ShapeError(f"the plan is for at most {self.batch_size} images, not {n}")
        with on_device(self.device):
            copy_to(self.program.x[:n], self._stored(x))
            self._execute("logits", self._evaluate)
            logits = to_host(self.program.logits)[:n]
        if self.precision == "bf16":
            return (logits.astype(np.uint32) << 16).view(np.float32)
        return logits.copy()

    def _evaluate(self) -> None:
        for call in self.program.evaluation:
            call()

    def _execute(self, name: str, passes: Any) -> None:
        """Run a pass: at first launch by launch, on a GPU from then on as a captured graph."""
        if self.device == "emu":
            passes()
            return
        import cupy

        if name not in self._captured:
            passes()  # compiles the kernels, which is impossible under capture
            self._captured[name] = None
            return
        if self._captured[name] is None:
            cupy.cuda.get_current_stream().synchronize()
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                passes()
                self._captured[name] = stream.end_capture()
        self._captured[name].launch(cupy.cuda.get_current_stream())

    def close(self) -> None:
        """Bring parameters and statistics back to the host."""
        with on_device(self.device):
            self.network.to("cpu")


def _starts(arrays: list[Array]) -> tuple[list[int], int]:
    """Return where each array begins in one that holds all, and the size of that."""
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += array.size + -array.size % 4  # each begins where a float4 may
    return starts, size


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
