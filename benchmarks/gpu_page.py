"""The page of gpu_report.py, from what its parts have found."""

import json
from statistics import median

from harness import RESULTS

NOTHING = "Nothing yet. `make gpu-report` on a computer with a GPU writes this page.\n"
ENGINES = ("plan", "tape", "eager", "channels-last", "CUDA graph", "compile", "compiled graph")


def page(parts):
    """Return docs/gpu_measured.md from the JSON files in the folder `parts`."""
    lines = ["# Measured on a GPU", ""]
    found = {p.stem: json.loads(p.read_text()) for p in sorted(parts.glob("*.json"))}
    if not found:
        return "\n".join([*lines, NOTHING])
    lines += ["Made by `make gpu-report` from benchmarks/results; nothing here is estimated.", ""]
    for name, section in SECTIONS.items():
        if name in found:
            lines += section(found[name])
    return "\n".join(lines)


def verdict(one):
    """Return in a few words how a command ended."""
    if one is None:
        return "not run: compute-sanitizer, of NVIDIA's toolkit, is not on the PATH"
    last = (one["output"].splitlines() or [""])[-1]
    return f"{'passed' if one['rc'] == 0 else 'FAILED'} in {one['seconds']:.0f} s: `{last}`"


def doctor_section(found):
    """The computer."""
    return ["## The computer", "", "```", found["output"], "```", ""]


def tests_section(found):
    """Tests on the device."""
    return ["## Tests", "", f"`pytest -m gpu`: {verdict(found)}", ""]


def sanitizer_section(found):
    """What compute-sanitizer says."""
    lines = [f"* `{tool}`: {verdict(one)}" for tool, one in found.items()]
    return ["## compute-sanitizer, on the shapes of the tests", "", *lines, ""]


def bits_section(found):
    """How equal 200 updates are."""
    lines = ["## 200 updates, against the plan", "", f"`igcnn train {found['options']}`", ""]
    for name, one in found["ways"].items():
        if "difference" not in one:
            lines.append(f"* {name}: {verdict(one)}")
            continue
        equal = "equal to the bit" if one["equal bits"] else f"differs by {one['difference']:.1e}"
        lines.append(f"* {name}: {equal}")
    return [*lines, "", "The difference is the norm of that of all weights over theirs.", ""]


def cache_section(found):
    """What two starts compile."""
    told = [
        f"* start {number}: {one['seconds']:.1f} s, {one['files']} compiled files in all"
        + ("" if one["rc"] == 0 else f", {verdict(one)}")
        for number, one in enumerate(found, 1)
    ]
    return ["## Starting", "", *told, ""]


def speed_section(found):
    """Updates and evaluation beside PyTorch."""
    lines = ["## Beside PyTorch", ""]
    lines += [] if found["rc"] == 0 else [verdict(found), ""]
    path = RESULTS / "gpu.json"
    if not path.exists():
        return lines
    result = json.loads(path.read_text())
    lines += [f"{result['gpu']}, PyTorch {result['torch']}, CuPy {result['cupy']}.", ""]
    for what in ("update", "evaluate"):
        lines += [
            f"### {what}: images per second, and time over igcnn's plan",
            "",
            "| network | batch | arithmetic | " + " | ".join(ENGINES) + " |",
            "|" + "---|" * (3 + len(ENGINES)),
        ]
        for case, batches in result["cases"].items():
            for batch, modes in batches.items():
                for mode, entry in modes.items():
                    cells = [engine_cell(entry, what, int(batch), name) for name in ENGINES]
                    lines.append(f"| {case} | {batch} | {mode} | {' | '.join(cells)} |")
        lines.append("")
    entries = [
        (f"{case}, batch {batch}, {mode}", entry)
        for case, batches in result["cases"].items()
        for batch, modes in batches.items()
        for mode, entry in modes.items()
    ]
    lines += [
        f"* {what}: {entry['of limit']:.0%} of the limit of an H200"
        for what, entry in entries
        if entry and "of limit" in entry
    ]
    return [*lines, ""]


def engine_cell(entry, what, batch, name):
    """Return images per second, and the time over the plan's; empty where not measured."""
    seconds = entry and entry[what]["seconds"].get(name)
    if not seconds:
        return ""
    ratio = "" if name == "plan" else f" ({entry[what]['time / plan'][name]:.2f})"
    return f"{batch / median(seconds):,.0f}{ratio}"


def kernels_section(found):
    """Every kernel of an update."""
    lines = ["## Kernels", ""]
    for precision, one in found.items():
        name = "gpu_kernels" if precision == "fp32" else "gpu_kernels_bf16"
        path = RESULTS / f"{name}.json"
        if one["rc"] or not path.exists():
            lines += [f"{precision}: {verdict(one)}", ""]
            continue
        for case, entry in json.loads(path.read_text())["cases"].items():
            lines += [
                f"### {case}, {precision}: {entry['step_us']:.0f} µs, idle {entry['idle']:.1%}",
                "",
                "| kernel | launches | µs | share | GB/s | TFLOP/s | of its limit |",
                "|---|---|---|---|---|---|---|",
            ]
            rows = sorted(entry["rows"].items(), key=lambda item: -item[1]["us"])
            for kernel, row in rows:
                rate, arithmetic = (row[k] / row["us"] for k in ("bytes", "flops"))
                lines.append(
                    f"| `{kernel}` | {row['launches']} | {row['us']:.1f} | {row['share']:.1%} | "
                    f"{rate / 1e3:.0f} | {arithmetic / 1e6:.2f} | {row['of limit']:.0%} |"
                )
            lines.append("")
    return lines


def training_section(found):
    """CIFAR-10 by the paper's recipe."""
    lines = [
        "## CIFAR-10 by the paper's recipe",
        "",
        "| network | epochs | test top-1 after the last | seconds |",
        "|---|---|---|---|",
    ]
    for name, one in found.items():
        last = one.get("last")
        if one["rc"] or not last:
            lines.append(f"| {name} | | {verdict(one)} | |")
            continue
        accuracy = f"{100 * float(last['test_top1']):.2f} %"
        lines.append(f"| {name} | {one['epochs']} | {accuracy} | {one['seconds']:,.0f} |")
    return [
        *lines,
        "",
        "The paper's figures: `igcnn reproduce`, with `--runs runs/gpu-report`.",
        "",
    ]


SECTIONS = {
    "doctor": doctor_section,
    "tests": tests_section,
    "sanitizer": sanitizer_section,
    "bits": bits_section,
    "cache": cache_section,
    "speed": speed_section,
    "kernels": kernels_section,
    "training": training_section,
}
