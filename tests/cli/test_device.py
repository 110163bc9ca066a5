"""`--device` on the command line."""

import json
import os
import shutil
import sys
import types

import numpy as np
import pytest

from igcnn import backend
from igcnn.backend import gpu_count
from igcnn.training import load_checkpoint

from .conftest import TINY

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
DEVICES = [
    pytest.param("emu", marks=needs_compiler),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
SMALL = (*TINY, "--batch-size", "16", "--log-interval", "1", "--progress", "none")


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", [(), ("--eager",)])
def test_training_on_a_device_is_training_on_the_cpu(igcnn, tmp_path, mode, device):
    for name in ("cpu", device):
        # the first update of a plan is launched, the second captured as a graph, which is replayed
        command = (*SMALL, "--max-steps", "4", "--device", name, "--out", name, *mode)
        code, out, err = igcnn(*command)
        assert code == 0, err
    there = {"emu": "the emulator", "cuda": "cuda:0"}[device]
    assert (" (--eager)" if mode else f"plan on {there}") in out
    cpu, other = rows(tmp_path / "cpu"), rows(tmp_path / device)
    np.testing.assert_allclose([r["loss"] for r in other], [r["loss"] for r in cpu], rtol=1e-5)
    assert [r["top1"] for r in other] == [r["top1"] for r in cpu]


@needs_compiler
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp64", 1e-13)])
def test_three_updates_of_the_papers_network_on_the_emulator_are_those_of_the_tape(
    igcnn, tmp_path, precision, bound
):
    # in float32 a ReLU whose input is 1e-6 may fall on the other side: one of these does
    net = ("train", "--net", "resnet_igc", "--L", "24", "--M", "2", "--depth", "8")
    for device, mode in (("emu", ()), ("cpu", ("--eager",))):
        command = (*net, "--max-steps", "3", "--precision", precision, "--progress", "none")
        code, _, err = igcnn(*command, "--device", device, "--out", device, *mode)
        assert code == 0, err
    emu, cpu = (
        np.concatenate([array.ravel() for array in checkpoint.parameters.values()])
        for checkpoint in (
            load_checkpoint(tmp_path / device / "checkpoints" / "last.h5")
            for device in ("emu", "cpu")
        )
    )
    assert cpu.dtype == {"fp32": np.float32, "fp64": np.float64}[precision]
    assert np.linalg.norm(emu - cpu) <= bound * np.linalg.norm(cpu)
    if precision == "fp64":
        np.testing.assert_allclose(emu, cpu, rtol=0, atol=bound)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_stopped_on_a_device_goes_on_there_to_equal_bits_and_on_the_cpu(
    igcnn, tmp_path, device
):
    assert igcnn(*SMALL, "--max-steps", "4", "--device", device, "--out", "whole")[0] == 0
    assert igcnn(*SMALL, "--max-steps", "2", "--device", device, "--out", "cut")[0] == 0
    shutil.copytree("cut", "moved")
    assert igcnn("train", "--resume", "cut", "--max-steps", "4")[0] == 0
    assert igcnn("train", "--resume", "moved", "--max-steps", "4", "--device", "cpu")[0] == 0
    whole, cut, moved = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.h5")
        for name in ("whole", "cut", "moved")
    )
    for name, array in whole.state.items():
        assert array.tobytes() == cut.state[name].tobytes()
        np.testing.assert_allclose(moved.state[name], array, atol=1e-5)
    for name, array in whole.velocity.items():
        assert array.tobytes() == cut.velocity[name].tobytes()


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_is_evaluated_on_a_device(igcnn, device):
    assert igcnn(*SMALL, "--max-steps", "1", "--device", "cpu", "--out", "run")[0] == 0
    results = []
    for name in ("cpu", device):
        code, out, err = igcnn(
            "eval", "run/checkpoints/last.h5", "--device", name, "--json", "--batch-size", "60"
        )
        assert code == 0, err
        results.append(json.loads(out))
    assert results[0]["top1"] == results[1]["top1"]
    assert abs(results[0]["loss"] - results[1]["loss"]) < 1e-5


def test_a_device_that_is_not_there_is_named(refused, monkeypatch):
    assert "unknown device 'gpu'" in refused(2, *SMALL, "--device", "gpu")
    line = refused(4, *SMALL, "--device", "cuda:77")
    assert "device cuda:77 is not available" in line
    assert "use --device cpu" in line
    assert "bf16 needs a plan on a GPU" in refused(
        2, *SMALL, "--device", "cpu", "--precision", "bf16"
    )


def test_without_a_compiler_the_emulator_names_it(start, tmp_path):
    process = start(*SMALL, "--device", "emu", "--out", "run", PATH=str(tmp_path))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "apt install g++" in err
    assert "Traceback" not in err


class FakeRuntime:
    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, reason):
        self.reason = reason

    def getDeviceCount(self):
        raise self.CUDARuntimeError(self.reason)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (None, "CuPy is not installed (pip install 'igcnn[cuda12]')"),
        (
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient",
            "driver is missing or too old for this CuPy",
        ),
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "CUDA finds no GPU"),
    ],
)
def test_each_reason_for_no_gpu_has_its_line(refused, monkeypatch, runtime, message):
    cupy = None
    if runtime:
        fake = types.SimpleNamespace(runtime=FakeRuntime(runtime))
        cupy = types.SimpleNamespace(cuda=fake)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    gpu_count.cache_clear()
    try:
        line = refused(4, *SMALL, "--device", "cuda")
    finally:
        gpu_count.cache_clear()
    assert message in line
    assert "use --device cpu" in line


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    """Make a computer with an NVIDIA GPU and no CuPy: what its driver shows, under a folder."""

    def make(driver, card="NVIDIA H100 80GB HBM3", visible=True):
        folder = tmp_path / "root" / "proc/driver/nvidia"
        (folder / "gpus/0000:01:00.0").mkdir(parents=True)
        (folder / "gpus/0000:01:00.0/information").write_text(
            f"Model: \t\t {card}\nIRQ:   \t\t 99\nBus Type: \t PCIe\n"
        )
        (folder / "version").write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Fri Jan 5\n"
            "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
        )
        (tmp_path / "root/dev").mkdir()
        if visible:
            (tmp_path / "root/dev/nvidiactl").touch()

    monkeypatch.setattr(backend, "ROOT", tmp_path / "root")
    monkeypatch.setitem(sys.modules, "cupy", None)
    caches = gpu_count, backend._warn_of_unused_gpu
    for function in caches:
        function.cache_clear()
    yield make
    for function in caches:
        function.cache_clear()


@pytest.mark.parametrize(
    ("driver", "extra"), [("535.104.05", "cuda12"), ("580.65.06", "cuda13"), ("610.2", "cuda13")]
)
def test_auto_says_once_that_a_gpu_is_not_used(igcnn, nvidia, caplog, driver, extra):
    nvidia(driver)
    assert igcnn(*SMALL, "--max-steps", "1", "--out", "run")[0] == 0
    assert igcnn("eval", "run", "--device", "auto")[0] == 0
    assert caplog.messages == [
        "igcnn: NVIDIA H100 80GB HBM3 is not used: CuPy is not installed (pip install "
        f"'igcnn[{extra}]'); computing on the CPU"
    ]


def test_nothing_is_said_where_the_cpu_is_meant(nvidia, monkeypatch, caplog):
    nvidia("580.65.06")
    assert backend.resolve_device("cpu") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert backend.resolve_device("auto") == "cpu"
    assert caplog.messages == []


def test_nothing_is_said_in_a_container_without_the_gpu(nvidia, caplog):
    nvidia("580.65.06", visible=False)
    assert backend.resolve_device("auto") == "cpu"
    assert caplog.messages == []


def test_doctor_sees_the_card(igcnn, nvidia):
    nvidia("580.65.06", "NVIDIA GeForce RTX 4090")
    _, out, _ = igcnn("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert found["NVIDIA GPU"]["what"] == "NVIDIA GeForce RTX 4090, driver 580.65.06"
    assert found["CuPy"]["cure"] == "pip install 'igcnn[cuda13]'"


def test_nvidia_smi_is_asked_where_proc_does_not_tell(igcnn, nvidia, monkeypatch, tmp_path):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'NVIDIA RTX A2000, Laptop, 552.22'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    gpus = backend.nvidia_gpus()
    assert gpus == [backend.NvidiaGPU("NVIDIA RTX A2000, Laptop", "552.22")]
    program.write_text("#!/bin/sh\nexit 9\n")  # the program without the driver
    assert backend.nvidia_gpus() == []


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_are_checked_on_a_device(igcnn, device):
    small = ("--net", "resnet_igc", "--depth", "8", "--L", "2", "--M", "2")
    code, out, err = igcnn("gradcheck", *small, "--device", device, "--elements", "1", "--json")
    assert code == 0, err
    errors = [layer["worst_error"] for layer in json.loads(out)["layers"]]
    assert len(errors) > 20
    assert max(errors) < 1e-6
