"""`igcnn doctor`."""

import json
import platform
import re

import numpy as np

from igcnn.inspection import doctor


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


def test_a_computer_without_compiler_and_cupy_is_told_how_to_get_them(igcnn, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    code, out, _ = igcnn("doctor")
    assert code == 0
    out = re.sub(" +", " ", out)
    assert "-- g++ not found; --device emu needs it" in out
    assert "→ Debian, Ubuntu: apt install g++" in out
    assert "-- CuPy not installed; --device cuda needs it" in out
    assert "→ pip install 'igcnn[cuda12]'" in out
