"""Signatures of the CUDA kernels: what is read from them, and which arrays have their shapes."""

import math
import re
from itertools import combinations, pairwise, product

import pytest

from igcnn.errors import KernelError
from igcnn.kernels.launch import HERE, defines_of, signatures
from igcnn.kernels.signature import fits, parse

STEMS = sorted(path.stem for path in HERE.glob("*.cu"))


def heads(stem):
    """Return the lines of each signature of a source, by kernel."""
    text = (HERE / f"{stem}.cu").read_text()
    found = re.findall(r'^extern "C".*\n(\w+)(\((?:.*\n)*?.*\) \{)$', text, re.MULTILINE)
    return {kernel: lines.splitlines() for kernel, lines in found}


def test_every_pointer_declares_its_shape():
    violators = [
        (stem, kernel, line.strip())
        for stem in STEMS
        for kernel, lines in heads(stem).items()
        for line in lines
        if "*" in line.partition("//")[0]
        and not re.search(r"\w,?\s+// (or null: )?(\[[^\]]+\])+(, .*)?$", line)
    ]
    assert not violators
    assert sum(len(heads(stem)) for stem in STEMS) == sum(len(signatures(stem)) for stem in STEMS)


def test_what_a_shape_names():
    """A misspelt name would stand for any length; few arrays have any shape."""
    free, of_any_shape = {}, set()
    for stem in STEMS:
        for kernel, parameters in signatures(stem).items():
            known = {p.name for p in parameters if p.type == "int" and not p.is_array}
            known |= {*defines_of(stem), "gridDim.x", "gridDim.y"}
            for parameter in parameters:
                if not parameter.is_array:
                    continue
                if parameter.shape is None:
                    of_any_shape.add((kernel, parameter.name))
                    continue
                names = set(re.findall(r"[A-Za-z_][\w.]*", parameter.shape.text)) - known
                if names:
                    free.setdefault(kernel, set()).update(names)
    assert of_any_shape == {("sum_partials", "partials"), ("sum_partials", "sums")}
    assert free == {
        "norm_coefficients": {"C"},
        "stem_v2": {"N"},
        "igc_forward_v2": {"N"},
        "igc_backward_input_v2": {"N"},
        "igc_forward_v3": {"N", "slots"},
        "igc_backward_input_v3": {"N"},
    }


SOURCE = """
extern "C" __global__ void __launch_bounds__(256, 1)
k(const stored *__restrict__ x,  // [N][C/groups*2][9], (as, it is) read
  real *y,                       // or null: [gridDim.x][3]
  unsigned *flags,               // [...]
  int N, int C, int groups, real eps) {
}
"""


def test_a_signature_is_read():
    x, y, flags, *numbers = parse(SOURCE)["k"]
    assert [(p.name, p.type) for p in (x, y, flags)] == [
        ("x", "stored"),
        ("y", "real"),
        ("flags", "unsigned"),
    ]
    assert [p.name for p in numbers] == ["N", "C", "groups", "eps"]
    assert [p.is_constant for p in (x, y, flags)] == [True, False, False]
    assert [p.optional for p in (x, y, flags)] == [False, True, False]
    assert x.shape.lengths({"N": 5, "C": 6, "groups": 3}) == (5, 4, 9)
    assert x.shape.lengths({"N": 5, "C": 6}) is None
    assert y.shape.text == "[gridDim.x][3]"
    assert flags.shape is None


@pytest.mark.parametrize("comment", ["", "// of C numbers", "// [C-1]", "// [C][]", "// [C D]"])
def test_a_shape_that_cannot_be_read_is_refused(comment):
    text = SOURCE.replace("// or null: [gridDim.x][3]", comment)
    with pytest.raises(KernelError, match=r"k: cannot read the shape of y in `.*`; write it"):
        parse(text)


def merged(shape, count):
    """Yield every shape of `count` dimensions that adjacent axes make, those of 1 left out."""
    axes = [length for length in shape if length != 1]
    for cuts in combinations(range(1, len(axes)), count - 1) if count else ():
        ends = (0, *cuts, len(axes))
        yield tuple(math.prod(axes[a:b]) for a, b in pairwise(ends))


def test_an_array_fits_if_adjacent_axes_make_the_dimensions():
    shapes = [shape for rank in range(4) for shape in product((0, 1, 2, 3, 4, 6), repeat=rank)]
    for shape, lengths in product(shapes, shapes):
        wanted = tuple(length for length in lengths if length != 1)
        if 0 in shape:
            expected = 0 in lengths
        elif not wanted:
            expected = math.prod(shape) == 1
        else:
            expected = wanted in merged(shape, len(wanted))
        assert fits(shape, lengths) == expected, (shape, lengths)
