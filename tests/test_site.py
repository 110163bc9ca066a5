"""The documentation builds without a warning; every name, option and link is there."""

import re
import subprocess
import sys
from html import unescape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import pytest

import igcnn
from igcnn.cli.main import cli

pytest.importorskip("sphinx", reason='needs pip install -e ".[docs]"')
pytest.importorskip("furo", reason='needs pip install -e ".[docs]"')
pytestmark = pytest.mark.xdist_group("site")

ROOT = Path(__file__).parents[1]
PACKAGES = [path.parent.name for path in sorted((ROOT / "igcnn").glob("*/__init__.py"))]
MODULES = [import_module(f"igcnn.{name}") for name in [*PACKAGES, "functional"]]
PUBLIC = [
    f"{module.__name__}.{name}" for module in MODULES for name in getattr(module, "__all__", ())
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The text of each page."""
    return {path.resolve(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def anchors(pages):
    """What a link to each page can name."""
    return {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}


def test_every_public_name_is_in_the_reference(site, anchors):
    found = set().union(
        *(anchors[path.resolve()] for path in (site / "reference" / "api").glob("*.html"))
    )
    missing = [name for name in PUBLIC if name not in found]
    assert not missing, ", ".join(missing)


def test_names_of_the_top_package_are_listed(site, pages):
    index = pages[(site / "reference" / "api" / "index.html").resolve()]
    for name in igcnn.__all__:
        if not isinstance(getattr(igcnn, name), ModuleType):
            assert f"igcnn.{name}<" in index, name


def commands(command, path):
    """The commands below one, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, [*path, name])


def test_every_option_of_every_command_is_in_the_reference(site, anchors):
    found = anchors[(site / "reference" / "cli.html").resolve()]
    for path, command in commands(cli, ["igcnn"]):
        assert "-".join(path) in found
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert f"cmdoption-{'-'.join(path)}-{option.opts[0].lstrip('-')}" in found


def test_every_link_leads_somewhere(pages, anchors):
    lost = []
    for page, text in pages.items():
        for link in map(unescape, re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            if re.match(r"(https?|mailto|data):", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name.partition("?")[0]).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors.get(target, ())):
                lost.append(f"{page.name}: {link}")
    assert lost == []


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pages_load_nothing_from_elsewhere(pages):
    for page, text in pages.items():
        assert re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//', text) == []
        links = re.findall(r'<link[^>]*\bhref="(?:https?:)?//[^>]*>', text)
        assert links == [], page


def test_formulas_are_typeset(pages):
    for page, text in pages.items():
        if page.parent.name == "ops" and page.stem != "index":
            assert "<math" in text, page
        assert '<span class="math' not in text
        assert "<merror" not in text
