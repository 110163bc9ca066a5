"""The launcher of the compiled kernels, and the threads that execute them."""

import os
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from igcnn import compiler
from igcnn.errors import DeviceError, KernelError
from igcnn.kernels import compiled
from igcnn.kernels.compiled import launch, recording, unavailable

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

SOURCE = """
#include <string.h>
#include <time.h>
#include <unistd.h>
typedef REAL real;
struct V { real v[LANES]; };
#define KERNEL(name, Arguments) \\
    static void name##_job(const Arguments &, int, V *); \\
    extern "C" void name(const Arguments *a, int job, V *s) { name##_job(*a, job, s); } \\
    static void name##_job(const Arguments &a, int job, V *scratch)

struct Logistic {
    const V *x;     // [jobs] of V
    V *y;           // [jobs] of V
    real rate;
};
KERNEL(logistic, Logistic) {
    memcpy(scratch, a.x + job, sizeof(V));
    for (int i = 0; i < LANES; i++) {
        a.y[job].v[i] = a.rate * scratch[0].v[i] * (1 - scratch[0].v[i]);
        scratch[1].v[i] = job;  // the sanitizer would see it, if threads had the same scratch
    }
}

// Needs what another job of the launch before has written.
struct Blend { const V *x; V *y; int n; };
KERNEL(blend, Blend) {
    const V &next = a.x[(job + 1) % a.n];
    for (int i = 0; i < LANES; i++) a.y[job].v[i] = (a.x[job].v[i] + next.v[i]) / 2;
}

// Needs scratch for a row of x; a field may be called like an argument of the launcher.
struct Reverse { const V *x; V *y; int jobs; };
extern "C" long reverse_scratch(const Reverse *a) { return a->jobs; }
KERNEL(reverse, Reverse) {
    for (int k = 0; k < a.jobs; k++) scratch[k] = a.x[k];
    a.y[job] = scratch[a.jobs - 1 - job];
}

struct Wait { double seconds; };
KERNEL(wait, Wait) { usleep((int)(1e6 * a.seconds)); }

// Whether all jobs of two launches are in the machine at once; each gives up after a while.
struct Meet { int *met; int number; };
KERNEL(meet, Meet) {
    __atomic_add_fetch(a.met, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 1000 && __atomic_load_n(a.met, __ATOMIC_SEQ_CST) < a.number; i++)
        usleep(1000);
    if (__atomic_load_n(a.met, __ATOMIC_SEQ_CST) >= a.number) a.met[1 + job] = 1;
}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The path of a module with small kernels."""
    path = tmp_path_factory.mktemp("kernels") / "small.cpp"
    path.write_text(SOURCE)
    return str(path.with_suffix(""))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, in a process that has compiled nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled._library.cache_clear()
    yield tmp_path / "cache" / "igcnn" / "compiled"
    compiled._library.cache_clear()


def vectors(n, dtype="float32", lanes=16):
    size = n * lanes * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size].view(dtype).reshape(n, lanes)


def chain(small, jobs, rounds=20, dtype="float32", lanes=16):
    """A recording in which each launch needs everything from the one before, and its result."""
    x, y = vectors(jobs, dtype, lanes), vectors(jobs, dtype, lanes)
    x[...] = np.random.default_rng(0).random(x.shape)
    kind = {"lanes": lanes, "dtype": dtype}
    with recording() as r:
        for _ in range(rounds):
            # chaotic: a value from the wrong round changes everything
            launch(small, "logistic", jobs, x=x, y=y, rate=3.9, scratch=2, **kind)
            launch(small, "blend", jobs, x=y, y=x, n=jobs, **kind)
            launch(small, "logistic", jobs, x=x, y=y, rate=3.8, scratch=2, **kind)
            launch(small, "blend", 1, x=y, y=x, n=jobs, **kind)
    return r, x, y


@pytest.mark.parametrize(
    ("dtype", "lanes"), [("float32", 16), ("float64", 8), ("float32", 4), ("float64", 4)]
)
def test_a_launch_is_executed_at_once(small, dtype, lanes):
    x, y = vectors(5, dtype, lanes), vectors(5, dtype, lanes)
    x[...] = np.arange(x.size).reshape(x.shape)
    launch(small, "logistic", 5, lanes=lanes, dtype=dtype, scratch=2, x=x, y=y, rate=4)
    assert (y == 4 * x * (1 - x)).all()


def test_a_recording_is_executed_when_it_is_told_to(small):
    x, y = vectors(5), vectors(5)
    with recording() as r:
        launch(small, "logistic", 5, lanes=16, dtype="float32", scratch=2, x=x, y=y, rate=4)
    assert len(r) == 1
    assert (y == 0).all()
    for value in (2, 3):
        x[...] = value
        r.run(2)
        assert (y == 4 * value * (1 - value)).all()
    with recording() as empty:
        launch(small, "logistic", 0, lanes=16, dtype="float32", x=x, y=y, rate=4)
    assert len(empty) == 0
    empty.run(2)
    with pytest.raises(DeviceError, match="threads must be at least 1, not 0"):
        r.run(0)


def test_a_kernel_may_say_how_much_scratch_it_needs(small):
    x, y = vectors(5000), vectors(5000)
    x[...] = np.arange(x.size).reshape(x.shape)
    with recording() as r:
        launch(small, "reverse", 5000, lanes=16, dtype="float32", x=x, y=y, jobs=5000)
    compiled._pool = compiled._pool[:0]
    r.run(3)
    assert (y == x[::-1]).all()
    assert compiled._pool.nbytes >= 3 * x.nbytes
    assert compiled._pool.ctypes.data % 64 == 0


def test_a_recording_keeps_its_arrays(small):
    y = vectors(50_000)
    with recording() as r:
        x = vectors(50_000)
        x[...] = 3
        launch(small, "logistic", 50_000, lanes=16, dtype="float32", scratch=2, x=x, y=y, rate=4)
    del x
    again = [vectors(50_000) + 7 for _ in range(3)]
    r.run(2)
    assert (y == -24).all()
    assert len(again) == 3


@pytest.mark.parametrize("jobs", [1, 3, 8, 61])
def test_results_have_the_same_bits_for_every_number_of_threads(small, jobs):
    expected = None
    for threads in (1, 2, 4, 7, 2, 1):
        r, x, y = chain(small, jobs)
        for _ in range(20):
            r.run(threads)
        actual = x.tobytes() + y.tobytes()
        expected = expected or actual
        assert actual == expected


def test_the_next_launch_waits_unless_it_is_told_not_to(small):
    def met(wait):
        flags = np.zeros(3, np.int32)
        with recording() as r:
            launch(small, "meet", 1, lanes=16, dtype="float32", wait=wait, met=flags, number=2)
            launch(small, "wait", 0, lanes=16, dtype="float32", seconds=0)
            launch(small, "meet", 1, lanes=16, dtype="float32", met=flags, number=2)
        r.run(2)
        return flags[1]

    assert met(wait=False) == 1
    # the first one gave up; the flag is the second one's
    begin = time.perf_counter()
    met(wait=True)
    assert time.perf_counter() - begin > 0.9


def test_jobs_run_at_the_same_time(small):
    flags = np.zeros(5, np.int32)
    with recording() as r:
        launch(small, "meet", 4, lanes=16, dtype="float32", met=flags, number=4)
    r.run(4)
    assert flags.tolist() == [4, 1, 1, 1, 1]


def test_times_are_those_of_the_launches(small):
    with recording() as r:
        launch(small, "wait", 2, lanes=16, dtype="float32", seconds=0.02, wait=False)
        launch(small, "wait", 2, lanes=16, dtype="float32", seconds=0.05)
    for threads, factor in ((1, 2), (2, 1)):
        (first, a), (second, b) = r.seconds(threads)
        assert first == second == "wait"
        assert 0.019 * factor < a < 0.2
        assert 0.049 * factor < b < 0.5


def test_the_interpreter_goes_on_during_a_run(small):
    with recording() as r:
        launch(small, "wait", 1, lanes=16, dtype="float32", seconds=0.3)
    r.run(1)
    thread = threading.Thread(target=r.run, args=(1,))
    begin = time.perf_counter()
    thread.start()
    sum(range(1000))
    assert time.perf_counter() - begin < 0.25
    thread.join()


def test_python_threads_take_turns(small):
    expected, _, _ = chain(small, 16)
    expected.run(1)
    results = [chain(small, 16) for _ in range(3)]

    def work(k):
        for _ in range(50):
            results[k][0].run(k + 1)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0][2].tobytes() == results[1][2].tobytes() == results[2][2].tobytes()


FORK = """
import os, sys, threading
sys.path.insert(0, {tests!r})
from test_compiled import chain
r, x, y = chain({small!r}, 8)
r.run(3)
first = y.tobytes()
busy = threading.Thread(target=lambda: [chain({small!r}, 8)[0].run(3) for _ in range(300)])
busy.start()
children = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        r, x, y = chain({small!r}, 8)
        r.run(3)
        os._exit(0 if y.tobytes() == first else 1)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
busy.join()
r, x, y = chain({small!r}, 8)
r.run(3)
print(codes, y.tobytes() == first)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_its_own_threads(small):
    code = FORK.format(tests=os.path.dirname(__file__), small=small)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 0, 0, 0, 0] True\n", done.stderr


def test_a_second_start_compiles_nothing(small, cache, monkeypatch):
    r, _, _ = chain(small, 4)
    r.run(2)
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert sorted(path.name.split("-")[0] for path in files) == ["small", "threads"]
    compiled._library.cache_clear()
    monkeypatch.setattr(compiler.Compiler, "run", None)
    again, _, _ = chain(small, 4)
    again.run(2)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == files


def test_what_a_kernel_is_compiled_for_has_its_own_library(small, cache):
    for lanes, dtype in ((16, "float32"), (8, "float32"), (8, "float64")):
        launch(small, "wait", 1, lanes=lanes, dtype=dtype, seconds=0)
    assert len(list(cache.glob("small-*"))) == 3


def test_a_source_that_is_refused_is_told_in_one_line(tmp_path):
    path = tmp_path / "wrong.cpp"
    path.write_text(SOURCE.replace("const V &next", "const W &next"))
    with pytest.raises(DeviceError, match=r"^.+ [\d.]+ failed: wrong.cpp:\d+:.*error.*W.*\Z"):
        launch(str(path.with_suffix("")), "wait", 1, lanes=16, dtype="float32", seconds=0)


def test_a_struct_with_another_layout_is_refused(tmp_path):
    path = tmp_path / "packed.cpp"
    path.write_text(SOURCE.replace("struct Blend {", "#pragma pack(1)\nstruct Blend { int odd;"))
    with pytest.raises(DeviceError, match=r"packed.cpp:.*layout"):
        launch(str(path.with_suffix("")), "wait", 1, lanes=16, dtype="float32", seconds=0)


def test_a_launch_is_checked_when_it_is_noted(small):
    with recording() as r, pytest.raises(KernelError, match=r"^wait: missing seconds; Wait has"):
        launch(small, "wait", 1, lanes=16, dtype="float32")
    assert len(r) == 0


def test_kernels_can_be_switched_off(small, monkeypatch):
    monkeypatch.setenv("IGCNN_COMPILED", "0")
    assert unavailable() == "IGCNN_COMPILED=0"
    compiled._library.cache_clear()
    with pytest.raises(DeviceError, match="not available: IGCNN_COMPILED=0"):
        launch(small, "wait", 1, lanes=16, dtype="float32", seconds=0)
    monkeypatch.setenv("IGCNN_COMPILED", "1")
    assert unavailable() == ""
    monkeypatch.setenv("CXX", "absent")
    assert unavailable().startswith("CXX=absent is not")


def test_a_library_that_cannot_be_loaded_is_told_in_one_line(small, cache):
    path = compiled.build(compiled.Module(small, 16, "float32"))
    path.write_bytes(b"")
    with pytest.raises(DeviceError, match=r"^cannot load .*; delete .*compiled or set"):
        launch(small, "wait", 1, lanes=16, dtype="float32", seconds=0)


SANITIZED = """
import sys
sys.path.insert(0, {tests!r})
from test_compiled import chain
for threads in (1, 2, 4, 3):
    r, x, y = chain({small!r}, 6)
    r.run(threads)
print(len(r))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="needs the sanitizers of g++")
@pytest.mark.parametrize(("sanitize", "library"), [("thread", "tsan"), ("undefined", "ubsan")])
def test_sanitizers_find_nothing(small, sanitize, library):
    command = ["g++", f"-print-file-name=lib{library}.so"]
    try:
        path = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        pytest.skip("needs g++")
    if not os.path.isabs(path):
        pytest.skip(f"needs lib{library}")
    environment = {
        **os.environ,
        "CXX": "g++",
        "LD_PRELOAD": path,
        "IGCNN_SANITIZE": sanitize,
        "TSAN_OPTIONS": "report_bugs=1 exitcode=66",
    }
    code = SANITIZED.format(tests=os.path.dirname(__file__), small=small)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space is not the sanitizer's")
    assert (done.stdout, done.returncode) == ("80\n", 0), done.stderr
