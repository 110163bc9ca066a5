"""Which sizes there are: depths, units of each stage, channels, lists of numbers."""

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
        ConfigError: (depth − 2)/3 is not an integer ≥ 1.
    """
    return [equal_stages(net, depth, 3)] * 3


def equal_stages(net: str, depth: int, step: int) -> int:
    """Return n = (depth − 2)/step, the units of each stage.

    Args:
        net: network, for the error.
        depth: layers with weights, first convolution and classifier included.
        step: layers that one unit more in each stage takes.

    Raises:
        ConfigError: n is not an integer ≥ 1.
    """
    n, rest = divmod(depth - 2, step)
    if n < 1 or rest:
        lower = max(2 + step, depth - (depth - 2) % step)
        first = ", ".join(str(2 + step * k) for k in (1, 2, 3))
        raise ConfigError(
            f"{net}: depth must be 2 + {step}·n with n ≥ 1 ({first}, …), not {depth}; "
            f"choose {_neighbours(lower, step, depth)}"
        )
    return n


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


def whole_numbers(net: str, name: str, text: str, count: int | None = None) -> list[int]:
    """Return the integers from 1 up that a setting lists, separated by commas.

    Args:
        net: network, for the error.
        name: of the setting.
        text: such as 1,4,6.
        count: how many there must be; None for any number.

    Raises:
        ConfigError: the text is not such a list.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or count not in (None, len(numbers)):
        wanted = f"{count} integers" if count else "integers"
        raise ConfigError(
            f"{net}: {name} must be {wanted} from 1 up, separated by commas, not {text!r}"
        )
    return numbers


def _neighbours(lower: int, step: int, depth: int) -> str:
    return str(lower) if lower > depth else f"{lower} or {lower + step}"
