"""What a launch of a CUDA kernel refuses: names, types, shapes and memory of its arguments."""

from dataclasses import replace

import numpy as np
import pytest

from igcnn.backend import to_device
from igcnn.errors import DeviceError, KernelError
from igcnn.kernels.combine import NO_RELU, DeviceNorm, launch_combine_sums, launch_norm
from igcnn.kernels.convolution import launch_convolution_formula
from igcnn.kernels.interleaved_group_convolution import fused_unit, launch_igc_forward
from igcnn.kernels.launch import launch
from igcnn.kernels.linear import launch_linear_backward_input
from igcnn.kernels.relu import relu_forward


def emu(*shape, dtype="float32"):
    return to_device(np.zeros(shape, dtype), "emu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": None}, r"^relu_forward: missing argument n; it takes x, y, n$"),
        ({"m": 4}, r"^relu_forward: unknown argument m; it takes x, y, n$"),
        (
            {"y": None, "Y": emu(4)},
            "^relu_forward: missing argument y and unknown argument Y; it takes x, y, n$",
        ),
        ({"y": emu(4, dtype="float64")}, "y must be an array of float32, not float64"),
        (
            {"x": emu(4, dtype="int32")},
            "x must be an array of float32 or float64 or uint16, not int32",
        ),
        ({"y": emu(8)[::2]}, r"y of shape \(4,\) is not in C order"),
        ({"y": np.zeros(4, "f4")}, "y lives on the CPU"),
        ({"n": 4.5}, "n must be int, not 4.5"),
        ({"n": 2**31}, "n must be int, not 2147483648"),
        ({"y": 3}, "y must be an array, not 3"),
    ],
)
def test_an_argument_that_does_not_fit_the_signature_is_refused(change, message):
    arguments = {"x": emu(4), "y": emu(4), "n": 4} | change
    arguments = {name: value for name, value in arguments.items() if value is not None}
    with pytest.raises(KernelError, match=message):
        launch("relu", "relu_forward", 1, 32, **arguments)


def test_none_is_taken_only_where_the_signature_allows_it():
    with pytest.raises(KernelError, match="relu_forward: y must be an array, not None"):
        launch("relu", "relu_forward", 1, 32, x=emu(4), y=None, n=4)


@pytest.mark.parametrize(
    ("defines", "message"),
    [
        ({}, "^sum_partials: missing define VEC; it takes VEC$"),
        ({"VEC": 4, "TILE": 1}, "^sum_partials: unknown define TILE; it takes VEC$"),
        # an argument is no define, nor both
        ({"VEC": 4, "table": 1}, "^sum_partials: unknown define table; it takes VEC$"),
    ],
)
def test_a_launch_gives_the_defines_that_the_source_leaves_open(defines, message):
    arrays = {"partials": emu(8), "sums": emu(4), "table": emu(1, 4, dtype="int32")}
    with pytest.raises(KernelError, match=message):
        launch("sum_partials", "sum_partials", 1, 256, defines=defines, **arrays)


def test_a_source_without_defines_takes_none():
    with pytest.raises(KernelError, match="relu_forward: unknown define n; it takes none"):
        launch("relu", "relu_forward", 1, 32, defines={"n": 4}, x=emu(4), y=emu(4), n=4)


def device_norm(C):
    return DeviceNorm(*(emu(C) for _ in range(10)), emu(C, 3), emu(C, dtype="uint32"), 0.9, 1e-5)


def swapped_coefficients():
    C, x = 4, emu(2, 4, 3, 3)
    norm = device_norm(C)
    norm = replace(norm, mean=norm.coefficients, coefficients=norm.mean)
    launch_combine_sums(x, x, x, norm, emu(C, 1, 2), NO_RELU, x)


def swapped_weights():
    unit = fused_unit((12, 8, 8), (12, 4, 3, 3), ((1, 1), (1, 1), 3), 4, 227 << 10)
    x, w1, w2 = emu(2, 12, 8, 8), emu(12, 4, 3, 3), emu(12, 3, 1, 1)
    launch_igc_forward(unit, x, None, w2, w1, emu(2, 12, 8, 8), emu(12, unit.blocks(2), 3))


def too_few_parts():
    sizes = {"N": 2, "C": 4, "pixels": 9}
    x, partial = emu(2, 4, 3, 3), emu(4, 2, 3)
    launch("batch_norm", "batch_norm_statistics", (4, 3), 256, x=x, partial=partial, **sizes)


def weights_of_other_groups():
    x, w, y = emu(2, 4, 5, 5), emu(6, 4, 3, 3), emu(2, 6, 5, 5)
    launch_convolution_formula(x, w, y, (1, 1), (1, 1), 2)


def transposed_gradient():
    launch_linear_backward_input(emu(7, 5), emu(7, 3), emu(5, 3))


def channels_that_disagree():
    norm = replace(device_norm(4), gamma=emu(5))
    launch_norm(emu(2, 4, 3, 3), norm, emu(4, 2, 3), training=True, summed=True)


@pytest.mark.parametrize(
    ("launch_it", "message"),
    [
        (swapped_coefficients, r"combine_sums_v2: mean must be \[C\] = \(4,\), not \(4, 3\)"),
        (
            swapped_weights,
            r"igc_forward_v2: w1 must be \[L\*M\]\[M\]\[3\]\[3\] = \(12, 4, 3, 3\), "
            r"not \(12, 3, 1, 1\)",
        ),
        (
            too_few_parts,
            r"partial must be \[C\]\[gridDim.y\]\[3\] = \(4, 3, 3\), not \(4, 2, 3\)",
        ),
        (
            weights_of_other_groups,
            r"w must be \[O\]\[C/groups\]\[KH\]\[KW\] = \(6, 2, 3, 3\), not \(6, 4, 3, 3\)",
        ),
        (transposed_gradient, r"gy must be \[N\]\[O\] = \(5, 7\), not \(7, 5\)"),
        (channels_that_disagree, r"gamma must be \[C\] = \(4,\), not \(5,\)"),
    ],
)
def test_an_array_of_another_shape_is_refused(launch_it, message):
    with pytest.raises(KernelError, match=message):
        launch_it()


def test_a_name_that_no_array_gives_a_length_is_refused():
    arrays = device_norm(4).fields("gamma beta running_mean running_var mean variance scale shift")
    one_axis = {name: array.reshape(2, 2) for name, array in arrays.items()}
    numbers = {"S": 2, "eps": 1e-5, "momentum": 0.9, "training": 1}
    arguments = one_axis | numbers | {"partial": emu(24)}
    with pytest.raises(KernelError, match=r"partial must be \[C\]\[S\]\[3\], not \(24,\)"):
        launch("combine", "norm_coefficients", 4, 256, defines={"VEC": 1}, **arguments)


def test_arrays_that_are_not_aligned_are_refused():
    odd = np.zeros(17, np.uint8)[1:].view(np.float32).view(type(emu(1)))
    with pytest.raises(KernelError, match="not a multiple of 4"):
        launch("relu", "relu_forward", 1, 32, x=odd, y=emu(4), n=4)


def test_an_array_that_no_kernel_can_index_is_a_device_error():
    huge = type("Huge", (), {})()
    huge.dtype, huge.flags = np.dtype("float32"), emu(1).flags
    huge.shape, huge.size = (2**31,), 2**31
    with pytest.raises(DeviceError, match=r"2,147,483,648 elements.*smaller --batch-size"):
        launch("relu", "relu_forward", 1, 32, x=huge, y=emu(1), n=1)


def test_an_empty_batch_launches_nothing():
    assert relu_forward(emu(0, 3, 4, 4)).shape == (0, 3, 4, 4)
