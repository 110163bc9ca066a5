"""Which sizes there are: depths, units of each stage, channels."""

from ..errors import ConfigError


def first_width(net: str, L: int, M: int) -> int:
    """Return the channels of the first stage, L·M.

    Raises:
        ConfigError: L or M is below 1.
    """
    for name, value in (("L", L), ("M", M)):
        if value < 1:
            raise ConfigError(f"{net}: {name} must be at least 1, not {value}")
    return L * M


def plain_stages(net: str, depth: int) -> list[int]:
    """Return the units of the three stages: (depth − 2)/3 each.

    Raises:
        ConfigError: (depth − 2)/3 is no whole number ≥ 1.
    """
    n, rest = divmod(depth - 2, 3)
    if n < 1 or rest:
        lower = max(5, depth - (depth - 2) % 3)
        raise ConfigError(
            f"{net}: depth must be 2 + 3·n with n ≥ 1 (5, 8, 11, …), not {depth}; "
            f"choose {_neighbours(lower, 3, depth)}"
        )
    return [n, n, n]


def residual_stages(net: str, depth: int) -> list[int]:
    """Return the blocks of the three stages, two units each, as the authors divide them.

    What does not divide evenly goes to the later stages: 10 gives 1, 1, 2.

    Raises:
        ConfigError: depth is odd or below 8.
    """
    if depth < 8 or depth % 2:
        raise ConfigError(
            f"{net}: depth must be even and at least 8 (2 + 6·n gives equal stages), not {depth}; "
            f"choose {_neighbours(max(8, depth - depth % 2), 2, depth)}"
        )
    stages = []
    remaining = (depth - 2) // 2
    for stage in range(3):
        stages.append(remaining // (3 - stage))
        remaining -= stages[-1]
    return stages


def _neighbours(lower: int, step: int, depth: int) -> str:
    return str(lower) if lower > depth else f"{lower} or {lower + step}"
