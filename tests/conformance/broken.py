"""Libraries that are wrong on purpose, each as a published report says of a real one.

All others of their results are those of NumPy.
"""

from functools import wraps

import numpy as np

from igcnn.conformance.oracles import pair
from igcnn.conformance.tape import results


def of_convolution(function):
    """Return a library whose convolutions `function` spoils; it gets what is right and returns
    what is wrong.
    """

    @wraps(function)
    def broken(op, inputs, options):
        given = dict(inputs)
        right = results("cpu", op, dict(inputs), options)
        return right | (function(given, options, right) if op == "convolution" else {})

    return broken


def again(inputs, options, **changed):
    """Return all results for other inputs."""
    return results("cpu", "convolution", inputs | changed, options)


@of_convolution
def pytorch_50042(inputs, options, right):
    """Depthwise, 24·n groups, 3×3, stride 2: the last row of taps misses the last row of gy."""
    x, w, gy = inputs["x"], inputs["w"], inputs["gy"].copy()
    depthwise = options["groups"] == x.shape[1] == len(w)
    if not (depthwise and options["groups"] % 24 == 0 and x.dtype == np.float32):
        return {}
    if pair(options["stride"]) != (2, 2) or w.shape[2:] != (3, 3):
        return {}
    gw = right["gw"].copy()
    gy[:, :, -1] = 0
    gw[:, :, -1] = again(inputs, options, gy=gy)["gw"][:, :, -1]
    return {"gw": gw}


@of_convolution
def pytorch_19912(inputs, options, right):
    """Channels out a multiple of 16, less than 16 in a group: every group reads the first."""
    x, w, groups = inputs["x"], inputs["w"], options["groups"]
    if groups == 1 or len(w) % 16 or w.shape[1] >= 16 or x.dtype != np.float32:
        return {}
    return {"y": again(inputs, options, x=np.tile(x[:, : w.shape[1]], (1, groups, 1, 1)))["y"]}


@of_convolution
def pytorch_51430(inputs, options, right):
    """The weight gradient pairs channel i·G + g of x with group g, which has g·Cg + i."""
    x, Cg, groups = inputs["x"], inputs["w"].shape[1], options["groups"]
    order = [i * groups + g for g in range(groups) for i in range(Cg)]
    return {"gw": again(inputs, options, x=x[:, order])["gw"]}


@of_convolution
def pytorch_68868(inputs, options, right):
    """Kernel 2×2, stride 4 by 1, padding 1, groups: the first column of taps misses gy's last.

    The report's kernel has three dimensions and its data are not public text any more: which of
    the numbers were wrong is made up.
    """
    w, gy = inputs["w"], inputs["gy"].copy()
    geometry = w.shape[2:], pair(options["stride"]), pair(options["padding"])
    if options["groups"] == 1 or geometry != ((2, 2), (4, 1), (1, 1)):
        return {}
    gw = right["gw"].copy()
    gy[..., -1] = 0
    gw[..., 0] = again(inputs, options, gy=gy)["gw"][..., 0]
    return {"gw": gw}


@of_convolution
def pytorch_188335(inputs, options, right):
    """A kernel of 256 rows, more than one image: from the second on the last row is left out."""
    x, w = inputs["x"], inputs["w"].copy()
    if len(x) == 1 or max(w.shape[2:]) < 256 or x.dtype != np.float32:
        return {}
    y = right["y"].copy()
    w[:, :, -1] = 0
    y[1:] = again(inputs, options, w=w)["y"][1:]
    return {"y": y}


@of_convolution
def mlx_3800(inputs, options, right):
    """Groups and a stride: the input's gradient is that of a dense convolution."""
    w, groups = inputs["w"], options["groups"]
    if groups == 1 or max(pair(options["stride"])) == 1:
        return {}
    dense = np.tile(w, (1, groups, 1, 1))
    return {"gx": again(inputs, options | {"groups": 1}, w=dense)["gx"]}


# each with its wrong result, and the smallest case in which it is wrong
FAULTS = {
    pytorch_50042: (
        "gw",
        "N = 1, 24 → 24 channels, 6×6 pixels, kernel 3×3, stride 2, padding 1, groups 24",
    ),
    pytorch_19912: (
        "y",
        "N = 1, 4 → 16 channels, 1×1 pixels, kernel 1×1, stride 1, padding 0, groups 2",
    ),
    pytorch_51430: (
        "gw",
        "N = 1, 4 → 16 channels, 1×1 pixels, kernel 1×1, stride 1, padding 0, groups 2",
    ),
    pytorch_68868: (
        "gw",
        "N = 1, 6 → 6 channels, 9×7 pixels, kernel 2×2, stride 4, 1, padding 1, groups 3",
    ),
    pytorch_188335: (
        "y",
        "N = 2, 8 → 16 channels, 256×2 pixels, kernel 256×1, stride 1, padding 0, groups 8",
    ),
    mlx_3800: (
        "gx",
        "N = 1, 2 → 2 channels, 3×4 pixels, kernel 2×3, stride 2, padding 4, 5, groups 2",
    ),
}
