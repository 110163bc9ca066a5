"""The report as one HTML file, without script and without a request."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .check import Report

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8886; text-align: right }
th:first-child, td:first-child { text-align: left }
.wrong { color: #c00; font-weight: bold }
@media (prefers-color-scheme: dark) { .wrong { color: #f77 } }
"""


def render(reports: Sequence[Report]) -> str:
    """Return the page, HTML, of the reports of one run."""
    parts = ["<h1>Conformance</h1>", "<p>Results compared with loops in float64.</p>"]
    head = "library", "version", "cases", "results", "wrong", "not offered", "seconds"
    rows: list[tuple[str, ...]] = []
    for report in reports:
        compared, absent = report.compared.total(), report.absent.total()
        numbers = f"{report.cases}", f"{compared}", f"{report.wrong()}", f"{absent}"
        rows.append((report.library, report.version, *numbers, f"{report.seconds:.1f}"))
    parts.append(_table(head, rows, wrong=4))
    for report in reports:
        parts.append(f"<h2>{escape(report.library)}</h2>")
        columns = "result", "compared", "wrong", "not offered", "largest error / tolerance"
        lines = []
        for op, output in sorted(report.compared | report.absent):
            key = op, output
            worst = f"{report.worst[key]:.3f}" if key in report.worst else "–"
            counts = report.compared[key], report.wrong(key), report.absent[key]
            lines.append((f"{op} {output}", *map(str, counts), worst))
        parts.append(_table(columns, lines, wrong=2))
        if report.differences:
            parts.append("<p>The smallest case of each kind of wrong result:</p><ul>")
            parts += [f"<li>{escape(str(d))}</li>" for d in report.smallest.values()]
            parts.append("</ul>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Conformance</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], wrong: int) -> str:
    """Return a table; numbers other than 0 in column `wrong` are marked."""
    lines = ["<div><table><thead><tr>"]
    lines += [f'<th scope="col">{escape(cell)}</th>' for cell in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        cells = [
            f'<td class="wrong">{escape(cell)}</td>'
            if column == wrong and cell != "0"
            else f"<td>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])
