"""The initial weights of the authors' code (MXNet's Xavier with factor 2 over fan_in)."""

import math

import numpy as np

from ..errors import ConfigError

Array = np.ndarray


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: str) -> Array:
    """Return N(0, 2/fan_in) for convolutions; fan_in is the product of all axes but the first."""
    _check(rng)
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    return (rng.standard_normal(shape) * deviation).astype(dtype)


def uniform_fan_in(shape: tuple[int, ...], rng: np.random.Generator, dtype: str) -> Array:
    """Return U(−a, a) with a = √(1/fan_in), for the classifier."""
    _check(rng)
    bound = math.sqrt(1 / math.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape).astype(dtype)


def _check(rng: object) -> None:
    if not isinstance(rng, np.random.Generator):
        raise ConfigError(
            f"rng must be a NumPy generator, not {type(rng).__name__}; give "
            "np.random.default_rng(seed)"
        )
