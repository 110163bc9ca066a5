"""Help texts and completion, made from the table of settings."""

import re

import pytest

from igcnn.cli.main import cli, main
from igcnn.networks import NETWORKS
from igcnn.settings import SETTINGS

COMMANDS = [*sorted(set(cli.commands) - {"convert", "data"}), "data list", "data pack"]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal(igcnn, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = igcnn(*command.split(), "--help")
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > columns] == []
    # a default is in one piece
    assert out.count("[default: ") == len(re.findall(r"\[default: [^\]\n]+\]", out))


def test_options_stand_in_their_groups(igcnn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = igcnn("train", "--help")
    sections = dict(re.findall(r"^(\w[\w ]*):\n(.*?)(?:\n\n|\Z)", out, re.MULTILINE | re.DOTALL))
    assert list(sections)[-7:] == [
        "Network",
        "Data",
        "Recipe",
        "Device",
        "Several processes",
        "Run",
        "Options",
    ]
    for setting in SETTINGS.values():
        assert re.search(rf"^  {setting.flag}\b", sections[setting.group], re.MULTILINE)
    assert "--precision fp32|fp64|bf16" in sections["Device"]
    assert "Initial learning rate. [default: 0.1]" in sections["Recipe"]
    assert "--ranks" in sections["Several processes"]
    assert "--primary-partition" not in out


def completed(monkeypatch, capsys, words):
    monkeypatch.setenv("_IGCNN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"igcnn {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    main()
    return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --net ", list(NETWORKS)),
        ("train --net Plain", ["plain", "plain_igc", "plain_igc_equal"]),
        ("train --precision B", ["bf16"]),
        ("train --device ", ["auto", "cpu", "cuda", "emu"]),
        ("eval run --dataset cif", ["cifar10", "cifar100"]),
        ("data fetch SV", ["svhn"]),
        ("runs --sort las", ["last"]),
        ("train --log-int", ["--log-interval"]),
    ],
)
def test_names_are_completed(monkeypatch, capsys, words, expected):
    assert completed(monkeypatch, capsys, words) == expected
