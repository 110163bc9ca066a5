"""Compiles every CUDA kernel before a GPU is at hand: `make gpu-cubins`.

    python benchmarks/cubins.py --arch 90 --out DIR
    IGCNN_CUBINS=DIR igcnn train --device cuda …

NVRTC makes them; neither a driver nor a GPU is needed. A file's name has the hash of its source
and options, so that one of another source is never loaded; a kernel that has no file is compiled
when it is first used.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import igcnn.kernels
from igcnn.files import write_atomically
from igcnn.kernels.launch import OPTIONS, cubin_name, source, variants

ARCHITECTURES = ("80", "90", "100")
TYPES = (("float", "float"), ("double", "double"), ("float", "bfloat16"))
STEMS = sorted(path.stem for path in Path(igcnn.kernels.__file__).parent.glob("*.cu"))


def combinations(stem):
    """Return every set of defines that a source can be compiled with."""
    return [
        (f"REAL={real}", f"STORED={stored}", *variant)
        for real, stored in TYPES
        if real == "float" or "// real: float" not in source(stem)
        for variant in variants(stem)
    ]


def compiled(stem, defines, architecture):
    """Return the bytes of a cubin, and what ptxas says of its kernels."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source(stem), f"{stem}.cu", [], [])
    options = [f"-arch=sm_{architecture}", *OPTIONS, "--ptxas-options=-v"]
    options += [f"-D{define}" for define in defines]
    try:
        nvrtc.compileProgram(program, tuple(options))
        # CuPy takes the last byte, a zero, for the end of a string
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)


def main():
    """Write the files that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", help="90 for sm_90; 80, 90 and 100 by default")
    parser.add_argument("--stem", action="append", choices=STEMS)
    parser.add_argument("--out", type=Path, default=Path("cubins"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def make(job):
        stem, defines, architecture = job
        path = arguments.out / cubin_name(stem, defines, architecture)
        if not path.exists():
            write_atomically(path, compiled(stem, defines, architecture)[0])
        return path.stat().st_size

    jobs = [
        (stem, defines, architecture)
        for architecture in arguments.arch or ARCHITECTURES
        for stem in arguments.stem or STEMS
        for defines in combinations(stem)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(make, jobs))
    seconds = time.perf_counter() - start
    print(f"{len(jobs)} files, {sum(sizes) / 2**20:.1f} MiB, {seconds:.0f} s: {arguments.out}")


if __name__ == "__main__":
    main()
