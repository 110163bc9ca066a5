"""CUDA kernels as text: their lines, and what one thread read and wrote on each of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..emulator import Step
from ..kernels.launch import HERE, Followed

SHOWN = 4  # numbers of one array on one line
SHARED = "shared"
HEADS = 'extern "C" __global__', "__device__"  # of kernels and helpers


def kernel_lines(stem: str, kernel: str) -> tuple[int, list[str]]:
    """Return the number of the first line of a kernel or helper in `<stem>.cu`, and its lines.

    The comment above it belongs to it.
    """
    lines = (HERE / f"{stem}.cu").read_text(encoding="utf-8").splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith(HEADS)]
    first = next(i for i in heads if f"{kernel}(" in "".join(lines[i : i + 2]))
    last = next(i for i in range(first, len(lines)) if lines[i].startswith("}"))
    while lines[first - 1].startswith(("//", "template")):
        first -= 1
    return first + 1, lines[first : last + 1]


def annotated(launch: Followed, helper: str | None = None) -> str:
    """Return a kernel's source, below each line what the followed thread did to memory there.

    With the name of a helper that it calls, the source of that.

    What is computed in registers is not seen. On a line that ran often, the first numbers of
    each array are shown, and how many there were.
    """
    first, lines = kernel_lines(launch.stem, helper or launch.kernel)
    numbers = range(first, first + len(lines))
    file_name = Path(f"{launch.stem}.cu").name
    done: dict[int, list[Step]] = {}
    for step in launch.steps:
        own = [line for file, line in step.places if file == file_name]
        # a helper's access belongs to the line that called it, where that is known
        line = next((line for line in own if line in numbers), None)
        if line is not None:
            done.setdefault(line, []).append(step)
    result = []
    for number, text in zip(numbers, lines, strict=True):
        result.append(f"{number:4} {text}")
        indent = " " * (7 + len(text) - len(text.lstrip()))
        result += [f"{indent}{told}" for told in _told(done.get(number, ()), launch.names)]
    return "\n".join(result)


def _told(steps: Iterable[Step], names: tuple[str, ...]) -> list[str]:
    """Return a line for each array that was read or written, and for barriers."""
    groups: dict[str, list[str]] = {}
    for step in steps:
        if step.array is None:
            groups.setdefault("passes the barrier", []).append("")
            continue
        verb = "writes" if step.write else "reads"
        name = SHARED if step.array < 0 else names[step.array]
        place = "" if step.array < 0 else f"{name}[{step.element}] = "
        groups.setdefault(f"{verb} {name}", []).append(f"{place}{step.value:.4g}")
    result = []
    for head, told in groups.items():
        if not told[0]:
            result.append(f"^ {head}{f', {len(told)} times' if len(told) > 1 else ''}")
            continue
        verb, name = head.split()
        shown = ", ".join(told[:SHOWN])
        rest = f", … {len(told)} in all" if len(told) > SHOWN else ""
        result.append(f"^ {verb} {f'{SHARED}: ' if name == SHARED else ''}{shown}{rest}")
    return result
