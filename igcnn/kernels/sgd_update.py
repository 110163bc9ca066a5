"""One step of stochastic gradient descent on one parameter, in place.

With the mean gradient g, learning rate η, momentum μ and weight decay λ:

    d = g + λ·w        v ← μ·v + d        w ← w − η·(d + μ·v)

is Nesterov's step (the authors' NAG). Without,

    w ← w − η·v

v begins at 0, and the new v is used. There is no dampening.
"""

import numpy as np

from ..backend import contiguous, device_of, is_on_cpu, to_device
from ..errors import DtypeError, ShapeError
from .arguments import Arguments
from .lanes import launch_chunks
from .launch import launch_each

Array = np.ndarray


def sgd_update(
    w: Array,
    g: Array,
    v: Array,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = True,
) -> None:
    """Change the parameter w and its velocity v in place; g stays as it is.

    Raises:
        ShapeError: w, g and v differ in shape; nothing is broadcast here.
        DtypeError: w, g and v differ in element type.
    """
    if not w.shape == g.shape == v.shape:
        raise ShapeError(
            f"sgd_update: w, g and v have shapes {w.shape}, {g.shape} and {v.shape}; "
            "they must be equal"
        )
    if not w.dtype == g.dtype == v.dtype:
        raise DtypeError(
            f"sgd_update: w, g and v have types {w.dtype}, {g.dtype} and {v.dtype}; "
            "they must be equal"
        )
    if not is_on_cpu(w):
        values = np.array([lr, momentum, weight_decay], w.dtype)
        launch_sgd_update(w, contiguous(g), v, to_device(values, device_of(w)), nesterov)
        return
    step = np.multiply(w, weight_decay, out=np.empty_like(w))
    step += g
    v *= momentum
    v += step
    if nesterov:
        step += momentum * v
        step *= lr
    else:
        np.multiply(v, lr, out=step)
    w -= step


def launch_sgd_update(w: Array, g: Array, v: Array, constants: Array, nesterov: bool) -> None:
    """Do sgd_update by a kernel of any device.

    Args:
        w: parameters, flat.
        g: gradients, likewise.
        v: velocity, likewise.
        constants: learning rate, momentum, weight decay, in the same memory.
        nesterov: see sgd_update.
    """
    if is_on_cpu(w):
        fields = {"w": w, "g": g, "v": v, "constants": constants, "nesterov": int(nesterov)}
        fields |= {"size": w.size}
        launch_chunks("sgd_update", "sgd_update", w.size, str(w.dtype), **fields)
        return
    arguments: Arguments = {"w": w, "g": g, "v": v, "constants": constants, "n": w.size}
    launch_each("sgd_update", "sgd_update", w.size, nesterov=nesterov, **arguments)
