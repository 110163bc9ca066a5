"""What is for a GPU alone, run on the stand-in for CuPy: tests/stand_in/cupy."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


def python(*arguments):
    """Run Python where `import cupy` gives the stand-in; return what subprocess.run does."""
    paths = os.pathsep.join([str(ROOT / "tests" / "stand_in"), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("chosen", "least"),
    [
        # all kernels run on the emulator in test_cuda.py: few of them are enough here
        pytest.param("not test_cuda or relu or head or stem", 50),
        pytest.param("", 120, marks=pytest.mark.long),
    ],
)
def test_the_tests_for_a_gpu_pass_on_it(chosen, least):
    # those of exchange/ need no GPU, but packages, without which they are skipped
    options = "-p", "no:cacheprovider", "--ignore=tests/exchange"
    done = python("-m", "pytest", "-m", "gpu", "-k", chosen, *options)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > least
    assert "skipped" not in done.stdout


NAMES = """
import cupy, json
own = lambda value: [name for name in vars(value) if not name.startswith("_")]
modules = {"cupy": own(cupy), "cupy.cuda": own(cupy.cuda)}
kinds = {f"cupy.{name}": own(getattr(cupy, name)) for name in ("ndarray", "RawModule")}
kinds |= {f"cupy.cuda.{name}": own(getattr(cupy.cuda, name)) for name in (
    "Device", "Event", "Stream", "Graph", "runtime", "memory", "nvrtc")}
print(json.dumps(modules | kinds))
"""
# of its own: where it counts, what it is made of, and how many devices it has
OWN = {
    "cupy": {"np", "ctypes", "math", "os", "re", "sys", "time", "types", "importlib"}
    | {
        "EmulatedArray",
        "NDArrayOperatorsMixin",
        "cubin_name",
        "emulated",
        "variants",
        "HERE",
        "DEVICES",
        "MEMORY",
        "SHARED",
        "STATIC_SHARED",
    },
    "cupy.RawModule": {"stem", "defines"},
    "cupy.cuda.Stream": {"recorded"},
}


def test_it_has_no_name_that_cupy_lacks():
    pytest.importorskip("cupy", reason="needs CuPy")
    done = python("-c", NAMES)
    assert done.returncode == 0, done.stderr
    for place, names in json.loads(done.stdout).items():
        module, _, last = place.rpartition(".")
        owner = importlib.import_module("cupy")
        if module:
            owner = getattr(importlib.import_module(module), last)
        missing = {n for n in names if not hasattr(owner, n)} - OWN.get(place, set())
        assert not missing, (place, missing)


FORBIDDEN = """
import numpy as np, cupy
from igcnn.kernels.relu import relu_forward
x = cupy.asarray(np.ones(3, np.float32))
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    stream.begin_capture()
    {line}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cupy.empty(3)", "an allocation while a stream is captured"),
        ("x.get()", "a copy to the host while a stream is captured"),
        ("x.set(np.zeros(3, np.float32))", "a copy from the host while a stream is captured"),
        ("x + x", "CuPy's arithmetic while a stream is captured"),
        ("stream.end_capture(); x.set(np.zeros(3))", "float64 array cannot be set to float32"),
        ("stream.end_capture(); x.set(np.zeros((1, 3), 'f4'))", "Shape mismatch"),
        ("stream.end_capture(); np.asarray(x)", "Implicit conversion"),
        ("stream.end_capture(); x + np.ones(3)", "Unsupported type"),
        (
            "stream.end_capture(); cupy.cuda.Device(1).__enter__(); x + x",
            "of device 0 on device 1",
        ),
    ],
)
def test_it_refuses_what_a_gpu_would(line, message):
    done = python("-c", FORBIDDEN.format(line=line))
    assert done.returncode == 1
    assert message in done.stderr


REPLAYED = """
import numpy as np, cupy
from igcnn.kernels.launch import launch
x, y = (cupy.asarray(np.array([-1, 2, n], np.float32)) for n in (3, 9))
run = lambda: launch("relu", "relu_forward", 1, 32, x=x, y=y, n=3)
run()
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    stream.begin_capture()
    run()
    graph = stream.end_capture()
x.set(np.array([5, -6, 7], np.float32))
print(y.get().tolist())
graph.launch(cupy.cuda.get_current_stream())
print(y.get().tolist())
"""


def test_a_graph_does_nothing_before_it_is_launched():
    done = python("-c", REPLAYED)
    assert done.stdout.splitlines() == ["[0.0, 2.0, 3.0]", "[5.0, 0.0, 7.0]"], done.stderr
