"""Pages with code: it runs, and shows what they say."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from igcnn.cli.main import main
from igcnn.training import RunDirectory

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LADDER = ROOT / "igcnn" / "kernels" / "ladder"


def blocks(page, language):
    """Return the blocks of a language; "" for what is shown."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)
    return [text for name, text in found if name == language]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", blocks("python.md", "python"))
def test_code_of_the_page_on_python_runs(code, capsys):
    exec(compile(code, "python.md", "exec"), {"__name__": "page"})
    (shown,) = blocks("python.md", "")
    if "repr(" in code:
        assert capsys.readouterr().out == shown


def test_the_package_of_the_page_on_networks(install, monkeypatch, capsys):
    network, fit, dataset = blocks("own_network.md", "python")
    (toml,) = blocks("own_network.md", "toml")
    points = tomllib.loads(toml)["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items())
        for group, names in points.items()
    ]
    install("my-nets", "\n".join(lines), my_nets=network + dataset)
    shell = re.findall(r"^    igcnn (.*)$", (DOCS / "own_network.md").read_text(), re.M)
    assert [line.split()[0] for line in shell] == ["train", "eval", "inspect", "summary"]
    for line in shell:
        assert main(line.split()) == 0, capsys.readouterr().err
    assert "top-1   100.00 %" in capsys.readouterr().out
    assert RunDirectory("try").read_config()["width"] == 8
    exec(compile("import igcnn\n" + fit, "own_network.md", "exec"), {})
    assert len(list(Path("runs/digits/two_convs-width8").iterdir())) == 1


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
def test_the_table_of_the_page_on_the_ladder(capsys):
    (code,) = blocks("ladder.md", "python")
    exec(compile(code, "ladder.md", "exec"), {})
    assert [capsys.readouterr().out] == blocks("ladder.md", "")


def test_kernel_lines_of_the_page_on_the_ladder():
    sources = [path.read_text() for path in LADDER.glob("*.cu")]
    shown = blocks("ladder.md", "cuda")
    assert len(shown) == 5
    assert [text for text in shown if not any(text in source for source in sources)] == []
