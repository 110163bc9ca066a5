"""Compiled sums of tensors, batch normalised and rectified."""

import numpy as np
import pytest
from vectors import Ending, every_case, every_ending, without_compiler

pytestmark = without_compiler
SIZES = [(3, 7, 5), (2, 1, 1), (4, 4, 8)]


@every_case
@pytest.mark.parametrize("kinds", [(2,), (2, 0), (2, 2), (0, 2, 0), (2, 0, 2, 2)], ids=str)
@pytest.mark.parametrize("relu", [0, 1, 2])
def test_forward(case, kinds, relu):
    shape = (case.N, 3, 7, 5)
    terms, values = zip(*(case.input(case.normal(*shape), kind) for kind in kinds), strict=True)
    y = case.vectors(shape)
    case.launch(
        "combine",
        "combine_forward",
        case.jobs,
        [y],
        term=terms,
        terms=len(terms),
        y=y,
        relu=relu,
        C=3,
        H=7,
        W=5,
        batch=case.batch,
    )
    expected = sum(values)
    expected = np.clip(expected, 0, np.inf if relu == 1 else 6) if relu else expected
    np.testing.assert_allclose(case.get(y), expected, rtol=0, atol=10 * case.tolerance)


@every_case
def test_nan_is_not_lost(case):
    x = case.normal(case.N, 1, 2, 3)
    x[-1, 0, 1, 1] = np.nan
    term, _ = case.input(x, 2)
    y = case.vectors(x.shape)
    sizes = {"C": 1, "H": 2, "W": 3, "batch": case.batch}
    names = "combine", "combine_forward", case.jobs
    case.launch(*names, [y], term=[term], terms=1, y=y, relu=1, **sizes)
    np.testing.assert_array_equal(np.isnan(case.get(y)), np.isnan(x))


def backward(case, g, written, ending):
    _, C, H, W = ending.shape
    sizes = {"C": C, "H": H, "W": W, "batch": case.batch}
    fields = {"g": written, "from": g, "end": ending.fields}
    outputs = [written, *ending.sums]
    case.launch("combine", "combine_backward", case.jobs, outputs, **fields, **sizes)


@every_case
@every_ending
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(case, size, ending):
    end = Ending(case, (case.N, *size), **ending)
    g = case.normal(*end.shape)
    gx = case.vectors(end.shape)
    none = dict.fromkeys(("z", "scale", "slope", "shift"))
    backward(case, {"kind": 0, "g": case.put(g, 0)} | none, gx, end)
    end.check(gx, g)


@every_case
@every_ending
def test_backward_through_batch_norm(case, ending):
    """The gradient may be that of a batch norm; lanes without image become 0."""
    end = Ending(case, (case.N, 3, 5, 4), **ending)
    g, z = case.normal(2, *end.shape)
    scale, slope, shift = case.normal(3, 3)
    gx = case.vectors(end.shape)
    gradient = {"kind": 1, "g": case.put(g), "z": case.put(z)}
    numbers = {"scale": scale, "slope": slope, "shift": shift}
    gradient |= {name: case.numbers(values) for name, values in numbers.items()}
    backward(case, gradient, gx, end)
    scale, slope, shift = (values[:, None, None] for values in (scale, slope, shift))
    end.check(gx, scale * g + slope * z + shift)


@every_case
@every_ending
def test_backward_in_place(case, ending):
    end = Ending(case, (case.N, 3, 5, 4), **ending)
    g = case.normal(*end.shape)
    gx = case.put(g, 0)
    none = dict.fromkeys(("z", "scale", "slope", "shift"))
    backward(case, {"kind": 0, "g": gx} | none, gx, end)
    end.check(gx, g)


@every_case
def test_backward_into_what_others_have_added(case):
    end = Ending(case, (case.N, 3, 5, 4), other=True, relu=0, norms=1)
    g = case.normal(*end.shape)
    gx = end.fields["other"]
    none = dict.fromkeys(("z", "scale", "slope", "shift"))
    backward(case, {"kind": 0, "g": case.put(g, 0)} | none, gx, end)
    end.check(gx, g)
