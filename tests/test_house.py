"""The rules of the house that a machine can hold."""

import ast
import configparser
import inspect
import re
import subprocess
import sys
import textwrap
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest

import igcnn

ROOT = Path(__file__).parents[1]
ORDER = [
    {"errors", "notebook", "text", "version"},
    {"backend", "compiler", "files", "kinds", "registry"},
    {"emulator"},
    {"kernels"},
    {"autograd"},
    {"distributed"},
    {"layers"},
    {"functional"},
    {"networks"},
    {"optim", "datasets", "plan"},
    {"settings", "training"},
    {"exchange"},
    {"conformance", "inspection"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = sorted([*(ROOT / "igcnn").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def package_of(path):
    """The dotted package that a file's relative imports start from."""
    parts = path.relative_to(ROOT).parts
    return ("igcnn", *parts[:-1]) if parts[0] == "cli" else parts[:-1]


def module_of(path):
    """The dotted name of a file."""
    package, stem = package_of(path), path.stem
    return ".".join(package if stem == "__init__" else (*package, stem))


MODULES = {module_of(path): path for path in FILES}


def imports_of(path):
    """The dotted names of the modules that a file imports, at any level of nesting."""
    package = package_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # of a package: a module in it, or a name in its __init__
                full = f"{stem}.{alias.name}"
                yield full if full in MODULES else stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package = package_of(path)
    me = package[1] if len(package) > 1 else path.stem
    if me == "__init__":  # the top package hands out names lazily
        return
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "igcnn" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[me], f"{me} imports {name}"


# (importer, imported): what closes a circle, inside a function, and why it may
CIRCLES = {
    # a notebook shows a subject by the page that is made of it; jinja2 is optional
    ("igcnn.inspection.subject", "igcnn.inspection.page"),
}


def test_no_circle_of_imports():
    graph = {
        module: {name for name in imports_of(path) if (module, name) not in CIRCLES}
        for module, path in MODULES.items()
    }
    assert graph["igcnn.training.trainer"] >= {"igcnn.training.saver", "igcnn.distributed"}
    while leaves := {module for module, needed in graph.items() if not needed & set(graph)}:
        graph = {module: needed for module, needed in graph.items() if module not in leaves}
    assert not graph, graph


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_framework_and_nothing_unsafe(path):
    banned = {"torch", "tensorflow", "jax", "mxnet", "pickle", "marshal", "shelve", "scipy"}
    if path.name == "cifar.py":  # reads the official pickles by a restricted reader
        banned -= {"pickle"}
    if path.name == "pytorch.py":  # writes and reads PyTorch's files
        banned -= {"torch"}
    assert not banned & {name.split(".")[0] for name in imports_of(path)}
    calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {f.id for f in calls if isinstance(f, ast.Name)}
    assert not names & {"eval", "exec", "compile"}
    methods = {f.attr for f in calls if isinstance(f, ast.Attribute)}
    assert not methods & {"extractall", "extract"}


LINES = 400
LONGER = {  # and why
    "igcnn/kernels/convolution.py": "one operation is read in one file: NumPy, CUDA, C++",
    "igcnn/kernels/convolution.hpp": "two register tiles and what feeds them, inlined as one",
    "igcnn/kernels/winograd.hpp": "one algorithm: its derivation and its three passes",
    "igcnn/kernels/common.hpp": "what every compiled kernel includes",
    "igcnn/kernels/interleaved_group_convolution.py": "one operation is read in one file",
    "benchmarks/gpu_listing.py": "a script, read from the top",
    "tests/autograd/test_gradcheck.py": "the cases of one function",
    "tests/cuda_cases.py": "a table with a case for each kernel",
    "tests/datasets/test_cifar.py": "the damages of one file format",
    "tests/inspection/test_live_page_in_a_browser.py": "one page, opened once",
    "tests/kernels/test_convolution_compiled.py": "the cases of one kernel",
    "tests/layers/test_layer.py": "the rules of one class",
    "tests/stand_in/cupy/__init__.py": "stands for one package",
}


def test_no_file_is_long_without_a_reason():
    folders = ("igcnn", "cli", "benchmarks", "examples", "tests")
    kinds = {".py", ".cu", ".cuh", ".cpp", ".hpp", ".h", ".js", ".css"}
    long = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and len(path.read_text(encoding="utf-8").splitlines()) > LINES
    }
    assert long == set(LONGER)


def test_packages_in_setup_cfg_are_those_on_disk():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    on_disk = {".".join(package_of(path)) for path in FILES}
    assert listed == on_disk


def test_every_op_has_its_tests():
    stems = {path.stem for path in (ROOT / "igcnn" / "kernels").glob("*.py")}
    stems -= {"__init__", "arguments", "capture", "checks", "combine", "geometry", "head", "stem"}
    tested = {path.stem for path in (ROOT / "tests" / "kernels").glob("test_*.py")}
    assert {f"test_{stem}" for stem in stems} <= tested


STILTED = (
    r"is one that",
    r"(is|are|was|were) told",
    r"(is|are) that of",
    r"are those of",
    r"by themselves",
    r"in vain",
    r"\bmends?\b",
    r"lets? go of",
    r"what of (this|the)",
    r"what is there\b",
    r"asks nothing",
    r"of no meaning",
    r"(?<!here )\bis no (?!longer)[a-z]",
    r"there is one way",
    r"held against",
    r"\bgo(es)? on with\b",
    r"has no place",
    r"planned form",
    r"was said",
    r"to the bit",
    r"\banew\b",
    r"for the bits' sake",
    r"kernel that can be read",
    r"(images|launches|numbers|rows|channels|threads) a (second|group|thread|block|launch)",
    r"(row|line|graph) an? (epoch|update|image|seed|run)",
)
PAGES = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "ARCHITECTURE", "CONTRIBUTING")]


def docstrings(path):
    """The docstrings of a file, one after the other."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return "\n".join(filter(None, map(ast.get_docstring, nodes)))


def stilted(text):
    """The phrases of a text that read as if translated, each with its surroundings."""
    return [m[0] for p in STILTED for m in re.finditer(f".{{0,30}}{p}.{{0,30}}", text)]


@pytest.mark.parametrize(
    "text",
    [
        "what of this computer works",
        "the text is no number",
        "23,000 images a second",
        "it prints a line an epoch",
    ],
)
def test_stilted_phrases_are_found(text):
    assert stilted(f"x {text} y") == [f"x {text} y"]


@pytest.mark.parametrize("text", ["there is no number", "it is no longer used"])
def test_plain_phrases_pass(text):
    assert not stilted(text)


def test_texts_are_plain():
    pages = [*PAGES, *(ROOT / "docs").rglob("*.md"), *(ROOT / "cli").glob("*.py")]
    texts = [(path, path.read_text(encoding="utf-8")) for path in pages]
    texts += [(path, docstrings(path)) for path in (ROOT / "igcnn").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: …{phrase}…" for path, text in texts for phrase in stilted(text)
    ]
    assert not found, "\n".join(found)


def test_public_names_exist_and_are_documented():
    for name in igcnn.__all__:
        value = getattr(igcnn, name)
        assert name == "__version__" or value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = igcnn.nothing


PUBLIC = sorted(
    {
        (module, name)
        for module in MODULES
        if re.fullmatch(r"igcnn(\.\w+)?", module) and MODULES[module].stem == "__init__"
        for name in getattr(import_module(module), "__all__", ())
    }
    | {("igcnn.functional", name) for name in import_module("igcnn.functional").__all__}
)


def documented(value):
    """The docstring of a function; of a class with those of its bases."""
    bases = value.__mro__[:-1] if inspect.isclass(value) else [value]
    return "\n".join(inspect.getdoc(base) or "" for base in bases)


def raises(value):
    """Whether a function raises, or the constructor of a class: by itself, not what it calls."""
    code = value
    if inspect.isclass(value):
        code = vars(value).get("__post_init__" if is_dataclass(value) else "__init__")
    if code is None:  # its constructor is its base's
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(code))))
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("module", "name"), [pytest.param(*both, id=".".join(both)) for both in PUBLIC]
)
def test_docstrings_say_arguments_shapes_and_errors(module, name):
    value = getattr(import_module(module), name)
    is_protocol = Protocol in getattr(value, "__bases__", ())
    if is_protocol or not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    text = documented(value)
    for argument, parameter in inspect.signature(value).parameters.items():
        if argument.startswith("_") or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        assert re.search(rf"\b{argument}\b", text), argument
        if re.fullmatch(r"(Tensor|Array)( \| None)?", str(parameter.annotation)):
            assert re.search(r"\([^)]*,[^)]*\)|shape", text), f"shape of {argument}"
    assert "Raises:" in text or not raises(value)


def test_functions_take_the_arguments_that_users_rely_on():
    from igcnn import functional

    expected = {
        "conv2d": "x weight bias stride padding groups",
        "permute_channels": "x branches",
        "interleaved_group_conv2d": "x primary secondary stride padding L secondary_groups",
        "batch_norm": "x gamma beta running_mean running_var training momentum eps communicator",
        "max_pool2d": "x kernel_size stride padding",
        "avg_pool2d": "x kernel_size stride padding count_include_pad",
        "linear": "x weight bias",
        "cross_entropy": "logits labels label_smoothing",
    }
    for name, arguments in expected.items():
        assert " ".join(inspect.signature(getattr(functional, name)).parameters) == arguments


def test_help_needs_neither_numpy_nor_h5py():
    """What keeps `igcnn --help` fast."""
    code = (
        "import sys, runpy\n"
        "sys.argv = ['igcnn', '--help']\n"
        "from igcnn.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'h5py', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_python_in_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
