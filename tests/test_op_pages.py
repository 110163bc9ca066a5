"""A page for every op: it names files and kernels, and its example prints what it says."""

import re
import shutil
from pathlib import Path

import pytest

from igcnn.inspection.page.formula import formulas

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "ops"
KERNELS = ROOT / "igcnn" / "kernels"
SOURCES = sorted(path.stem for path in KERNELS.glob("*.cu"))
STEMS = [stem for stem in SOURCES if not re.search(r"_v\d+$", stem)]  # not a version's own file
COMPOSED = ["interleaved_product"]  # of other ops; without kernels of their own


def page(stem):
    return (PAGES / f"{stem}.md").read_text(encoding="utf-8")


def test_every_op_has_a_page_and_every_page_an_op():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(["index", *STEMS, *COMPOSED])
    assert sorted(re.findall(r"\((\w+)\.md\)", page("index"))) == sorted(STEMS + COMPOSED)


@pytest.mark.parametrize("stem", STEMS)
def test_page_names_the_files_and_kernels_of_its_op(stem):
    sources = [name for name in SOURCES if re.sub(r"_v\d+$", "", name) == stem]
    files = [f"igcnn/layers/{stem}.py"]
    for name in sources:
        files += [
            f"igcnn/kernels/{name}.py",
            f"igcnn/kernels/{name}.cu",
            f"tests/kernels/test_{name}.py",
        ]
    _, where = page(stem).split("## Where\n")
    named = re.findall(r"`([\w/.]+)`", where)
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in files if (ROOT / name).exists() and name not in named] == []
    source = "".join((KERNELS / f"{name}.cu").read_text(encoding="utf-8") for name in sources)
    kernels = re.findall(r"__global__ void __launch_bounds__\([^)]*\)\s+(\w+)\(", source)
    assert len(kernels) == source.count("__global__")
    assert [name for name in kernels if f"`{name}`" not in page(stem)] == []


@pytest.mark.parametrize("stem", STEMS + COMPOSED)
def test_page_has_the_formulas_of_the_docstring(stem):
    block = r"^```{formula} (\w+)\n(:gradient:\n)?(?::block: (\d+)\n)?\n?(.*?)\n```$"
    found = re.findall(block, page(stem), re.MULTILINE | re.DOTALL)
    assert {name for name, *_ in found} == {stem}
    for name, gradient, number, text in found:
        expected = formulas(name, bool(gradient), int(number) if number else None)
        assert text.splitlines() == expected
    assert any(not gradient for _, gradient, *_ in found)
    assert any(gradient for _, gradient, *_ in found) == bool(formulas(stem, backward=True))


@pytest.mark.parametrize("stem", STEMS + COMPOSED)
def test_example_of_the_page_prints_what_the_page_says(stem, capsys):
    ((code, output),) = re.findall(
        r"```python\n(.*?)```\n\n```\n(.*?)```\n", page(stem), flags=re.DOTALL
    )
    if '"emu"' in code and shutil.which("g++") is None:
        pytest.skip("needs g++ (Debian, Ubuntu: apt install g++)")
    exec(compile(code, f"{stem}.md", "exec"), {})
    assert capsys.readouterr().out == output
