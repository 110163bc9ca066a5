"""Draws descriptions of networks."""

from hypothesis import strategies as st

from .network import Description, shape_after

# with how often each is drawn
WEIGHTS = {
    "conv": 5,
    "igc": 3,
    "batch_norm": 5,
    "relu": 4,
    "relu6": 1,
    "add": 3,
    "three": 2,
    "max_pool": 2,
    "avg_pool": 2,
    "permute": 2,
}
UNPLANNED = "conv_bias", "plus", "times"
PLANNED_OPS = [op for op, weight in WEIGHTS.items() for _ in range(weight)]
MOST_STEPS = 16
MOST_CHANNELS = 12
FEWEST_NUMBERS = 8  # of a channel that is normalised


@st.composite
def descriptions(draw):
    """Return a network: small, with shared tensors, and one of ten not planned."""
    N = draw(st.sampled_from((1, 2, 3, 5, 8, 17, 19)))
    shape = tuple(draw(st.integers(*bounds)) for bounds in ((1, 4), (3, 9), (3, 9)))
    ops = PLANNED_OPS + list(UNPLANNED) * draw(st.sampled_from((0, 0, 0, 3)))
    steps, shapes = [], [shape]
    least = draw(st.sampled_from((1, 8)))
    for number in range(MOST_STEPS):
        # all that is drawn for a step is drawn here, so that shrinking can leave it out
        if number >= least and draw(st.integers(0, 9)) == 0:
            break
        op = draw(st.sampled_from(ops))
        x = len(steps) - draw(st.integers(0, min(2, len(steps))))
        options = draw(options_of(op, shapes[x]))
        alike = [i for i, other in enumerate(shapes) if other == shapes[x]]
        if options is None or (op == "batch_norm" and N * area(shapes[x]) < FEWEST_NUMBERS):
            continue
        count = {"add": 1, "plus": 1, "times": 1, "three": 2}.get(op, 0)
        others = [draw(st.sampled_from(alike)) for _ in range(count)]
        steps.append((op, (x, *others), options))
        shapes.append(shape_after(op, shapes[x], options))
    last = len(steps)
    heads = (last, draw(st.integers(0, last))) if draw(st.integers(0, 19)) == 19 else (last,)
    return Description(N, shape, tuple(steps), heads, draw(st.booleans()))


def area(shape):
    return shape[1] * shape[2]


@st.composite
def options_of(draw, op, shape):
    """Return the options of a step on a value of a shape, None where it cannot be."""
    C = shape[0]
    if op == "permute":
        return {"branches": draw(st.sampled_from(divisors(C)))}
    if op in ("conv", "conv_bias"):
        window = draw(windows(shape, "kernel", 5))
        groups = draw(st.sampled_from(divisors(C)))
        most = MOST_CHANNELS // groups
        D = groups * draw(st.integers(1, max(1, most)))
        return {"D": D, **window, "groups": groups}
    if op == "igc":
        L = draw(st.sampled_from(divisors(C)))
        growth = draw(st.integers(1, max(1, MOST_CHANNELS // C)))
        D = C * growth
        window = draw(windows(shape, "kernel", 3))
        return {"D": D, **window, "L": L, "S": draw(st.sampled_from(divisors(D)))}
    if op == "max_pool":
        return draw(windows(shape, "kernel_size", 3, pool=True))
    if op == "avg_pool":
        counted = {"count_include_pad": draw(st.booleans())}
        return draw(windows(shape, "kernel_size", 3, pool=True)) | counted
    return {}


@st.composite
def windows(draw, shape, name, most, pool=False):
    """Return kernel, stride and padding, each (vertical, horizontal), that fit an image."""
    pairs = []
    for size in shape[1:]:
        kernel = draw(st.integers(1, most))
        least = max(0, -(-(kernel - size) // 2))
        padding = draw(st.integers(least, max(least, kernel - 1 if pool else kernel)))
        pairs.append((kernel, draw(st.integers(1, 3)), padding))
    kernel, stride, padding = zip(*pairs, strict=True)
    return {name: kernel, "stride": stride, "padding": padding}


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]
