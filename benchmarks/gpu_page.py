"""Write the page of gpu_report.py and its summary from the results of the parts."""

import json
from statistics import median

NOTHING = (
    "No measurements yet. Run `python benchmarks/gpu_report.py` on a computer with a GPU to write "
    "this page.\n"
)
ENGINES = ("plan", "tape", "eager", "channels-last", "CUDA graph", "compiled graph")
PARTS = "environment kernels updates speed profile cuts tests sanitizer training".split()
TITLES = {
    "environment": "Machine",
    "kernels": "Kernel correctness",
    "updates": "Reproducibility",
    "speed": "Speed compared with PyTorch",
    "profile": "Time per kernel",
    "cuts": "Tile sizes of the fused kernels",
    "tests": "Tests: `pytest -m gpu`",
    "sanitizer": "compute-sanitizer",
    "training": "CIFAR-10 with the recipe of the paper",
}


def read(results):
    """Return exit status and results of each part that ran: {name: (ended, found)}."""
    return {
        name: (_json(results / f"{name}.json"), _json(results / f"{name}.found.json"))
        for name in PARTS
        if (results / f"{name}.json").exists()
    }


def _json(path):
    return json.loads(path.read_text()) if path.exists() else {}


def page(results):
    """Return docs/gpu_measured.md from the files in the folder `results`."""
    parts = read(results)
    lines = ["# Measured on a GPU", ""]
    if not parts:
        return "\n".join([*lines, NOTHING])
    lines += [
        "Written by `benchmarks/gpu_report.py` ([how to run it](gpu.md#measure-your-own-gpu)). "
        "Parts that are missing here were not measured.",
        "",
    ]
    for name, (ended, found) in parts.items():
        lines += [f"## {TITLES[name]}", "", f"{verdict(ended)}", "", *SECTIONS[name](found), ""]
        if ended["rc"]:
            lines += ["```", *ended["output"].splitlines()[-12:], "```", ""]
    return "\n".join(lines)


def summary(results):
    """Return one table of all parts, at most 60 lines."""
    lines = []
    for name, (ended, found) in read(results).items():
        lines.append(f"{name:12} {verdict(ended)}")
        told = [line for line in SECTIONS[name](found) if line and not line.startswith("|--")]
        lines += [f"    {line[:108]}" for line in told[:6]]
    return "\n".join(lines[:60])


def verdict(ended):
    """Return in a few words how a part ended."""
    if ended["rc"] is None:
        return f"stopped at its time limit of {ended['limit']:.0f} s"
    how = "completed in" if ended["rc"] == 0 else f"exit code {ended['rc']} after"
    return f"{how} {ended['seconds']:.0f} s (limit {ended['limit']:.0f} s)"


def environment_section(found):
    """GPU, driver, packages and programs."""
    if not found:
        return []
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return [
        f"{found['gpu']}, driver {found['driver']}, CUDA {found['runtime']}, "
        f"{found['memory_bytes'] / 2**30:.0f} GiB",
        f"Python {found['python']}, {found['cores']} cores, {packages}; "
        f"programs: {', '.join(found['programs']) or 'none'}",
    ]


def kernels_section(found):
    """Number of correct cases, and the wrong ones."""
    cases = found.get("cases", {})
    wrong = {name: one for name, one in cases.items() if not one.get("correct")}
    lines = [
        f"{len(cases) - len(wrong)} of {len(cases)} cases match NumPy; compiled and run in "
        f"{found.get('seconds', 0):.1f} s on {found.get('threads', 0)} threads"
    ]
    return lines + [f"* {name}: {one['error']}" for name, one in wrong.items()]


def updates_section(found):
    """Differences between the weights after six updates."""
    lines = ["Weights after six updates, compared with those of the first plan:", ""]
    for name, one in found.items():
        equal = "bit-identical"
        if not one["equal bits"]:
            equal = f"relative difference {one['difference']:.1e}"
        lines.append(f"* {name}: {equal}; losses {one['losses'][0]:.4f} … {one['losses'][-1]:.4f}")
    return lines if found else []


def speed_section(found):
    """Updates and evaluation: images per second, and the time divided by that of the plan."""
    lines = ["In parentheses: the time divided by the time of the plan.", ""] if found else []
    for what in ("update", "evaluate"):
        rows = []
        for case, batches in found.get("cases", {}).items():
            for batch, modes in batches.items():
                for mode, groups in modes.items():
                    cells = [speed_cell(groups, what, int(batch), name) for name in ENGINES]
                    rows.append(f"| {case} | {batch} | {mode} | {' | '.join(cells)} |")
        if rows:
            lines += [
                f"| {what}, images/s | batch | arithmetic | {' | '.join(ENGINES)} |",
                "|---" * (3 + len(ENGINES)) + "|",
                *rows,
                "",
            ]
    limits = [
        f"* {case}, batch {batch}: {groups['rivals']['of limit']:.0%} of the limit of an H200"
        for case, batches in found.get("cases", {}).items()
        for batch, modes in batches.items()
        for groups in modes.values()
        if (groups.get("rivals") or {}).get("of limit")
    ]
    return lines + limits


def speed_cell(groups, what, batch, name):
    """Return images/s and the time divided by that of the plan; empty if not measured."""
    for entry in groups.values():
        if entry and name in entry[what]["seconds"]:
            ratio = "" if name == "plan" else f" ({entry[what]['time / plan'][name]:.2f})"
            return f"{batch / median(entry[what]['seconds'][name]):,.0f}{ratio}"
    return ""


def profile_section(found):
    """Every kernel of an update, and the versions of the fused kernels."""
    lines = []
    if "copy_bytes_per_second" in found:
        lines.append(f"Copy bandwidth: {found['copy_bytes_per_second'] / 1e12:.2f} TB/s")
    for case, entry in found.get("cases", {}).items():
        lines += [
            "",
            f"{case}: {entry['step_us']:.0f} µs per update, idle {entry['idle']:.1%}",
            "",
            "| kernel | launches | µs | share | GB/s | TFLOP/s | of limit |",
            "|---|---|---|---|---|---|---|",
        ]
        for kernel, row in sorted(entry["rows"].items(), key=lambda item: -item[1]["us"]):
            rate, arithmetic = (row[k] / row["us"] for k in ("bytes", "flops"))
            lines.append(
                f"| `{kernel}` | {row['launches']} | {row['us']:.1f} | {row['share']:.1%} | "
                f"{rate / 1e3:.0f} | {arithmetic / 1e6:.2f} | {row['of limit']:.0%} |"
            )
    if "versions" in found:
        lines += ["", "| fused kernel, µs for 64 images | v1, reference | v2, shipped |"]
        lines += ["|---|---|---|"]
    for stage, kernels in found.get("versions", {}).items():
        for kernel, us in kernels.items():
            lines.append(f"| `{kernel}`, {stage} | {us['v1']:.1f} | {us['v2']:.1f} |")
    return lines


def cuts_section(found):
    """The fastest tile sizes of v3 compared with v2."""
    lines = ["| µs per launch | v2, shipped | v3, fastest | tile sizes |", "|---|---|---|---|"]
    for stage, kernels in found.get("cuts", {}).items():
        for kernel, times in kernels.items():
            cuts = {cut: us for cut, us in times.items() if cut != "v2"}
            best = min(cuts, key=cuts.get)
            name = f"`igc_{kernel}`, {stage}"
            lines.append(f"| {name} | {times['v2']:.1f} | {cuts[best]:.1f} | {best or 'plain'} |")
    return lines


def tests_section(found):
    """Return nothing; the exit status is enough."""
    return []


def sanitizer_section(found):
    """Result of each check."""
    if "missing" in found:
        return [f"not run: {found['missing']}"]
    return [
        f"* {check}: {'passed' if one['rc'] == 0 else 'FAILED'} in {one['seconds']:.0f} s"
        for check, one in found.items()
    ]


def training_section(found):
    """Number of epochs and test error."""
    if "missing" in found:
        return [f"not run: {found['missing']}"]
    if not found.get("last"):
        return []
    error = 100 - float(found["last"]["test_top1"])
    return [f"after {found['epochs']} epochs: test error {error:.2f} %"]


SECTIONS = {
    "environment": environment_section,
    "kernels": kernels_section,
    "updates": updates_section,
    "speed": speed_section,
    "profile": profile_section,
    "cuts": cuts_section,
    "tests": tests_section,
    "sanitizer": sanitizer_section,
    "training": training_section,
}
