"""The product's kernels under the compiler's sanitizers, in whole updates (sanitized.py)."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.long,  # compiles every kernel for each sanitizer
    pytest.mark.skipif(
        platform.system() != "Linux" or shutil.which("g++") is None,
        reason="needs the sanitizers of g++",
    ),
]


@pytest.mark.parametrize(
    ("sanitize", "library"),
    [("address,undefined", "libasan.so"), ("thread", "libtsan.so")],
)
def test_sanitizers_find_nothing_in_updates(sanitize, library):
    found = subprocess.run(
        ["g++", f"-print-file-name={library}"], capture_output=True, text=True, check=True
    )
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"g++ has no {library}")
    environment = os.environ | {
        "LD_PRELOAD": path,
        "IGCNN_SANITIZE": sanitize,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory to its end
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
    }
    program = Path(__file__).with_name("sanitized.py")
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space is not the sanitizer's")
    assert (done.returncode, done.stdout) == (0, "no fault\n"), done.stderr
