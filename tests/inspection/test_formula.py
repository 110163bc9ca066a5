"""The notation of the sources becomes the LaTeX that one would write by hand."""

import re

import pytest

pytest.importorskip("latex2mathml")

from igcnn.inspection.page.formula import formulas, to_latex, to_mathml

BY_HAND = {
    "y = max(x, 0)": r"y = \max (x, 0)",
    "W^d · Pᵀ": r"W^d \cdot P^{\mathsf{T}}",
    "x̂ = (x − μ) / √(σ² + ε)": r"\hat{x} = (x - μ) / \sqrt{σ^2 + ε}",
    "y[n, i·s + a] = Σ_{a, b} w[o, a]": r"y_{n, i\cdot s + a} = \sum _{a, b} w_{o, a}",
    "gx[n] = gy · w": r"\frac{\partial \ell}{\partial x_{n}} = "
    r"\frac{\partial \ell}{\partial y} \cdot w",
    "(gy)ᵀ": r"\left(\frac{\partial \ell}{\partial y}\right)^{\mathsf{T}}",
    "log softmax(z)[n, k]": r"\log\,\text{softmax}(z)_{n, k}",
    "[y > 0]": "[y > 0]",  # no index: a condition
    "d = g        η_min": r"d = g \qquad η_{\min }",
    "c mod b": r"c \bmod b",
    "[it is in window (i, j)]": r"[\text{ it is in window } (i, j)]",
    r"a \ge b_{m}, \qquad W^d_m[l]": r"a \ge b_{m}, \qquad W^d_m[l]",  # LaTeX stays
    r"\left( \frac{a}{b} \right)": r"\left( \frac{a}{b} \right)",
}


@pytest.mark.parametrize("formula", BY_HAND)
def test_notation(formula):
    assert re.sub(" +", " ", to_latex(formula)) == re.sub(" +", " ", BY_HAND[formula])


def test_mathml_in_a_line_of_its_own_and_in_a_text():
    assert 'display="block"' in to_mathml("y = 1")
    assert 'display="inline"' in to_mathml("y = 1", display=False)
    assert "<msqrt>" in to_mathml("√(x)")


def test_formulas_of_a_docstring():
    assert formulas("relu", backward=False) == ["y = max(x, 0)"]
    assert formulas("relu", backward=True) == ["gx = gy · [y > 0]"]
    forward = formulas("pooling", backward=False)
    assert [formulas("pooling", False, block) for block in range(3)] == [[f] for f in forward]
    assert formulas("interleaved_product", backward=False)[0].startswith("y = P_K · W_K")
