"""The page of gpu_report.py, and its table, from what the parts have found."""

import json
from statistics import median

NOTHING = (
    "Nothing yet. `python benchmarks/gpu_report.py` on a computer with a GPU writes this page.\n"
)
ENGINES = ("plan", "tape", "eager", "channels-last", "CUDA graph", "compiled graph")
PARTS = "environment kernels updates speed profile cuts tests sanitizer training".split()
TITLES = {
    "environment": "The computer",
    "kernels": "Every kernel, once",
    "updates": "Six updates",
    "speed": "Beside PyTorch",
    "profile": "Kernels",
    "cuts": "The fused kernels cut anew",
    "tests": "Tests: `pytest -m gpu`",
    "sanitizer": "compute-sanitizer",
    "training": "CIFAR-10 by the paper's recipe",
}


def read(results):
    """Return how each part that ran ended, and what it found: {name: (ended, found)}."""
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
    lines += ["Made by `benchmarks/gpu_report.py`; what is not here was not measured.", ""]
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
    how = {None: "cut off at its limit", 0: "done"}.get(ended["rc"], f"exit code {ended['rc']}")
    return f"{how}, after {ended['seconds']:.0f} s of {ended['limit']:.0f}"


def environment_section(found):
    """The computer."""
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
    """How many cases are correct, and which are not."""
    cases = found.get("cases", {})
    wrong = {name: one for name, one in cases.items() if not one.get("correct")}
    lines = [
        f"{len(cases) - len(wrong)} of {len(cases)} cases as NumPy's, all compiled and run in "
        f"{found.get('seconds', 0):.1f} s by {found.get('threads', 0)} threads"
    ]
    return lines + [f"* {name}: {one['error']}" for name, one in wrong.items()]


def updates_section(found):
    """How equal six updates are."""
    lines = []
    for name, one in found.items():
        equal = "equal to the bit" if one["equal bits"] else f"differs by {one['difference']:.1e}"
        lines.append(f"* {name}: {equal}; losses {one['losses'][0]:.4f} … {one['losses'][-1]:.4f}")
    return lines


def speed_section(found):
    """Updates and evaluation beside PyTorch: images a second, and the time over the plan's."""
    lines = []
    for what in ("update", "evaluate"):
        rows = []
        for case, batches in found.get("cases", {}).items():
            for batch, modes in batches.items():
                for mode, groups in modes.items():
                    cells = [speed_cell(groups, what, int(batch), name) for name in ENGINES]
                    rows.append(f"| {case} | {batch} | {mode} | {' | '.join(cells)} |")
        if rows:
            lines += [
                f"| {what}, images a second | batch | arithmetic | {' | '.join(ENGINES)} |",
                "|---" * (3 + len(ENGINES)) + "|",
                *rows,
                "",
            ]
    limits = [
        f"* {case}, batch {batch}: {groups['rivals']['of limit']:.0%} of an H200's limit"
        for case, batches in found.get("cases", {}).items()
        for batch, modes in batches.items()
        for groups in modes.values()
        if (groups.get("rivals") or {}).get("of limit")
    ]
    return lines + limits


def speed_cell(groups, what, batch, name):
    """Return images per second, and the time over the plan's; empty where not measured."""
    for entry in groups.values():
        if entry and name in entry[what]["seconds"]:
            ratio = "" if name == "plan" else f" ({entry[what]['time / plan'][name]:.2f})"
            return f"{batch / median(entry[what]['seconds'][name]):,.0f}{ratio}"
    return ""


def profile_section(found):
    """Every kernel of an update, and the versions of the fused ones."""
    lines = []
    if "copy_bytes_per_second" in found:
        lines.append(f"a copy: {found['copy_bytes_per_second'] / 1e12:.2f} TB/s")
    for case, entry in found.get("cases", {}).items():
        lines += [
            "",
            f"{case}: {entry['step_us']:.0f} µs, idle {entry['idle']:.1%}",
            "",
            "| kernel | launches | µs | share | GB/s | TFLOP/s | of its limit |",
            "|---|---|---|---|---|---|---|",
        ]
        for kernel, row in sorted(entry["rows"].items(), key=lambda item: -item[1]["us"]):
            rate, arithmetic = (row[k] / row["us"] for k in ("bytes", "flops"))
            lines.append(
                f"| `{kernel}` | {row['launches']} | {row['us']:.1f} | {row['share']:.1%} | "
                f"{rate / 1e3:.0f} | {arithmetic / 1e6:.2f} | {row['of limit']:.0%} |"
            )
    if "versions" in found:
        lines += ["", "| the fused kernels, µs of 64 images | v1, the formula | v2, shipped |"]
        lines += ["|---|---|---|"]
    for stage, kernels in found.get("versions", {}).items():
        for kernel, us in kernels.items():
            lines.append(f"| `{kernel}`, {stage} | {us['v1']:.1f} | {us['v2']:.1f} |")
    return lines


def cuts_section(found):
    """The fastest cut of v3 beside v2."""
    lines = ["| µs of a launch | v2, shipped | v3 | its cut |", "|---|---|---|---|"]
    for stage, kernels in found.get("cuts", {}).items():
        for kernel, times in kernels.items():
            cuts = {cut: us for cut, us in times.items() if cut != "v2"}
            best = min(cuts, key=cuts.get)
            name = f"`igc_{kernel}`, {stage}"
            lines.append(f"| {name} | {times['v2']:.1f} | {cuts[best]:.1f} | {best or 'plain'} |")
    return lines


def tests_section(found):
    """Nothing beside how they ended."""
    return []


def sanitizer_section(found):
    """What each check says."""
    if "missing" in found:
        return [f"not run: {found['missing']}"]
    return [
        f"* {check}: {'nothing found' if one['rc'] == 0 else 'FAILED'} in {one['seconds']:.0f} s"
        for check, one in found.items()
    ]


def training_section(found):
    """How far it came, and the test error."""
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
