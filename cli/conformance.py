"""`igcnn conformance`: does a library compute convolutions right?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .dataset import Progress
from .options import FILE, Value

if TYPE_CHECKING:
    from igcnn.conformance import Report

NAMES = "numpy", "compiled", "emu", "cuda", "torch", "onnxruntime", "cupy"


@click.command("conformance")
@click.option(
    "--library",
    "names",
    multiple=True,
    metavar="NAME",
    type=Value(lambda: NAMES),
    help=f"{', '.join(NAMES)}, or MODULE:FUNCTION; can be repeated. igcnn's own by default.",
)
@click.option("--all", "everything", is_flag=True, help="Check all combinations; takes minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON list.")
@click.option("-o", "--output", metavar="FILE", type=FILE, help="Write the report as HTML.")
def conformance_command(
    names: tuple[str, ...], everything: bool, as_json: bool, output: str | None
) -> None:
    """Compare a library's results with loops in float64.

    Convolutions over groups, kernels, strides, paddings and memory orders with all their
    gradients, channel permutation, interleaved group convolution, batch normalization, pooling
    and cross-entropy. Prints the smallest failing case for each kind of wrong result. Exit code
    1 if any result is wrong.

    \b
    igcnn conformance
    igcnn conformance --library torch --library onnxruntime
    igcnn conformance --library my_ops:results -o a.html
    """
    from igcnn.conformance import all_cases, check, fast_cases, find_library, render
    from igcnn.conformance.libraries import own_libraries
    from igcnn.errors import ConfigError, ConformanceError
    from igcnn.files import write_atomically

    libraries = [find_library(name) for name in names or own_libraries()]
    cases = all_cases() if everything else fast_cases()
    progress = Progress("cases", at_once=False)
    reports = []
    for library in libraries:

        def show(done: int, name: str = library.name) -> None:
            progress(name, done, len(cases))

        reports.append(check(library, cases, show))
    if output:
        try:
            write_atomically(Path(output), render(reports).encode())
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"cannot write {output}: {reason}; choose another -o") from error
    if as_json:
        click.echo(json.dumps([report.to_json() for report in reports]))
    else:
        _print(reports)
    wrong = {report.library: len(report.differences) for report in reports if report.differences}
    if wrong:
        counts = ", ".join(f"{count} of {name}" for name, count in wrong.items())
        raise ConformanceError(f"conformance: results are wrong: {counts}; see the cases above")


def _print(reports: list[Report]) -> None:
    from igcnn.text import table_lines

    head = "library", "version", "cases", "results", "wrong", "not offered", "seconds"
    rows: list[tuple[str, ...]] = [head]
    for report in reports:
        counts = report.cases, report.compared.total(), report.wrong(), report.absent.total()
        numbers = (f"{count:,}" for count in counts)
        rows.append((report.library, report.version, *numbers, f"{report.seconds:.1f}"))
    for line in table_lines(rows, (False, False, *[True] * 5)):
        click.echo(line)
    for report in reports:
        for difference in report.smallest.values():
            click.echo(f"{report.library}: {difference}")
