"""Completion, encodings, groups by themselves, and settings that contradict each other."""

import os
import subprocess
import sys

import pytest

from igcnn.cli.main import main


def igcnn(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "igcnn", *arguments],
        env=os.environ | variables,
        capture_output=True,
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_what_a_shell_asks_for(shell):
    done = igcnn(_IGCNN_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert b"_IGCNN_COMPLETE" in done.stdout
    done = igcnn(_IGCNN_COMPLETE="bash_complete", COMP_WORDS="igcnn tr", COMP_CWORD="1")
    assert done.stdout.split() == [b"plain,trace", b"plain,train"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_a_sign_gets_another(encoding):
    done = igcnn("doctor", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"BLAS" in done.stdout


@pytest.mark.parametrize("group", ["data", "convert"])
def test_a_group_by_itself_shows_its_help(group, capsys):
    assert main([group]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: igcnn {group}")
    assert len(lines) > 8


def test_a_variable_that_nothing_reads_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IGCNN_BATCHSIZE", "7")
    monkeypatch.setenv("IGCNN_DEBUG", "0")
    out = str(tmp_path / "run")
    words = "train --depth 8 --L 2 --M 2 --epochs 1 --max-steps 1 --progress none --out"
    assert main([*words.split(), out]) == 0
    err = capsys.readouterr().err
    assert err.count("IGCNN_") == 2
    assert (
        "IGCNN_BATCHSIZE is not a setting and has no effect; did you mean IGCNN_BATCH_SIZE?" in err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data-dir mine", "digits does not read files; to use those in mine"),
        ("--precision fp16", "precision must be fp32, fp64 or bf16, not fp16"),
        ("--precision bf16 --device cpu", "precision bf16 needs a plan on a GPU"),
    ],
)
def test_a_contradiction_is_refused_before_there_is_a_run_folder(words, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *words.split(), "--out", str(out), "--progress", "none"]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_tensorboard_without_its_extra_leaves_no_run_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("igcnn.training.tensorboard.find_spec", lambda name: None)
    out = tmp_path / "run"
    assert main(["train", "--tensorboard", "--out", str(out), "--progress", "none"]) == 2
    assert "--tensorboard needs tensorboardX" in capsys.readouterr().err
    assert not out.exists()
