"""Every kernel through NVIDIA's compiler for seven architectures: no driver is needed for it."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import igcnn.kernels
from igcnn.kernels.interleaved_group_convolution import Unit
from igcnn.kernels.launch import OPTIONS, signatures, source

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy and NVRTC")
pytest.importorskip("nvidia.cuda_nvrtc", reason="needs NVRTC (pip install 'igcnn[test]')")

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TYPES = (("float", "float"), ("double", "double"), ("float", "bfloat16"))
# by threads of a block: so that two blocks, or three of the fused forward, or one of the others,
# fit into the 65,536 registers of any multiprocessor
REGISTERS = {
    "128": 255,
    "256": 128,
    "FORWARD_THREADS": 170,
    "INPUT_THREADS": 200,
    "WEIGHT_THREADS": 255,
}
STEMS = sorted(path.stem for path in Path(igcnn.kernels.__file__).parent.glob("*.cu"))


def variants(stem):
    """Yield the sets of defines that the source names: each choice, or each `variant:`."""
    whole = re.findall(r"^// variant: (.*)$", source(stem), re.MULTILINE)
    if whole:
        yield from (tuple(line.split()) for line in whole)
        return
    line = re.search(r"^// variants: (.*)$", source(stem), re.MULTILINE)
    options = [part.split("=") for part in line[1].split()] if line else []
    choices = [[f"{name}={value}" for value in values.split(",")] for name, values in options]
    yield from itertools.product(*choices)


def report(stem, architecture, defines):
    """Return what ptxas says of each kernel: (name, registers, bytes spilled, bytes shared)."""
    program = nvrtc.createProgram(source(stem), f"{stem}.cu", [], [])
    options = [f"-arch=sm_{architecture}", *OPTIONS, "--ptxas-options=-v"]
    options += [f"-D{define}" for define in defines]
    try:
        nvrtc.compileProgram(program, tuple(options))
        log = nvrtc.getProgramLog(program)
        assert len(nvrtc.getCUBIN(program)) > 1000
    finally:
        nvrtc.destroyProgram(program)
    for part in re.split(r"Compiling entry function", log)[1:]:
        name = re.match(r" '(\w+)'", part)[1]
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", part)
        shared = re.search(r"(\d+) bytes smem", part)
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        yield name, registers, sum(map(int, spills)), int(shared[1]) if shared else 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stem", STEMS)
def test_every_kernel_compiles_without_spills(stem, architecture):
    combinations = [
        (f"REAL={real}", f"STORED={stored}", *variant)
        for real, stored in TYPES
        if real == "float" or "// real: float" not in source(stem)
        for variant in variants(stem)
    ]
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(lambda defines: list(report(stem, architecture, defines)), combinations)
        )
    bounds = re.findall(r"__launch_bounds__\((\w+), \w+\)\s+(\w+)\(", source(stem))
    ceilings = {name: REGISTERS[threads] for threads, name in bounds}
    for defines, kernels in zip(combinations, reports, strict=True):
        assert {name for name, *_ in kernels} == set(signatures(stem))
        for name, registers, spilled, _ in kernels:
            assert spilled == 0, (name, defines)
            ceiling = 255 if "STORED=bfloat16" in defines else ceilings[name]
            assert registers <= ceiling, (name, defines)


BYTES_PER_SECOND = 4.3e12  # copy bandwidth of an H200
FLOPS_PER_SECOND = 0.55 * 67e12  # of its float32 units, as far as kernels reach it


def fused_table():
    """The lines of the table in the header of the fused kernels, for 64 images on sm_90."""
    stem = "interleaved_group_convolution"
    for variant in variants(stem):
        sizes = {name: int(value) for name, value in (part.split("=") for part in variant)}
        unit = Unit(**sizes)
        reports = report(stem, 90, ("REAL=float", "STORED=float", *variant))
        found = {name: (registers, shared) for name, registers, _, shared in reports}
        values = 64 * unit.L * unit.M * unit.H * unit.W
        products = values * (9 * unit.M + unit.L)
        for kernel, passes, flops, dynamic in (
            ("igc_forward_v1", 2, 2 * products, 0),
            ("igc_backward_input_v1", 3, 2 * products, 0),
            ("igc_backward_weight_v1", 3, 4 * products, unit.weight_bytes),
        ):
            registers, shared = found[kernel]
            size = 4 * values * passes
            limits = size / BYTES_PER_SECOND * 1e6, flops / FLOPS_PER_SECOND * 1e6
            cells = (
                f"{kernel:22}",
                f"{unit.M}",
                f"{registers:9}",
                f"{(shared + dynamic) / 1024:9.1f}",
                f"{size / 1e6:4.1f}",
                f"{flops / 1e9:5.2f}",
                f"{limits[0]:9.1f}",
                f"{limits[1]:13.1f}",
            )
            yield "// | " + " | ".join(cells) + " |"


def test_the_table_of_the_fused_kernels_is_true():
    if nvrtc.getVersion() != (12, 9):
        pytest.skip("the registers in the table are those of NVRTC 12.9")
    text = (Path(igcnn.kernels.__file__).parent / "interleaved_group_convolution.cu").read_text()
    for line in fused_table():
        assert line in text


@pytest.mark.parametrize("stem", STEMS)
def test_the_table_of_versions_names_the_kernels_that_are_there(stem):
    text = source(stem)
    named = set(re.findall(r"^// \| (\w+_v\d+) ", text, re.MULTILINE))
    assert named == {name for name in signatures(stem) if re.search(r"_v\d+$", name)}
