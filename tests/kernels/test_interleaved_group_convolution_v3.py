"""Version 3 of the fused unit, in every cut that benchmarks/gpu_cuts.py tries."""

import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from igcnn.backend import on_device, shared_bytes
from igcnn.kernels.interleaved_group_convolution import fused_unit
from igcnn.kernels.interleaved_group_convolution_v3 import defines

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from gpu_cuts import KERNELS, cut_of, results
from gpu_versions import STAGES, Stage

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_blocks_that_have_part_of_the_groups(name):
    with on_device("emu"):
        stage = Stage((12, 4, 4), 2, "emu")
        shipped, make, _ = KERNELS[name]
        expected = results(partial(shipped, *getattr(stage, name)), stage, name)
        actual = results(make(stage, "FM=2 IL=6 WQ=2"), stage, name)
    for own, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=1e-5 * np.abs(other).max())


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("sizes", STAGES)
def test_all_cuts_at_the_stages_of_the_paper(sizes, name):
    with on_device("emu"):
        stage = Stage(sizes, 1, "emu")
        shipped, make, cuts = KERNELS[name]
        expected = results(partial(shipped, *getattr(stage, name)), stage, name)
        for text in cuts[sizes[1]].split("|"):
            for own, other in zip(results(make(stage, text), stage, name), expected, strict=True):
                message = f"{name} {text}"
                limit = 1e-5 * np.abs(other).max()
                np.testing.assert_allclose(own, other, rtol=0, atol=limit, err_msg=message)


@pytest.mark.parametrize("sizes", STAGES)
def test_cuts_name_what_the_source_leaves_open(sizes):
    L, M, side = sizes
    shapes = (L * M, side, side), (L * M, M, 3, 3)
    unit = fused_unit(*shapes, ((1, 1), (1, 1), L), M, shared_bytes("emu"))
    plain = defines(unit)
    for *_, cuts in KERNELS.values():
        for text in cuts[M].split("|"):
            assert set(defines(unit, cut_of(text))) == set(plain), text
