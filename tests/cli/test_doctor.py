"""`igcnn doctor`."""

import json
import platform
import re

import numpy as np
import pytest

from igcnn import compiler
from igcnn.compiler import find_compiler, missing_compiler


def test_what_it_says_is_so(igcnn):
    code, out, err = igcnn("doctor", "--json")
    assert (code, err) == (0, "")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert found["Python"]["what"] == platform.python_version()
    assert found["NumPy"]["what"] == np.__version__
    assert int(found["cores"]["what"]) >= 1
    for finding in found.values():
        if finding["works"] is False and finding["name"] != "GPU":
            assert finding["cure"]


def test_a_computer_without_compiler_and_cupy_is_told_how_to_get_them(
    igcnn, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)
    compiler._find.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    code, out, _ = igcnn("doctor")
    compiler._find.cache_clear()
    assert code == 0
    out = re.sub(" +", " ", out)
    assert "-- CPU kernels no C++ compiler\n" in out
    assert (
        '→ install g++ (Debian, Ubuntu: apt install g++) or pip install "igcnn[compiler]"\n' in out
    )
    assert "-- emulator no C++ compiler\n → install g++ (Debian, Ubuntu: apt install g++)\n" in out
    assert "-- CuPy not installed; --device cuda needs it" in out
    assert "→ pip install 'igcnn[cuda12]'" in out


def test_it_names_the_compiler_of_the_kernels(igcnn, monkeypatch):
    if missing_compiler():
        pytest.skip("needs a C++ compiler")
    found = find_compiler()
    _, out, _ = igcnn("doctor")
    assert re.search(
        rf"ok +CPU kernels +compiled by {re.escape(found.name)} {found.version}\n", out
    )
    monkeypatch.setenv("IGCNN_COMPILED", "0")
    _, out, _ = igcnn("doctor")
    assert re.search(r"-- +CPU kernels +IGCNN_COMPILED=0\n +→ unset it to compile", out)
