"""The C++ compiler: which one is used, and what its cache holds."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from igcnn import compiler
from igcnn.compiler import find_compiler, missing_compiler, read_source
from igcnn.errors import DeviceError

pytestmark = pytest.mark.skipif(bool(missing_compiler()), reason="needs a C++ compiler")

FAKE = """#!/bin/sh
case "$*" in *{refused}*) exit 1;; esac
echo '#define __cplusplus 201703L'
echo '#define __VERSION__ "{version}"'
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing but what the returned function puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)

    def put(name, version="1.2.3", refused="nothing"):
        path = folder / name
        path.write_text(FAKE.format(version=version, refused=refused))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        compiler._find.cache_clear()
        return path

    yield put
    compiler._find.cache_clear()


@pytest.fixture
def without_wheel(monkeypatch):
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)


def build(stem, text, cache="test"):
    """The library of a source, from the cache."""

    def compile_(folder):
        (folder / "k.cpp").write_text(text)
        found.run(["-shared", "-fPIC", "k.cpp", "-o", f"{stem}.so"], folder)

    found = find_compiler()
    return found.cached(cache, f"{stem}.so", [text], compile_)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "igcnn" / "test"


def test_gpp_comes_before_clang(programs):
    programs("clang++", "Debian Clang 14.0.6 ")
    assert (find_compiler().name, find_compiler().version) == ("clang++", "14.0.6")
    programs("g++", "12.2.0")
    assert (find_compiler().name, find_compiler().version) == ("g++", "12.2.0")
    programs("g++", "12.3.0").unlink()
    assert find_compiler().name == "clang++"


def test_cxx_comes_first_and_may_have_arguments(programs, monkeypatch):
    programs("g++")
    monkeypatch.setenv("CXX", f"{programs('mine')} -m64")
    assert find_compiler().name == "mine"
    assert find_compiler().command[1:] == ("-m64",)
    monkeypatch.setenv("CXX", "absent")
    with pytest.raises(DeviceError, match=r"^CXX=absent is not a working C\+\+ compiler; unset"):
        find_compiler()


def test_a_compiler_that_does_not_work_is_passed_over(programs):
    programs("g++", refused="-dM")
    programs("clang++")
    assert find_compiler().name == "clang++"


@pytest.mark.parametrize(
    ("machine", "refused", "flags"),
    [
        ("x86_64", "nothing", ("-march=native", "-mprefer-vector-width=512")),
        ("x86_64", "-mprefer", ("-march=native",)),
        ("aarch64", "nothing", ("-march=native",)),
        ("aarch64", "-march", ("-mcpu=native",)),
        ("aarch64", "native", ()),
    ],
)
def test_flags_are_those_that_the_compiler_accepts(programs, monkeypatch, machine, refused, flags):
    monkeypatch.setattr(compiler.platform, "machine", lambda: machine)
    programs("g++", refused=refused)
    assert find_compiler().native + find_compiler().wide == flags


def test_the_wheel_is_the_last_choice(programs, monkeypatch):
    pytest.importorskip("ziglang")
    assert find_compiler().name == "zig c++"
    assert "apt install g++" in missing_compiler(wheel=False)
    assert "pip" not in missing_compiler(wheel=False)
    programs("g++")
    assert find_compiler().name == "g++"


def test_without_a_compiler_one_line_says_what_to_install(programs, without_wheel):
    assert missing_compiler() == (
        "no C++ compiler; install g++ (Debian, Ubuntu: apt install g++) or "
        'pip install "igcnn[compiler]"'
    )
    with pytest.raises(DeviceError, match=r"^no C\+\+ compiler; install g\+\+.*\Z"):
        find_compiler()
    programs("g++")
    assert missing_compiler() == ""


def test_another_cpu_or_version_has_its_own_files(programs):
    identities = set()
    for version in ("1", "2"):
        programs("g++", version)
        identities.add(find_compiler().identity)
    assert len(identities) == 2


def test_a_file_is_built_once(cache, monkeypatch):
    text = "int f() { return 1; }"
    path = build("f", text)
    assert path.parent == cache
    assert build("g", text) != path
    assert build("f", text + " ") != path
    monkeypatch.setattr(compiler.subprocess, "run", None)  # nothing is started
    assert build("f", text) == path


def test_what_the_compiler_refuses_is_told_in_one_line(cache):
    with pytest.raises(DeviceError) as caught:
        build("f", "int f() { return nothing; }\nint g() { return neither; }")
    message = str(caught.value)
    assert "\n" not in message
    assert "k.cpp:1" in message
    assert "nothing" in message
    assert list(cache.iterdir()) == []


def test_a_killed_compiler_leaves_no_library(cache, tmp_path):
    """What is in the cache under a final name was complete before it got that name."""

    def torn(folder):
        (folder / "f.so").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_compiler().cached("test", "f.so", [], torn)
    assert list(cache.iterdir()) == []


def test_of_several_processes_one_compiles(cache, tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from igcnn.compiler import *\n"
        "def compile_(folder):\n"
        "    print('compiles', flush=True); time.sleep(0.5)\n"
        "    (folder / 'f.so').write_text('done')\n"
        "print(find_compiler().cached('test', 'f.so', [], compile_).read_text())"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = "".join(process.communicate()[0] for process in processes).splitlines()
    assert sorted(printed) == ["compiles", *["done"] * 4]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("kind", ["file", "closed"])
def test_a_cache_that_is_not_writable_is_replaced(tmp_path, monkeypatch, kind):
    home = tmp_path / "home"
    if kind == "file":
        home.write_text("")
    else:
        home.mkdir()
        monkeypatch.setattr(compiler.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    path = build("f", "int f();", "other")
    assert path.is_file()
    assert home not in path.parents
    assert build("f", "int f();", "other") == path


def test_a_full_disk_is_told_in_one_line(cache):
    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(DeviceError, match=r"cannot write .*: No space left on device; free"):
        find_compiler().cached("test", "f.so", [], full)


def test_a_temporary_cache_goes_with_its_process(tmp_path):
    (tmp_path / "home").write_text("")
    code = "from igcnn.compiler import cache_folder; import os\n"
    code += "if os.fork() == 0: raise SystemExit\n"
    code += "os.wait(); print(cache_folder('a').is_dir(), cache_folder('a'))"
    code = code.replace("if os.fork", "cache_folder('a')\nif os.fork")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    existed, _, folder = done.stdout.strip().partition(" ")
    assert existed == "True"
    assert not Path(folder).exists()


def test_included_files_are_put_in_once(tmp_path):
    (tmp_path / "a.hpp").write_text('#include "b.hpp"\nint a;\n')
    (tmp_path / "b.hpp").write_text("int b;\n")
    (tmp_path / "k.cpp").write_text(
        '#include <math.h>\n#include "a.hpp"\n#include "b.hpp"\nint k;\n'
    )
    text = read_source(tmp_path / "k.cpp")
    assert [line for line in text.splitlines() if line.startswith("int")] == [
        "int b;",
        "int a;",
        "int k;",
    ]
    assert '#line 3 "k.cpp"' in text
    assert "#include <math.h>" in text
