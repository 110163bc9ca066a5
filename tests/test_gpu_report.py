"""benchmarks/gpu_report.py on the stand-in for CuPy, whole and with parts that go wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import gpu_report  # noqa: E402
from limited import KEPT_BYTES, run_limited  # noqa: E402

pytestmark = pytest.mark.xdist_group("processes")  # each has several, and limits of time
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


def start(folder, *arguments):
    """Start the report from this checkout, with nothing installed but what Python finds."""
    command = [sys.executable, "benchmarks/gpu_report.py", "--small"]
    command += [
        "--results",
        str(folder / "results"),
        "--page",
        str(folder / "page.md"),
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "stand_in")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(folder):
    return {
        path.stem: json.loads(path.read_text())
        for path in (folder / "results").glob("*.json")
        if ".found" not in path.name
    }


@needs_compiler
def test_all_parts_that_are_its_own(tmp_path):
    only = [word for name in PARTS for word in ("--only", name)]
    process = start(tmp_path, "--minutes", "5", *only)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    parts = ended(tmp_path)
    assert {name: one["rc"] for name, one in parts.items()} == dict.fromkeys(PARTS, 0), output
    found = {
        name: json.loads((tmp_path / "results" / f"{name}.found.json").read_text())
        for name in PARTS
    }
    assert found["environment"]["gpu"] == "a stand-in for a GPU"
    assert all(one["correct"] for one in found["kernels"]["cases"].values())
    assert found["updates"]["plan again"]["equal bits"]
    assert found["updates"]["cpu"]["difference"] < 1e-5
    entry = found["speed"]["cases"]["small"]["16"]["fp32"]["rivals"]
    assert {"plan", "tape"} <= set(entry["update"]["seconds"])
    of_unit = {"igc_forward", "igc_backward_input", "igc_backward_weight", "combine_sums"}
    for kernels in found["profile"]["versions"].values():
        assert set(kernels) == {*of_unit, "stem", "head"}
    for kernels in found["cuts"]["cuts"].values():
        assert {name: set(times) for name, times in kernels.items()} == {
            name: {"v2", ""} for name in ("forward", "backward_input", "backward_weight")
        }
    assert found["training"]["rc"] == 0
    page = (tmp_path / "page.md").read_text()
    assert "6 of 6 cases match NumPy" in page
    assert "* plan again: bit-identical" in page
    assert "| `igc_forward`, L = 6, M = 2, 8×8 |" in page
    assert len(output[output.index("environment  completed") :].splitlines()) <= 60
    resumed, _ = start(tmp_path, "--minutes", "1", "--resume", *only[:4]).communicate()
    assert "environment: completed before\nkernels: completed before" in resumed


PARTS = ("environment", "kernels", "updates", "speed", "profile", "cuts", "sanitizer", "training")


def script(tmp_path, text):
    path = tmp_path / "part.py"
    path.write_text(text)
    return (sys.executable, str(path))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


CHILDREN = """
import subprocess, sys, time
child = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
for new_session in (False, True):
    subprocess.Popen([sys.executable, "-c", child], start_new_session=new_session)
time.sleep({seconds})
"""


@pytest.mark.parametrize(("seconds", "code"), [(100, None), (1, 0)])
def test_a_part_leaves_no_children_behind(tmp_path, seconds, code):
    command = script(tmp_path, CHILDREN.format(seconds=seconds))
    done = run_limited(command, 3, tmp_path, {})
    assert done["rc"] is code or done["rc"] == code
    assert done["seconds"] < 20
    children = [int(line) for line in done["output"].split()]
    assert len(children) == 2
    assert not any(map(alive, children))


def test_a_part_that_prints_without_end(tmp_path):
    command = script(tmp_path, "n = 0\nwhile True:\n    n += 1\n    print(f'line {n}')")
    done = run_limited(command, 2, tmp_path, {})
    assert done["rc"] is None
    assert 1000 < len(done["output"]) <= KEPT_BYTES
    assert done["output"].splitlines()[-2].startswith("line ")


def test_parts_that_crash_or_hang_do_not_spoil_the_others(tmp_path):
    found = "import os, time; open(os.environ['GPU_REPORT_FOUND'], 'w').write({!r})\n"
    texts = {
        "environment": "import os; os.abort()",
        "kernels": found.format('{"cases": {"relu": {"correct": true}}}') + "time.sleep(100)",
        "sanitizer": found.format('{"missing": "no such program"}'),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        part = gpu_report.Part(name, (str(tmp_path / f"{name}.py"),), 2)
        gpu_report.run_part(part, tmp_path / "results", 2, {}, small=False)
    codes = {name: one["rc"] for name, one in ended(tmp_path).items()}
    assert codes == {"environment": -signal.SIGABRT, "kernels": None, "sanitizer": 0}
    page = gpu_report.page(tmp_path / "results")
    assert "exit code -6" in page
    assert "stopped at its time limit" in page
    assert "1 of 1 cases match NumPy" in page
    assert "not run: no such program" in page


@needs_compiler
def test_a_run_that_is_cut_leaves_what_it_has(tmp_path):
    process = start(tmp_path, "--only", "environment", "--only", "speed")
    page = tmp_path / "page.md"
    while not page.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert "a stand-in for a GPU" in page.read_text()


def test_a_minute_is_a_minute(tmp_path):
    process = start(tmp_path, "--minutes", "0.2", "--only", "environment", "--only", "kernels")
    output, _ = process.communicate()
    assert "no time left" in output


def test_wheels_that_are_missing_come_along(tmp_path):
    import zipfile

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "lacking-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("lacking.py", "here = True")
        archive.writestr("../outside.py", "")
    folder = gpu_report.unpacked(wheels, tmp_path / "folder" / "in")
    assert (Path(folder) / "lacking.py").exists()
    assert not (tmp_path / "folder" / "outside.py").exists()
    (wheels / "lacking-1.0-cp312-cp312-manylinux_x86_64.whl").write_bytes(b"")
    with pytest.raises(SystemExit, match="not pure Python"):
        gpu_report.unpacked(wheels, tmp_path / "folder" / "in")


LOADED = """
import numpy as np, cupy
given = []
made = cupy.RawModule
cupy.RawModule = lambda **how: given.append(how) or made(**how)
from igcnn.kernels.relu import relu_forward
print(relu_forward(cupy.asarray(np.array([-1, 2], np.float32))).get().tolist())
print([("path" in how, how.get("path", "").endswith(".sm_90.cubin")) for how in given])
"""


@needs_compiler
def test_cubins_are_made_without_a_gpu_and_loaded_where_their_source_is_the_same(tmp_path):
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy and NVRTC")
    pytest.importorskip("nvidia.cuda_nvrtc", reason="needs NVRTC (pip install 'igcnn[test]')")
    folder = tmp_path / "cubins"
    command = [sys.executable, "benchmarks/cubins.py", "--stem", "relu", "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert made.returncode == 0, made.stderr
    architectures = {path.name.split(".")[1] for path in folder.iterdir()}
    assert architectures == {"sm_80", "sm_90", "sm_100"}
    for path in folder.iterdir():  # whole: what its header says of an ELF file's tables is there
        cubin = path.read_bytes()
        for place, size in ((0x20, 0x36), (0x28, 0x3A)):
            begin = int.from_bytes(cubin[place : place + 8], "little")
            each, count = (int.from_bytes(cubin[i : i + 2], "little") for i in (size, size + 2))
            assert begin + each * count <= len(cubin)

    def loaded():
        paths = os.pathsep.join([str(ROOT / "tests" / "stand_in"), str(ROOT)])
        variables = os.environ | {"PYTHONPATH": paths, "IGCNN_CUBINS": str(folder)}
        command = [sys.executable, "-c", LOADED]
        done = subprocess.run(command, cwd=ROOT, env=variables, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert loaded() == ["[0.0, 2.0]", "[(True, True)]"]
    for path in folder.iterdir():  # as of another source
        path.rename(path.with_name(path.name.replace("relu-", "relu-0")))
    assert loaded() == ["[0.0, 2.0]", "[(False, False)]"]
