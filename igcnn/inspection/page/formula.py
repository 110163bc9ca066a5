"""Formulas, from the notation of the sources to MathML, for the page and the documentation.

The formula of an operation stands once: in the docstring of its module, indented, in Unicode, with
indices in brackets and ∂loss/∂x as gx, as the code has them. Lines that begin with a gradient are
those of the backward pass. LaTeX is understood too, alone or in between.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from latex2mathml.converter import convert

PACKAGE = Path(__file__).parents[2]
SIGNS = {
    "x̂": r"\hat{x}",
    "z̄": r"\bar{z}",
    "Σ": r"\sum ",
    "·": r"\cdot ",
    "−": "-",
    "²": "^2",
    "³": "^3",
    "ᵀ": r"^{\mathsf{T}}",
    "←": r"\leftarrow ",
    "∂": r"\partial ",
    "ℓ": r"\ell ",
    "½": r"\frac{1}{2} ",
    "⌊": r"\left\lfloor ",
    "⌋": r"\right\rfloor ",
    "∗": r"\ast ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "…": r"\ldots ",
}
WORDS = {name: rf"\{name}\," for name in ("cos", "exp", "log")}
WORDS |= {"max": r"\max ", "min": r"\min "}
WORDS |= {"loss": r"\ell ", "mod": r"\bmod ", "div": r"\operatorname{div} ", "or": r"\text{ or }"}
GRADIENT = r"\\frac{\\partial \\ell}{\\partial \1}"
RULES = (
    (r" {3,}", r" \\qquad "),
    (r"√\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<=[\w)])(?<!_\w)\[([^\[\]]*)\]", r"_{\1}"),  # indices
    (r"_([A-Za-z]{2,})", r"_{\1}"),
    (r"(?<!\\)\bg((?:x̂|[A-Za-zβγ])(?:\^\w)?(?:_\w|_\{[^{}]*\})?)(?![A-Za-z])", GRADIENT),
)
STRETCH = (r"(?<!\\left)\(", r"\\left("), (r"(?<!\\right)\)", r"\\right)")
COMMAND = r"\\(?:text|operatorname|mathsf|mathrm)\{[^{}]*\}|\\[A-Za-z]+"


def to_latex(formula: str) -> str:
    """Return the LaTeX of a formula in the notation of the sources, or in LaTeX."""
    for pattern, replacement in RULES:
        formula = re.sub(pattern, replacement, formula)
    for pattern, replacement in STRETCH if r"\frac" in formula else ():
        formula = re.sub(pattern, replacement, formula)
    formula = re.sub(rf"{COMMAND}|[A-Za-z]{{2,}}(?: [A-Za-z]{{2,}})*", _word, formula)
    for sign, latex in SIGNS.items():
        formula = formula.replace(sign, latex)
    return formula


def to_mathml(formula: str, display: bool = True) -> str:
    """Return a formula as MathML, in a line of its own or within a text."""
    return convert(to_latex(formula), display="block" if display else "inline")


def formulas(stem: str, backward: bool, block: int | None = None) -> list[str]:
    """Return the formulas in the docstring of an operation's module.

    Args:
        stem: of the module, in `kernels/` or else in `layers/`.
        backward: those of the gradients; else the others.
        block: of which indented block, from 0; of all by default.
    """
    paths = (PACKAGE / folder / f"{stem}.py" for folder in ("kernels", "layers"))
    source = next(path for path in paths if path.exists()).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    blocks = re.findall(r"(?:^    .*\n?)+", docstring, re.MULTILINE)
    lines = "".join(blocks if block is None else blocks[block]).splitlines()
    found = [line.strip() for line in lines]
    return [line for line in found if bool(re.match(r"g\w", line)) == backward]


def _word(found: re.Match[str]) -> str:
    """Return a LaTeX command as it is, and words as text, with spaces where they are several."""
    text = found[0]
    if text.startswith("\\"):
        return text
    if " " not in text:
        return WORDS.get(text, rf"\text{{{text}}}")
    first, _, rest = text.partition(" ")
    return WORDS[first] + to_latex(rest) if first in WORDS else rf"\text{{ {text} }}"
