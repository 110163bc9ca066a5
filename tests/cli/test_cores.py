"""`igcnn train --cores`: the number of threads changes nothing but the time."""

from igcnn import load_checkpoint

from .conftest import TINY
from .test_train import weights


def test_cores_and_eager_give_one_result(igcnn):
    short = (*TINY, "--epochs", "1", "--progress", "none")
    for name, arguments in {
        "one": ("--cores", "1"),
        "three": ("--cores", "3"),
        "tape": ("--eager",),
    }.items():
        code, out, err = igcnn(*short, *arguments, "--out", name)
        assert code == 0, err
        assert {"one": "plan, 1 thread,", "three": "3 threads", "tape": "tape"}[name] in out
    assert weights("one") == weights("three")
    tape, plan = (load_checkpoint(f"{n}/checkpoints/last.h5").state for n in ("tape", "one"))
    for name, array in tape.items():
        scale = max(1.0, abs(array).max())
        assert abs(array - plan[name]).max() < 1e-3 * scale, name


def test_without_a_compiler_the_tape_trains_and_says_what_to_install(igcnn, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(
        "igcnn.kernels.compiled.missing_compiler", lambda: "no C++ compiler; install g++"
    )
    code, out, err = igcnn(*TINY, "--epochs", "1", "--progress", "none", "--out", "run")
    assert code == 0, err
    assert "tape (no plan: no C++ compiler; install g++" in out
