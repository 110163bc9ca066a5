"""Print the tables of docs/performance.md from benchmarks/results/*.json, as Markdown.

python benchmarks/tables.py
python benchmarks/tables.py training latency
"""

import argparse
import json
from statistics import median

from harness import RESULTS

OPERATIONS = (
    "interleaved_group_convolution batch_norm relu add permutation pooling linear "
    "softmax_cross_entropy sgd_update"
).split()
NAMES = {
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}


def load(name):
    """Return a result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def print_table(header, rows):
    """Print a table in Markdown."""
    print("\n| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def engines(part, unit, value):
    """Print what the plan reaches, and the time of all others divided by its own."""
    cases = load("cpu")["cases"]
    names = list(next(iter(cases.values()))[part]["seconds"])
    names.remove("plan")
    rows = []
    for case, entry in cases.items():
        seconds = entry[part]["seconds"]
        cells = [case, value(case, median(seconds["plan"]))]
        for name in names:
            ratios = [a / b for a, b in zip(seconds[name], seconds["plan"], strict=True)]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
        rows.append(cells)
    print_table(["network", unit, *(NAMES.get(name, name) for name in names)], rows)


def images_per_second(case, seconds):
    """Return images a second of a case as text."""
    from cpu import CASES

    return f"{CASES[case][3] / seconds:,.0f}"


def training():
    """Print the table of training."""
    engines("train", "plan, images/s", images_per_second)


def evaluation():
    """Print the table of evaluation."""
    engines("eval", "plan, images/s", images_per_second)


def latency():
    """Print the table of one image after another."""
    engines("latency", "plan, ms", lambda case, seconds: f"{1e3 * seconds:.2f}")


def memory():
    """Print the table of peak memory."""
    cases = load("cpu")["cases"]
    names = list(next(iter(cases.values()))["memory_MB"])
    rows = [
        [case, *(f"{entry['memory_MB'][name]:,.0f}" for name in names)]
        for case, entry in cases.items()
    ]
    print_table(["network", *(NAMES.get(name, name) for name in names)], rows)


def breakdown():
    """Print where the time of a step goes."""
    kernels = load("breakdown")["kernels"]
    rows = []
    for name, row in sorted(kernels.items(), key=lambda item: -item[1]["seconds"]):
        seconds, macs, size = row["seconds"], row["multiply_adds"], row["bytes"]
        speed = f"{2e-9 * macs / seconds:.0f}" if macs else ""
        bandwidth = f"{1e-9 * size / seconds:.0f}" if size else ""
        rows.append([f"`{name}`", str(row["launches"]), f"{1e3 * seconds:.2f}", speed, bandwidth])
    print_table(["kernel", "launches", "ms", "GFLOP/s", "GB/s"], rows)


def growth():
    """Print the exponents."""
    rows = []
    for name, one in load("growth")["ranges"].items():
        size, exponents = one["size"], one["exponents"]
        ends = f"{size[0]:,} … {size[-1]:,}"
        rows.append([name, ends, f"{exponents['time']:.2f}", f"{exponents['memory']:.2f}"])
    print_table(["", "from … to", "exponent of time", "of memory"], rows)


def timed(what, cases):
    """Print milliseconds of the tape, and the time of all others divided by it."""
    names = [name for name in _longest(cases) if name != "tape"]
    rows = []
    for case, directions in cases:
        for direction, one in directions.items():
            relative = one["time / tape"]
            own = f"{1e3 * median(one['seconds']['tape']):.2f}"
            others = [f"{relative[n]:.2f}" if n in relative else "" for n in names]
            rows.append([case, direction, own, *others])
    print_table([what, "direction", "tape, ms", *names], rows)


def _longest(cases):
    return max((one["seconds"] for _, d in cases for one in d.values()), key=len)


def operations():
    """Print the table of all operations."""
    cases = [
        (f"`{name}.py`, {case}", directions)
        for name in OPERATIONS
        for case, directions in load(name)["cases"].items()
    ]
    timed("script, case", cases)


def convolution():
    """Print the table of convolutions."""
    timed("layer, 3×3", list(load("convolution")["layers"].items()))


TABLES = [training, evaluation, latency, memory, breakdown, growth, operations, convolution]


def main():
    """Print the tables that are asked for, or all."""
    names = [table.__name__ for table in TABLES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="*", help=", ".join(names))
    chosen = parser.parse_args().table or names
    for table in TABLES:
        if table.__name__ in chosen:
            table()


if __name__ == "__main__":
    main()
