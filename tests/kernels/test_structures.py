"""Argument structs of the compiled kernels: what is read from a source, and what is checked."""

import ctypes
import re

import numpy as np
import pytest

from igcnn.backend import to_device
from igcnn.errors import KernelError
from igcnn.kernels.structures import Structures

TEXT = """
struct V { real v[LANES]; };
struct Batch { int blocks; int slices; };
struct Input {
    int kind;               // or null, it says, but a number is no pointer
    const V *x;
    const real *scale;      // or null: a factor of each channel
};
struct Arguments {
    Input input;            // what is read
    V *y, *z;               // [n] of V
    double *sums;           // or null: [2]
    const int *labels;      // never null, or null and void
    real factor;
    double momentum;
    unsigned seed;
    Input term[3];
    Input rest;             // or null
    const unsigned char *pixels;
    Batch batch;
};
KERNEL(kernel, Arguments) { }
"""


def aligned(shape, dtype, offset=0):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 128, np.uint8)
    begin = -raw.ctypes.data % 64 + offset
    return raw[begin : begin + size].view(dtype).reshape(shape)


def good(lanes=16, dtype="float32"):
    x = aligned((2, 3, lanes), dtype)
    scale = np.ones(3, dtype)
    return {
        "input": {"kind": 1, "x": x, "scale": scale},
        "y": aligned((2, lanes), dtype),
        "z": aligned((2, lanes), dtype),
        "sums": None,
        "labels": np.arange(5, dtype=np.int32),
        "factor": 0.5,
        "momentum": 0.9,
        "seed": 2**32 - 1,
        "term": [{"kind": 2, "x": x, "scale": None}],
        "rest": None,
        "pixels": np.zeros(4, np.uint8),
        "batch": {"blocks": 4, "slices": 1},
    }


@pytest.mark.parametrize(("lanes", "dtype"), [(16, "float32"), (8, "float64"), (4, "float64")])
def test_values_arrive(lanes, dtype):
    values = good(lanes, dtype)
    arguments, arrays = Structures(TEXT, "k.cpp", lanes, dtype).fill("kernel", values)
    assert arguments.input.kind == 1
    assert arguments.input.x == values["input"]["x"].ctypes.data
    assert arguments.sums is None
    assert (arguments.factor, arguments.momentum) == (0.5, 0.9)
    assert arguments.seed == 2**32 - 1
    assert [term.kind for term in arguments.term] == [2, 0, 0]
    assert arguments.rest.x is None
    assert arguments.batch.blocks == 4
    assert type(arguments).factor.size == (4 if dtype == "float32" else 8)
    assert len(arrays) == 7


def test_numbers_of_numpy_and_truths_are_taken():
    values = good()
    values["batch"] = {"blocks": np.int64(3), "slices": True}
    values["factor"] = np.float64(2)
    arguments, _ = Structures(TEXT, "k.cpp", 16, "float32").fill("kernel", values)
    assert (arguments.batch.blocks, arguments.batch.slices, arguments.factor) == (3, 1, 2)


def read_only(shape, dtype):
    array = aligned(shape, dtype)
    array.flags.writeable = False
    return array


X = (2, 3, 16)
REFUSED = {
    # what is changed: (path, value, what the message says)
    "an array of another type": ("labels", np.zeros(5, np.int64), "array of int32, not int64"),
    "a wrong element type": ("y", aligned((2, 16), "f8"), "y must be an array of float32"),
    "not in C order": ("y", aligned((16, 16), "f4").T, "is not in C order"),
    "other lanes": ("input.x", aligned((2, 3, 8), "f4"), "input.x .* must have 16 lanes"),
    "no lanes": ("input.x", aligned((), "f4"), "input.x .* must have 16 lanes"),
    "a wrong address": ("z", aligned((2, 16), "f4", 32), "z begins .* not a multiple of 64"),
    "half an element": ("labels", aligned((2,), "i4", 2), "labels begins .* multiple of 4"),
    "read-only": ("y", read_only((2, 16), "f4"), "y is written to, but is read-only"),
    "None": ("labels", None, "labels must be an array, not None"),
    "None for a number": ("factor", None, "factor must be real, not None"),
    "None in a struct": ("input.x", None, "input.x must be an array, not None"),
    "None for a struct": ("input", None, "input must be a dict, not None; Input has kind, x"),
    "a number for an array": ("y", 1.0, "y must be an array, not 1.0"),
    "a number of NumPy": ("y", np.float32(1), "y must be an array, not "),
    "an array for a number": ("factor", np.ones(1, "f4"), "factor must be real, not array"),
    "a fraction for an integer": ("batch.blocks", 1.5, "batch.blocks must be int, not 1.5"),
    "too large": ("batch.blocks", 2**31, "batch.blocks must be int"),
    "negative": ("seed", -1, "seed must be unsigned, not -1"),
    "a list that is too long": ("term", [{}] * 4, "term must be a list of up to 3"),
    "no list": ("term", {}, "term must be a list of up to 3, not {}"),
    "a field in a list": ("term", [{"kind": 1}], r"missing term\[0\].scale, term\[0\].x; Input"),
    "an unknown field": ("batch.size", 1, "unknown batch.size; Batch has blocks, slices"),
    "unknown fields": ("size", 1, "unknown size; Arguments has input, y, z"),
    "on the emulator": ("y", to_device(np.zeros((2, 16), "f4"), "emu"), "y is on emu, not"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_struct_does_not_say_is_refused(name):
    path, value, message = REFUSED[name]
    values = good()
    *outer, last = path.split(".")
    target = values
    for key in outer:
        target = target[key]
    target[last] = value
    with pytest.raises(KernelError, match=f"^kernel: .*{message}") as caught:
        Structures(TEXT, "k.cpp", 16, "float32").fill("kernel", values)
    assert "\n" not in str(caught.value).replace(repr(value), "")


@pytest.mark.parametrize("field", [*good(), "batch.slices", "input.scale"])
def test_no_field_may_be_missing(field):
    values = good()
    *outer, last = field.split(".")
    del (values[outer[0]] if outer else values)[last]
    with pytest.raises(KernelError, match=rf"^kernel: missing {re.escape(field)}; \w+ has "):
        Structures(TEXT, "k.cpp", 16, "float32").fill("kernel", values)


def test_an_array_may_be_read_only_where_it_is_only_read():
    values = good()
    values["input"]["x"] = read_only(X, "f4")
    Structures(TEXT, "k.cpp", 16, "float32").fill("kernel", values)


@pytest.mark.parametrize(
    "field",
    ["V x;", "V **x;", "float x[3], *y[3];", "std::size_t n;", "Unknown u;", "Input *x;", "int"],
)
def test_a_field_that_is_not_understood_is_refused(field):
    text = f"struct Input {{ int n; }};\nstruct A {{\n    {field}\n}};\nKERNEL(k, A) {{ }}\n"
    with pytest.raises(KernelError, match=r"^k.cpp: struct A: cannot read field `"):
        Structures(text, "k.cpp", 16, "float32").fill("k", {})


def test_unknown_names_are_refused():
    structures = Structures("KERNEL(k, A) { }", "k.cpp", 16, "float32")
    with pytest.raises(KernelError, match=r"^k.cpp has no kernel absent$"):
        structures.fill("absent", {})
    with pytest.raises(KernelError, match=r"^k.cpp has no struct A$"):
        structures.fill("k", {})


def test_the_compiler_is_asked_for_the_same_layout():
    structures = Structures(TEXT, "k.cpp", 16, "float32")
    text = structures.assertions()
    size = ctypes.sizeof(structures.structure("Arguments"))
    assert f'static_assert(sizeof(Arguments) == {size}, "layout");' in text
    assert 'static_assert(offsetof(Input, x) == 8, "layout");' in text
