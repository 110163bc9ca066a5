"""benchmarks/gpu_listing.py: what it reads from a listing, and its page."""

import re
import sys
from pathlib import Path

import pytest

from igcnn.kernels.launch import signatures, variants

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from cubins import STEMS
from gpu_listing import (
    PAGE,
    Work,
    compiler_cells,
    disassembler,
    listings,
    occupancy,
    predicted,
    read,
)

LISTING = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR6][R2.64] ;
        /*0020*/                   IADD3 R2, R2, 0x10, RZ ;
.L_x_1:
        /*0030*/                   LDS R8, [R9] ;
        /*0040*/                   FFMA R4, R8, R5, R4 ;
        /*0050*/                   FFMA R5, R8, R5, R4 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
        /*0070*/              @!P1 BRA `(.L_x_0) ;
        /*0080*/               @P2 BRA `(.L_x_2) ;
        /*0090*/                   STG.E desc[UR6][R2.64], R4 ;
        /*00a0*/                   EXIT ;
.L_x_2:
        /*00b0*/                   BRA `(.L_x_0) ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3);
"""
TOLD = "0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads, Used 40 registers, "


def test_loops_are_found_and_counted_without_those_within_them():
    listing = read(LISTING, TOLD + "2048 bytes smem")
    assert (listing.registers, listing.spilled, listing.shared) == (40, 12, 2048)
    assert (listing.wide, listing.moves, listing.straight) == (1, 2, 3)
    outer, inner = listing.loops
    assert dict(outer.own) == {"LDG.E.128.CONSTANT": 1, "IADD3": 1, "BRA": 1}
    assert dict(inner.own) == {"LDS": 1, "FFMA": 2, "BRA": 1}
    assert (outer.outer, outer.inner, outer.loaded) == (True, [inner], 16)
    assert (inner.outer, inner.inner, listing.hot) == (False, [], inner)
    assert compiler_cells(listing) == ["40", "12", "1/2", "2.0", "50%", "0%"]


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "blocks"),
    [
        (167, 128, 0, 3),  # 168 · 128 registers a block
        (32, 256, 0, 8),  # 2,048 threads
        (32, 32, 0, 32),
        (32, 128, 84_608, 2),  # 2 · 85,632 bytes of 233,472
        (255, 256, 0, 1),
    ],
)
def test_occupancy_by_what_runs_out_first(registers, threads, shared, blocks):
    listing = read(LISTING, f"Used {registers} registers")
    assert occupancy(Work("", "", (), 1, threads, shared, 0, 0), listing) == blocks


def test_a_launch_takes_as_long_as_its_bytes_or_its_instructions():
    listing = read(LISTING, "Used 32 registers")
    bytes_alone = predicted(Work("", "", (), 132 * 160, 128, 0, 3_000_000_000, 0), listing)
    assert bytes_alone == pytest.approx((1e-3, 0, 1.0013e-3))
    # 4 instructions for 2 products; 16 blocks of 4 warps: a scheduler issues in 1 − 0.6¹⁶ cycles
    flops = 64 * 132 * 1.755e9 * 2
    found = predicted(Work("", "", (), 132 * 16, 128, 0, 0, flops), listing)
    assert found == pytest.approx((0, 1 / (1 - 0.6**16), 1.3e-6 + 1 / (1 - 0.6**16)))


def rows():
    """Kernel, stem, defines and the compiler's cells of each row of the page."""
    stem_of = {kernel: stem for stem in STEMS for kernel in signatures(stem)}
    for line in PAGE.read_text().split("<!-- tables -->")[1].splitlines():
        if found := re.match(r"\| `(\w+)`([^|]*) \| \d+ \| (.*)", line):
            kernel, told, cells = found[1], set(found[2].split()), found[3].split(" | ")[:6]
            stored = "STORED=bfloat16" if "STORED=bfloat16" in told else "STORED=float"
            told.discard(stored)
            stem = stem_of[kernel]
            (variant,) = (v for v in variants(stem) if told <= set(v) and (told or not v))
            yield kernel, stem, ("REAL=float", stored, *variant), cells


def check(chosen):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy and NVRTC")
    pytest.importorskip("nvidia.cuda_nvrtc", reason="needs NVRTC (pip install 'igcnn[test]')")
    if nvrtc.getVersion() != (12, 9) or disassembler() is None:
        pytest.skip("the page is of NVRTC 12.9 and nvdisasm")
    found = {source: listings(*source, "90") for source in {row[1:3] for row in chosen}}
    assert chosen
    for kernel, stem, defines, cells in chosen:
        assert compiler_cells(found[stem, defines][kernel]) == cells, (kernel, defines)


def test_the_page_has_what_the_compiler_made_of_small_kernels():
    check([row for row in rows() if row[1] in ("head_v2", "sgd_update")])


@pytest.mark.long
def test_the_page_has_what_the_compiler_made_of_all_kernels():
    check(list(rows()))
