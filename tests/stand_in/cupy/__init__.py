"""A stand-in for CuPy on a computer without a GPU: its rules, with the emulator behind it.

    PYTHONPATH=tests/stand_in python -m pytest -m gpu tests/plan/test_device.py

It has those parts of CuPy that igcnn uses, and nothing else, so that a call CuPy does not know
fails here too; tests/test_stand_in.py holds every name against CuPy's own. Kernels run on the
emulator when they are launched. What a GPU forbids is an error: to mix arrays of the host and of
a device, to launch on another device than the arrays', and, while a stream is captured, to
allocate, to copy, or to compute anything but a kernel. A captured graph has the arguments that
its kernels had at capture, and does nothing before it is launched.
"""

import ctypes
import importlib.machinery
import math
import os
import re
import sys
import time
import types

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from igcnn.backend import EmulatedArray
from igcnn.kernels.launch import HERE, cubin_name, emulated, variants

__version__ = "14.0.0"  # of what it stands for
DEVICES = 2
MEMORY = 4 << 30  # bytes of each
SHARED = 227 << 10
STATIC_SHARED = 48 << 10

_streams = []  # the current one is the last
_devices = [0]
_capturing = []
_by_ptr = {}


class _NotAllowed(RuntimeError):
    """What CuPy or the driver would refuse."""


def _forbid_while_capturing(what):
    if _capturing:
        raise _NotAllowed(f"{what} while a stream is captured")


class ndarray(NDArrayOperatorsMixin):
    """An array of a device; content of the host's memory goes in and out by set and get alone."""

    __array_priority__ = 100

    def __init__(self, array, device=None):
        self._array = array
        self._device = _devices[-1] if device is None else device

    dtype = property(lambda self: self._array.dtype)
    shape = property(lambda self: self._array.shape)
    size = property(lambda self: self._array.size)
    ndim = property(lambda self: self._array.ndim)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    flags = property(lambda self: self._array.flags)
    device = property(lambda self: cuda.Device(self._device))
    data = property(lambda self: types.SimpleNamespace(ptr=self._array.ctypes.data))
    T = property(lambda self: self._view(self._array.T))
    __cuda_array_interface__ = property(lambda self: {"version": 3})

    def _view(self, array):
        return ndarray(array, self._device)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__":
            raise _NotAllowed(f"np.{ufunc.__name__}.{method} of an array of a device")
        if "out" in options:
            (out,) = options.pop("out")
            out._array[...] = _computed(ufunc, *inputs, **options)._array
            return out
        return _computed(lambda *arrays: getattr(ufunc, method)(*arrays, **options), *inputs)

    def __array_function__(self, function, _, arguments, options):
        if function is not np.ones_like:
            raise _NotAllowed(f"np.{function.__name__} of an array of a device")
        return _computed(function, *arguments, **options)

    def get(self, stream=None, order="C", out=None, blocking=True):
        _forbid_while_capturing("a copy to the host")
        return np.array(self._array.view(np.ndarray), order=order)

    def set(self, arr, stream=None):
        _forbid_while_capturing("a copy from the host")
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (arr.flags.c_contiguous and self._array.flags.c_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        self._array[...] = arr

    def item(self):
        return self.get().item()

    def copy(self, order="C"):
        _forbid_while_capturing("an allocation")
        return ndarray(self._array.copy(order))

    def view(self, dtype=None):
        return self._view(self._array.view(dtype))

    def reshape(self, *shape, order="C", copy=None):
        return self._view(self._array.reshape(*shape, order=order))

    def astype(self, dtype, order="K", copy=True):
        return _computed(lambda array: array.astype(dtype), self)

    def sum(self, axis=None, keepdims=False):
        return _computed(lambda a: a.sum(axis, keepdims=keepdims), self)

    def min(self):
        return _computed(np.min, self)

    def max(self, axis=None, keepdims=False):
        return _computed(lambda a: a.max(axis, keepdims=keepdims), self)

    def swapaxes(self, axis1, axis2):
        return self._view(self._array.swapaxes(axis1, axis2))

    def __int__(self):
        return int(self.item())

    def __float__(self):
        return float(self.item())

    def transpose(self, *axes):
        return self._view(self._array.transpose(*axes))

    def ravel(self, order="C"):
        return self._view(self._array.ravel(order))

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        return self._view(np.asarray(self._array[index]).view(EmulatedArray))

    def __setitem__(self, index, value):
        _forbid_while_capturing("an assignment")
        self._array[index] = _own(value)

    def __imul__(self, other):
        _forbid_while_capturing("CuPy's arithmetic")
        self._array *= _own(other)
        return self

    def __iadd__(self, other):
        _forbid_while_capturing("CuPy's arithmetic")
        self._array += _own(other)
        return self


def _own(value):
    """Return what an operand holds; arrays of the host are none."""
    if isinstance(value, ndarray):
        if value._device != _devices[-1]:
            raise _NotAllowed(f"array of device {value._device} on device {_devices[-1]}")
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _computed(function, *inputs, **options):
    _forbid_while_capturing("CuPy's arithmetic")
    result = np.asarray(function(*map(_own, inputs), **options))
    return ndarray(result.view(EmulatedArray))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    _forbid_while_capturing("an allocation")
    if isinstance(a, ndarray):
        return a
    return ndarray(np.array(a, dtype=dtype, order=order or "C").view(EmulatedArray))


def empty(shape, dtype=float, order="C"):
    _forbid_while_capturing("an allocation")
    array = np.empty(shape, dtype, order)
    if array.nbytes > MEMORY:
        raise cuda.memory.OutOfMemoryError(f"Out of memory allocating {array.nbytes:,} bytes")
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return ndarray(array.view(EmulatedArray))


class RawModule:
    """CUDA C, whose first line tells which of igcnn's it is, or a cubin, whose name does."""

    def __init__(self, *, code=None, path=None, options=()):
        if path is not None:
            self.stem, self.defines = _of_cubin(path)
            return
        assert all(isinstance(option, str) for option in options)
        assert options[0].startswith("-std=")
        name = re.match(r'#line 1 "(\w+\.cu)"', code)[1]
        self.stem = str(next(HERE.rglob(name)).relative_to(HERE).with_suffix(""))
        self.defines = tuple(option.removeprefix("-D") for option in options[1:])

    def get_function(self, name):
        here = self.stem, self.defines
        if here not in _loaded:
            _forbid_while_capturing("compiling")
            _loaded.add(here)
        return _Kernel(emulated(*here), name)


def _of_cubin(path):
    """Return what a file made by benchmarks/cubins.py was compiled from."""
    with open(path, "rb") as file:
        assert file.read(4) == b"\x7fELF", f"{path} is no cubin"
    name = os.path.basename(path)
    stem = name.partition("-")[0]
    for real, stored in (("float", "float"), ("double", "double"), ("float", "bfloat16")):
        for variant in variants(stem):
            defines = (f"REAL={real}", f"STORED={stored}", *variant)
            if cubin_name(stem, defines, cuda.Device().compute_capability) == name:
                return stem, defines
    raise AssertionError(f"{name} is of another source")


_loaded = set()


class _Kernel:
    """A kernel that runs when it is called, or when the graph does that it was captured into."""

    def __init__(self, library, name):
        self._library, self._name = library, name
        self.max_dynamic_shared_size_bytes = STATIC_SHARED

    def __call__(self, grid, block, args, *, shared_mem=0):
        if shared_mem > min(SHARED, self.max_dynamic_shared_size_bytes):
            raise _NotAllowed(f"{self._name}: {shared_mem} bytes of shared memory")
        if not 0 < math.prod(block) <= 1024 or min(grid) < 1 or max(grid[1:]) > 65535:
            raise _NotAllowed(f"{self._name}: grid {grid}, block {block}")
        for one in args:
            if not isinstance(one, ndarray | np.generic):
                raise TypeError(f"Unsupported type {type(one)}")
            _own(one)
        values = [a._array if isinstance(a, ndarray) else a for a in args]

        def run():
            self._library.launch(self._name, grid, block, values, shared_bytes=shared_mem)

        stream = cuda.get_current_stream()
        if stream.recorded is None:
            run()
        else:
            stream.recorded.append(run)


class _Pool:
    def free_all_blocks(self):
        pass


def get_default_memory_pool():
    return _Pool()


class _Device:
    """One of the devices."""

    def __init__(self, device=None):
        self.id = _devices[-1] if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise _Runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    compute_capability = "90"
    attributes = property(lambda self: {"MaxSharedMemoryPerBlockOptin": SHARED})

    def __enter__(self):
        _devices.append(self.id)
        return self

    def __exit__(self, *_):
        _devices.pop()

    def synchronize(self):
        _forbid_while_capturing("waiting")


class _Graph:
    """What a stream recorded."""

    def __init__(self, recorded):
        self._recorded = recorded

    def launch(self, stream=None):
        for run in self._recorded:
            run()


class _Stream:
    """A queue of which everything is done at once."""

    recorded = None

    def __init__(self, null=False, non_blocking=False):
        self.ptr = 0 if null else id(self)
        self.begun = []
        self._device = _devices[-1]
        _by_ptr[self.ptr] = self

    def __enter__(self):
        if self._device != _devices[-1]:
            raise RuntimeError("The device that the stream is created on does not match")
        _streams.append(self)
        return self

    def __exit__(self, *_):
        _streams.pop()

    def synchronize(self):
        _forbid_while_capturing("waiting")

    def record(self, event=None):
        event = event or _Event()
        event.record(self)
        return event

    def wait_event(self, event):
        assert event.done, "everything but a sum is done at once"

    def begin_capture(self, mode=None):
        if not self.ptr:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.recorded = []
        _capturing.append(self)

    def end_capture(self):
        recorded, self.recorded = self.recorded, None
        _capturing.remove(self)
        return _Graph(recorded)


class _Event:
    """A place in a queue: behind the sums over the ranks that were begun there before."""

    def record(self, stream=None):
        self._begun = list((stream or cuda.get_current_stream()).begun)
        self._seconds = time.perf_counter()

    def synchronize(self):
        _forbid_while_capturing("waiting")

    done = property(lambda self: all(is_done() for is_done in self._begun))


class _NcclError(RuntimeError):
    """What NCCL refuses."""


class _NcclCommunicator:
    """Sums over the ranks by MPI, on a stream, beside what the others do."""

    def __init__(self, ndev, commId, rank):
        from mpi4py import MPI

        if not isinstance(commId, bytes) or len(commId) != 128:
            raise TypeError("commId must be the 128 bytes of get_unique_id")
        self._mpi = MPI
        self._world = MPI.COMM_WORLD.Dup()
        if len(set(self._world.allgather(_devices[-1]))) < ndev:
            raise _NcclError("NCCL_ERROR_INVALID_USAGE: two ranks on one GPU")

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        assert sendbuf == recvbuf
        memory = (datatype * count).from_address(recvbuf)
        array = np.ctypeslib.as_array(memory)
        request = self._world.Iallreduce(self._mpi.IN_PLACE, array)
        _by_ptr[stream].begun.append(_once_done(request))

    def abort(self):
        for stream in _by_ptr.values():
            stream.begun.clear()


def _once_done(request):
    """Return what tells whether a request is done; that stays so."""
    state = [False]

    def is_done():
        state[0] = state[0] or request.Test()
        return state[0]

    return is_done


class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    getDeviceCount = staticmethod(lambda: DEVICES)
    memGetInfo = staticmethod(lambda: (MEMORY, MEMORY))
    driverGetVersion = staticmethod(lambda: 12090)
    runtimeGetVersion = staticmethod(lambda: 12090)

    @staticmethod
    def getDeviceProperties(device):
        return {"name": b"a stand-in for a GPU", "totalGlobalMem": MEMORY}


def _module(name, **content):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    vars(module).update(content)
    sys.modules[name] = module
    return module


cuda = _module(
    "cupy.cuda",
    Device=_Device,
    Event=_Event,
    get_elapsed_time=lambda start, end: 1e3 * (end._seconds - start._seconds),
    Graph=_Graph,
    Stream=_Stream,
    set_allocator=lambda allocator=None: None,
    get_current_stream=lambda device_id=-1: _streams[-1] if _streams else _null,
    runtime=_Runtime,
    memory=types.SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {})),
    nvrtc=types.SimpleNamespace(getVersion=lambda: (12, 9)),
    is_available=lambda: True,
)
_module(
    "cupy.cuda.nccl",
    available=True,
    NcclCommunicator=_NcclCommunicator,
    NcclError=_NcclError,
    NCCL_FLOAT32=ctypes.c_float,
    NCCL_FLOAT64=ctypes.c_double,
    NCCL_SUM=0,
    get_unique_id=lambda: bytes(range(128)),
    get_version=lambda: 22000,
)
_module("cupyx", scatter_add=lambda a, slices, value: np.add.at(a._array, slices, _own(value)))
_null = _Stream(null=True)
