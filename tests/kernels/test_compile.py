"""Every kernel through NVIDIA's compiler, without a driver; in the long form for seven GPUs."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import igcnn.kernels
from igcnn.kernels.head import head_bytes
from igcnn.kernels.interleaved_group_convolution import Unit
from igcnn.kernels.ladder import RUNGS
from igcnn.kernels.launch import signatures, source, variants
from igcnn.kernels.stem import stem_bytes

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy and NVRTC")
pytest.importorskip("nvidia.cuda_nvrtc", reason="needs NVRTC (pip install 'igcnn[test]')")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from cubins import STEMS, combinations, compiled  # noqa: E402

ARCHITECTURES = [
    90,
    *(pytest.param(number, marks=pytest.mark.long) for number in (75, 80, 86, 89, 100, 120)),
]
# by threads of a block: so that two blocks, or three of the fused forward, or one of the weights'
# gradient, fit into the 65,536 registers of any multiprocessor
REGISTERS = {
    "128": 255,
    "256": 128,
    "512": 128,  # one block
    "THREADS": 255,  # of the ladder
    "FORWARD_THREADS": 170,
    "INPUT_THREADS": 200,
    "IT": 200,
    "WEIGHT_THREADS": 255,
}


def report(stem, architecture, defines):
    """Return what ptxas says of each kernel: (name, registers, bytes spilled, bytes shared)."""
    cubin, log = compiled(stem, defines, architecture)
    assert len(cubin) > 1000
    for part in re.split(r"Compiling entry function", log)[1:]:
        name = re.match(r" '(\w+)'", part)[1]
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", part)
        shared = re.search(r"(\d+) bytes smem", part)
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        yield name, registers, sum(map(int, spills)), int(shared[1]) if shared else 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stem", [*STEMS, *(f"ladder/{rung}" for rung in RUNGS)])
def test_every_kernel_compiles_without_spills(stem, architecture):
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(lambda defines: list(report(stem, architecture, defines)), combinations(stem))
        )
    bounds = re.findall(r"__launch_bounds__\((\w+), \w+\)\s+(\w+)\(", source(stem))
    ceilings = {name: REGISTERS[threads] for threads, name in bounds}
    for defines, kernels in zip(combinations(stem), reports, strict=True):
        assert {name for name, *_ in kernels} == set(signatures(stem))
        for name, registers, spilled, _ in kernels:
            assert spilled == 0, (name, defines)
            ceiling = 255 if "STORED=bfloat16" in defines else ceilings[name]
            assert registers <= ceiling, (name, defines)


BYTES_PER_SECOND = 4.3e12  # copy bandwidth of an H200
FLOPS_PER_SECOND = 0.55 * 67e12  # of its float32 units, as far as kernels reach it


def cells(kernel, registers, shared, size, flops):
    """Return what a header's table says of a kernel."""
    limits = size / BYTES_PER_SECOND * 1e6, flops / FLOPS_PER_SECOND * 1e6
    return (
        f"{registers:9}",
        f"{shared / 1024:9.1f}",
        f"{size / 1e6:4.1f}",
        f"{flops / 1e9:5.2f}",
        f"{limits[0]:9.1f}",
        f"{limits[1]:13.1f}",
    )


def unit_table():
    """The lines of the table in the header of the fused unit, for 64 images on sm_90."""
    stem = "interleaved_group_convolution"
    for variant in variants(stem):
        sizes = {name: int(value) for name, value in (part.split("=") for part in variant)}
        unit = Unit(**sizes)
        reports = report(stem, 90, ("REAL=float", "STORED=float", *variant))
        found = {name: (registers, shared) for name, registers, _, shared in reports}
        values = 64 * unit.L * unit.M * unit.H * unit.W
        products = values * (9 * unit.M + unit.L)
        for kernel, passes, flops, dynamic in (
            ("igc_forward_v2", 2, 2 * products, unit.forward_bytes),
            ("igc_backward_input_v2", 3, 2 * products, unit.input_bytes),
            ("igc_backward_weight_v2", 3, 4 * products, unit.weight_bytes),
        ):
            registers, shared = found[kernel]
            size = 4 * values * passes
            figures = cells(kernel, registers, shared + dynamic, size, flops)
            yield "// | " + " | ".join((f"{kernel:22}", f"{unit.M}", *figures)) + " |"


# 64 images of 48 channels of 32×32, or of 192 of 8×8 in 10 classes; 600,000 weights
VALUES = 64 * 48 * 1024
END = 64 * 192 * 64
OTHERS = {
    # kernel: stem, bytes, operations, dynamic shared memory
    "stem_v2": ("stem", 4 * VALUES + 5 * 64 * 3072, 2 * 27 * VALUES, stem_bytes(48, 32, "f4")),
    "head_v2": ("head", 8 * END, 2 * END, head_bytes((10, 192), "f4")),
    "combine_forward": ("combine", 12 * VALUES, 3 * VALUES, 0),
    "combine_sums_v2": ("combine", 16 * VALUES, 4 * VALUES, 0),
    "combine_backward_input": ("combine", 12 * VALUES, 5 * VALUES, 0),
    "skip_backward": ("combine", 12 * VALUES, 0, 0),
    "sgd_update": ("sgd_update", 20 * 600_000, 7 * 600_000, 0),
}


def fused_lines():
    """The files of the fused kernels, and each line of the tables in their headers."""
    for line in unit_table():
        yield "interleaved_group_convolution", line
    for kernel, (stem, size, flops, dynamic) in OTHERS.items():
        *_, variant = variants(stem)  # the last is the one that large images get
        for name, registers, _, shared in report(
            stem, 90, ("REAL=float", "STORED=float", *variant)
        ):
            if name == kernel:
                figures = cells(kernel, registers, shared + dynamic, size, flops)
                yield stem, "// | " + " | ".join((f"{kernel:22}", *figures)) + " |"


def test_the_tables_of_the_fused_kernels_are_true():
    if nvrtc.getVersion() != (12, 9):
        pytest.skip("the registers in the tables are those of NVRTC 12.9")
    folder = Path(igcnn.kernels.__file__).parent
    wrong = [
        line for stem, line in fused_lines() if line not in (folder / f"{stem}.cu").read_text()
    ]
    assert not wrong


@pytest.mark.parametrize("stem", STEMS)
def test_the_table_of_versions_names_the_kernels_that_are_there(stem):
    text = source(stem)
    named = set(re.findall(r"^// \| (\w+_v\d+) ", text, re.MULTILINE))
    assert named == {name for name in signatures(stem) if re.search(r"_v\d+$", name)}
