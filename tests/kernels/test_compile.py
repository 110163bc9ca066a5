"""Every kernel through NVIDIA's compiler for seven architectures: no driver is needed for it."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import igcnn.kernels
from igcnn.kernels.launch import OPTIONS, signatures, source

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy and NVRTC")
pytest.importorskip("nvidia.cuda_nvrtc", reason="needs NVRTC (pip install 'igcnn[test]')")

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TYPES = (("float", "float"), ("double", "double"), ("float", "bfloat16"))
# by threads of a block: two blocks fit into the 65,536 registers of any multiprocessor
REGISTERS = {"128": 255, "256": 128}
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
    """Return what ptxas says of each kernel: (name, registers, bytes spilled)."""
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
        yield name, int(re.search(r"Used (\d+) registers", part)[1]), sum(map(int, spills))


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
    bounds = re.findall(r"__launch_bounds__\((\w+), \d\)\s+(\w+)\(", source(stem))
    ceilings = {name: REGISTERS.get(threads, 200) for threads, name in bounds}
    for defines, kernels in zip(combinations, reports, strict=True):
        assert {name for name, _, _ in kernels} == set(signatures(stem))
        for name, registers, spilled in kernels:
            assert spilled == 0, (name, defines)
            assert registers <= ceilings[name], (name, defines)
