"""v3 of the fused kernels, cut in many ways, beside v2, which is shipped.

    pip install -e ".[cuda12,bench]" && python benchmarks/gpu_cuts.py

A cut says how many rows, groups and outputs a block and a thread have, and how many loads are
under way (igcnn/kernels/interleaved_group_convolution_v3.cu). Which is best no listing tells.
Every cut is compiled first, on all cores; what it writes is compared with v2's, and then it is
timed as in gpu_versions.py: 64 and 1024 images, float32, medians of interleaved rounds. A cut that
the device refuses is told and left out.

`--small` does the same with small images, also on `--device emu`: a test of this script.
"""

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from cubins import compiled
from gpu import device as describe
from gpu_versions import SMALL, STAGES, TOLERANCE, Stage, seconds
from harness import require_device, save

from igcnn.backend import copy_to, on_device, to_host
from igcnn.errors import IgcnnError
from igcnn.files import write_atomically
from igcnn.kernels import interleaved_group_convolution_v3 as v3
from igcnn.kernels.capture import Pass
from igcnn.kernels.interleaved_group_convolution import (
    launch_igc_backward_input,
    launch_igc_backward_weight,
    launch_igc_forward,
)
from igcnn.kernels.launch import cubin_name

# by M: what is tried of each kernel; see the header of the source for the letters
FORWARD = {
    2: "FM=2 FH=4 FO=12|FM=2 FH=4 FO=12 FF=4|FM=2 FH=4 FO=6|FM=2 FH=4 FO=8|FM=2 FH=8 FO=12|"
    "FM=2 FH=2 FO=12|FM=2 FH=8 FO=12 FQ=2|FM=2 FH=8 FO=6",
    4: "FM=2 FH=8 FO=12|FM=2 FH=8 FO=6|FM=4 FH=4 FO=12|FM=4 FH=4 FO=6|FM=2 FH=16 FO=12|"
    "FM=4 FH=8 FO=12|FM=2 FH=4 FO=6|FM=2 FH=4 FO=12",
    8: "FM=2 FH=8 FO=8|FM=2 FH=8 FO=4|FM=2 FH=8 FO=6|FM=4 FH=8 FO=12|FM=4 FH=8 FO=8|"
    "FM=4 FH=8 FO=6|FM=2 FH=4 FO=6|FM=4 FH=4 FO=6",
}
INPUT = {
    2: "IT=160|IT=160 IF=8|IT=160 IF=4|IT=256|IT=128|IT=320|IT=160 IH=4|IT=192 IH=4|IT=256 IL=8",
    4: "IT=160|IT=256|IT=128|IT=320|IT=160 IL=8|IT=256 IL=8|IT=192 IH=4|IT=192 IH=4 IL=8",
    8: "IT=128 IH=8 IL=8|IT=256 IH=8 IL=8|IT=160 IH=8 IL=8|IT=320 IH=8 IL=8|IT=192|IT=256|"
    "IT=192 IL=8|IT=320 IH=8|IT=256 IH=8",
}
WEIGHT = {M: "WF=5|WF=3|WF=8|WQ=2|WH=2" for M in (2, 4, 8)}


def cut_of(text):
    """Return a cut, written as in FORWARD, by name."""
    return {name: int(value) for name, value in (part.split("=") for part in text.split())}


def forward(stage, text):
    """Return what launches v3 of forward in a cut."""
    unit, x, *others, _ = stage.forward
    moments = stage.new(unit.L * unit.M, v3.forward_slots(unit, len(x), cut_of(text)), 3)
    return partial(v3.launch_igc_forward, unit, x, *others, moments, cut=cut_of(text))


def backward_input(stage, text):
    """Return what launches v3 of the gradient of the input in a cut."""
    return partial(v3.launch_igc_backward_input, *stage.backward_input, cut=cut_of(text))


def backward_weight(stage, text):
    """Return what launches v3 of the gradients of the weights in a cut."""
    return partial(v3.launch_igc_backward_weight, *stage.backward_weight, cut=cut_of(text))


KERNELS = {
    # name: v2 and its arguments, v3, cuts by M
    "forward": (launch_igc_forward, forward, FORWARD),
    "backward_input": (launch_igc_backward_input, backward_input, INPUT),
    "backward_weight": (launch_igc_backward_weight, backward_weight, WEIGHT),
}


def results(call, stage, name):
    """Return what a kernel writes, as all its versions do: of the weights' gradients the sums."""
    arrays = {
        "forward": (stage.forward[5],),
        "backward_input": (stage.backward_input[4],),
        "backward_weight": stage.backward_weight[5],
    }[name]
    for array in arrays:
        copy_to(array, np.full(array.shape, -1, np.float32))
    call()
    found = [to_host(array).astype("f8") for array in arrays]
    return [parts.sum(0) for parts in found] if name == "backward_weight" else found


def compile_all(units, folder):
    """Compile every cut of the units for the device at hand, on all cores, into a folder."""
    import cupy

    architecture = cupy.cuda.Device().compute_capability
    wanted = {
        ("REAL=float", "STORED=float", *(f"{k}={v}" for k, v in names.items()))
        for unit in units
        for *_, cuts in KERNELS.values()
        for names in (v3.defines(unit, cut_of(text)) for text in cuts[unit.M].split("|"))
    }

    def make(options):
        path = Path(folder) / cubin_name(v3.STEM, options, architecture)
        write_atomically(path, compiled(v3.STEM, options, architecture)[0])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, wanted))
    os.environ["IGCNN_CUBINS"] = str(folder)


def measure_cuts(stage, name, device, small):
    """Return {cut: µs of a launch} of a kernel at a stage, v2 first; print a line each."""
    shipped, make, cuts = KERNELS[name]
    texts = [""] if small else cuts[stage.forward[0].M].split("|")
    v2 = partial(shipped, *getattr(stage, name))
    calls = {"v2": v2} | {text: make(stage, text) for text in texts}
    found, expected = {}, None
    for text, call in calls.items():
        try:
            own = results(call, stage, name)
        except (IgcnnError, RuntimeError) as error:  # of CuPy: too many registers, too much memory
            print(f"    {text}: {str(error).splitlines()[0]}")
            continue
        expected = expected or own
        for a, b in zip(own, expected, strict=True):
            assert np.abs(a - b).max() <= TOLERANCE * np.abs(b).max(), (name, text)
        found[text] = call
    repeats, rounds = (1, 1) if small else (20, 7)
    passes = [Pass([call] * repeats, device, 1) for call in found.values()]
    for run in passes:
        run()
        run()  # captures
    times = [[seconds(run, device) for run in passes] for _ in range(rounds)]
    medians = [median(own) / repeats * 1e6 for own in zip(*times, strict=True)]
    found = dict(zip(found, medians, strict=True))
    for text, us in sorted(found.items(), key=lambda item: item[1]):
        print(f"    {us:8.1f} µs  {text}", flush=True)
    return found


def main():
    """Print a table a stage, kernel and batch, the fastest first; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--device", default="cuda:0", help="or emu")
    parser.add_argument("--small", action="store_true", help="to test this script")
    arguments = parser.parse_args()
    require_device(arguments.device)
    stages, batches = (SMALL, [2]) if arguments.small else (STAGES, arguments.batch or [64, 1024])
    name_of_results = "gpu_cuts_small" if arguments.small else "gpu_cuts"
    result = {}
    with tempfile.TemporaryDirectory() as folder, on_device(arguments.device):
        if not arguments.small:
            units = [Stage(sizes, 1, arguments.device).forward[0] for sizes in STAGES]
            compile_all(units, folder)
        for batch in batches:
            for sizes in stages:
                stage = Stage(sizes, batch, arguments.device)
                title = "L = {}, M = {}, {side}×{side}, batch {}".format(
                    *sizes[:2], batch, side=sizes[2]
                )
                print(title)
                result[title] = {}
                for name in KERNELS:
                    print(f"  {name}")
                    found = measure_cuts(stage, name, arguments.device, arguments.small)
                    result[title][name] = found
                    save(name_of_results, describe() | {"cuts": result})


if __name__ == "__main__":
    main()
