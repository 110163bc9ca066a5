"""One case for each operation with a CUDA kernel, written once for every device.

A case is a function of `put`, which moves an array to the device, and of an element type; it
returns arrays. On the CPU it runs the NumPy kernels, which other tests hold to plain loops.
"""

from functools import partial
from unittest.mock import patch

import numpy as np

from igcnn.backend import device_of, to_device, to_host
from igcnn.datasets.dataset import AUGMENT_STREAM, Augmentation, Split
from igcnn.datasets.loader import Loader
from igcnn.kernels import interleaved_group_convolution_v3 as v3
from igcnn.kernels.add import add_forward
from igcnn.kernels.augment import Resident, launch_augment
from igcnn.kernels.batch_norm import (
    batch_norm_backward_evaluation,
    batch_norm_backward_training,
    batch_norm_forward_evaluation,
    batch_norm_forward_training,
)
from igcnn.kernels.combine import (
    NO_RELU,
    WHERE_NORMED,
    WHERE_Y,
    WHERE_Y6,
    DeviceNorm,
    launch_combine_backward,
    launch_combine_forward,
    launch_combine_sums,
    launch_combine_sums_formula,
    launch_norm,
    launch_skip_backward,
)
from igcnn.kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
    launch_convolution_backward_input,
    launch_convolution_formula,
)
from igcnn.kernels.geometry import convolution_geometry
from igcnn.kernels.head import launch_head, launch_head_formula
from igcnn.kernels.interleaved_group_convolution import (
    Incoming,
    fused_unit,
    launch_igc_backward_input,
    launch_igc_backward_input_formula,
    launch_igc_backward_weight,
    launch_igc_backward_weight_formula,
    launch_igc_forward,
    launch_igc_forward_formula,
    mix_backward_input,
    mix_backward_weight,
    mix_forward,
)
from igcnn.kernels.linear import (
    linear_backward_bias,
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)
from igcnn.kernels.permutation import permutation_backward, permutation_forward
from igcnn.kernels.pooling import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from igcnn.kernels.relu import relu_backward, relu_forward
from igcnn.kernels.relu6 import relu6_backward, relu6_forward
from igcnn.kernels.sgd_update import sgd_update
from igcnn.kernels.softmax_cross_entropy import (
    launch_record_result,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from igcnn.kernels.stem import launch_stem, launch_stem_formula, stem_blocks
from igcnn.kernels.sum_partials import launch_sum_partials, partial_sums, sum_partials
from igcnn.training.metrics import count_hits


class Source:
    """Random arrays of one type on one device, the same on every device."""

    def __init__(self, put, dtype):
        self.put = put
        self.dtype = dtype
        self.rng = np.random.default_rng(0)

    def normal(self, *shape, mean=0.0):
        values = self.rng.standard_normal(shape) + mean
        return self.put(np.asarray(values).astype(np.float32).astype(self.dtype))

    def positive(self, *shape):
        values = self.rng.uniform(0.5, 2, shape)
        return self.put(values.astype(np.float32).astype(self.dtype))


def relu(source):
    y = relu_forward(source.normal(3, 5, 7, 2))
    return y, relu_backward(source.normal(3, 5, 7, 2), y)


def relu6(source):
    y = relu6_forward(6 * source.normal(3, 5, 7, 2))
    return y, relu6_backward(source.normal(3, 5, 7, 2), y)


def add(source):
    return (add_forward(source.normal(3, 5, 7, 2), source.normal(3, 5, 7, 2)),)


def permutation(source, channels=15, branches=3):
    x = source.normal(2, channels, 3, 5)
    return permutation_forward(x, branches), permutation_backward(x, branches)


def batch_norm(source, shape=(5, 3, 7, 9), mean=0.0):
    C = shape[1]
    x, gamma, beta = source.normal(*shape, mean=mean), source.normal(C), source.normal(C)
    y, centred, mean, variance = batch_norm_forward_training(x, gamma, beta, 2e-5)
    gy = source.normal(*shape)
    return (
        y,
        centred,
        mean,
        variance,
        *batch_norm_backward_training(gy, centred, variance, gamma, 2e-5),
    )


def batch_norm_evaluation(source):
    x, gy = source.normal(5, 3, 7, 9), source.normal(5, 3, 7, 9)
    gamma, beta, mean, var = (
        source.normal(3),
        source.normal(3),
        source.normal(3),
        source.positive(3),
    )
    y = batch_norm_forward_evaluation(x, gamma, beta, mean, var, 2e-5)
    return (y, *batch_norm_backward_evaluation(gy, x, gamma, mean, var, 2e-5))


def convolution(source, x_shape, w_shape, stride, padding, groups):
    x, w = source.normal(*x_shape), source.normal(*w_shape)
    geometry = stride, padding, groups
    with patch("igcnn.kernels.convolution.FEWEST_THREADS", 0):  # as large images have it
        y = convolution_forward(x, w, *geometry)
        gy, total = source.normal(*y.shape), source.normal(*x_shape)
        gx = convolution_backward_input(gy, w, x.shape, *geometry)
        gw = convolution_backward_weight(gy, x, w.shape, *geometry)
        if device_of(x) == "cpu":
            total += gx
        else:
            exact = convolution_geometry(x.shape, w.shape, *geometry)
            launch_convolution_backward_input(gy, w, total, *exact, accumulate=True)
    return y, gx, gw, total


def convolution_formula(source):
    x, w = source.normal(2, 4, 6, 5), source.normal(6, 2, 3, 3)
    if device_of(x) == "cpu":
        return (convolution_forward(x, w, 2, 1, 2),)
    y = source.put(np.zeros((2, 6, 3, 3), source.dtype))
    launch_convolution_formula(x, w, y, (2, 2), (1, 1), 2)
    return (y,)


def mix(source, C, L, secondary_groups):
    p, gy = source.normal(2, C, 5, 3), source.normal(2, C, 5, 3)
    w2 = source.normal(C, C // secondary_groups, 1, 1)
    return (
        mix_forward(p, w2, L, secondary_groups),
        mix_backward_input(gy, w2, L, secondary_groups),
        mix_backward_weight(gy, p, w2.shape, L, secondary_groups),
    )


def norm_arrays(source, C):
    """γ, β, the running statistics, and what else a batch norm has on a device."""
    gamma, beta, mean, var = (
        source.positive(C),
        source.normal(C),
        source.normal(C),
        source.positive(C),
    )
    others = [source.put(np.full(C, np.nan, source.dtype)) for _ in range(6)]
    last = source.put(np.full((C, 3), np.nan, source.dtype))
    return DeviceNorm(gamma, beta, mean, var, *others, last, tickets(source, C), 0.9, 2e-5)


def tickets(source, C):
    return source.put(np.zeros(C, np.uint32))


VERSIONS = {
    "v1": (
        launch_igc_forward_formula,
        launch_igc_backward_input_formula,
        launch_igc_backward_weight_formula,
    ),
    "v2": (launch_igc_forward, launch_igc_backward_input, launch_igc_backward_weight),
    "v3": (v3.launch_igc_forward, v3.launch_igc_backward_input, v3.launch_igc_backward_weight),
}


def launch_sums(formula, gy, y, x, norm, partial_sums, mask, masked):
    if formula:
        launch_combine_sums_formula(gy, y, x, norm, mask, masked)
    else:
        launch_combine_sums(gy, y, x, norm, partial_sums, mask, masked)


def fused(
    source,
    L,
    M,
    side,
    images,
    activate,
    mask,
    accumulate,
    shared_bytes=227 << 10,
    version="v2",
):
    """A unit with the batch norms before and behind it: z, its statistics, all gradients."""
    forward, backward_input, backward_weight = VERSIONS[version]
    N, C, H, W = images, L * M, *side
    x, gy, before = (source.normal(N, C, H, W) for _ in range(3))
    w1, w2 = source.normal(C, M, 3, 3), source.normal(C, L, 1, 1)
    x_norm = norm_arrays(source, C)
    z_norm = norm_arrays(source, C)
    if device_of(x) == "cpu":
        return fused_on_the_cpu(
            x, gy, before, w1, w2, x_norm, z_norm, L, activate, mask, accumulate
        )
    if source.dtype == "float64":  # the fused kernels are for float32
        source = Source(source.put, "float32")
        sizes = L, M, side, images
        return fused(source, *sizes, activate, mask, accumulate, shared_bytes, version)

    def new(*shape):
        return source.put(np.full(shape, np.nan, source.dtype))

    unit = fused_unit((C, H, W), w1.shape, ((1, 1), (1, 1), L), M, shared_bytes)
    if activate:
        launch_norm(x, x_norm, new(C, 2, 3), training=True)
    entering = x_norm if activate else None
    z, y, partial_sums = new(N, C, H, W), new(N, C, H, W), new(C, unit.blocks(N), 3)
    forward(unit, x, entering, w1, w2, z, partial_sums)
    launch_norm(z, z_norm, partial_sums, training=True, summed=True)
    launch_combine_forward([(z, z_norm)], y, mask != NO_RELU)
    launch_sums(version == "v1", gy, y, z, z_norm, new(C, 2, 2), mask, new(N, C, H, W))
    incoming = Incoming(gy, y, z, z_norm, mask)
    gx = before.copy() if accumulate else new(N, C, H, W)
    backward_input(unit, incoming, w1, w2, gx, accumulate)
    gw = new(*w1.shape), new(*w2.shape)
    partials = tuple(new(*shape) for shape in unit.partial_shapes(N, blocks=2))
    backward_weight(unit, incoming, x, entering, (w1, w2), partials)
    for own, g in zip(partials, gw, strict=True):
        sum_partials(own, g)
    return z, y, z_norm.running_mean, z_norm.running_var, gx, *gw


def fused_on_the_cpu(x, gy, before, w1, w2, x_norm, z_norm, L, activate, mask, accumulate):
    S = x.shape[1] // L
    if activate:
        x = relu_forward(batch_norm_forward_training(x, x_norm.gamma, x_norm.beta, 2e-5)[0])
    p = convolution_forward(x, w1, 1, 1, L)
    z = mix_forward(p, w2, L, S)
    y, centred, mean, var = batch_norm_forward_training(z, z_norm.gamma, z_norm.beta, 2e-5)
    y = y if mask == NO_RELU else relu_forward(y)
    g = gy if mask == NO_RELU else relu_backward(gy, y)
    gz, _, _ = batch_norm_backward_training(g, centred, var, z_norm.gamma, 2e-5)
    gp = mix_backward_input(gz, w2, L, S)
    gx = convolution_backward_input(gp, w1, x.shape, 1, 1, L)
    return (
        z,
        y,
        0.9 * z_norm.running_mean + 0.1 * mean,
        0.9 * z_norm.running_var + 0.1 * var,
        before + gx if accumulate else gx,
        convolution_backward_weight(gp, x, w1.shape, 1, 1, L),
        mix_backward_weight(gz, p, w2.shape, L, S),
    )


def linear(source):
    x, w, b, gy = (
        source.normal(5, 37),
        source.normal(11, 37),
        source.normal(11),
        source.normal(5, 11),
    )
    return (
        linear_forward(x, w, b),
        linear_forward(x, w),
        linear_backward_input(gy, w),
        linear_backward_weight(gy, x),
        linear_backward_bias(gy),
    )


def softmax_cross_entropy(source, classes=41, smoothing=0.0):
    logits = source.normal(7, classes)
    labels = np.arange(7) % classes
    if device_of(logits) != "cpu":
        labels = to_device(labels, device_of(logits))
    loss, probabilities = softmax_cross_entropy_forward(logits, labels, smoothing)
    gloss = source.normal()
    glogits = softmax_cross_entropy_backward(gloss, probabilities, labels, smoothing)
    return loss, probabilities, glogits


def head(source, classes, launch=launch_head, smoothing=0.0):
    y, w, b = source.normal(5, 6, 4, 9), source.normal(classes, 6), source.normal(classes)
    w, b = to_host(w).copy(), to_host(b).copy()
    w[1], b[:2] = w[0], 9  # of equal logits the one of the smaller class counts as larger
    w, b = source.put(w), source.put(b)
    labels = np.arange(5) % classes
    if device_of(y) == "cpu":
        p = global_average_pool_forward(y)
        logits = linear_forward(p, w, b)
        losses = [
            softmax_cross_entropy_forward(logits[[n]], labels[[n]], smoothing)[0] for n in range(5)
        ]
        right = [count_hits(logits[[n]], labels[[n]]) for n in range(5)]
        _, probabilities = softmax_cross_entropy_forward(logits, labels)
        gz = softmax_cross_entropy_backward(np.ones(()), probabilities, labels, smoothing)
        gy = global_average_pool_backward(linear_backward_input(gz, w), y.shape)
        return p, gz, np.array(losses), np.array(right), gy
    shapes = (5, 6), (5, classes), (5,), (5,), y.shape
    results = [source.put(np.full(shape, np.nan, source.dtype)) for shape in shapes]
    launch(y, w, b, source.put(labels.astype(np.int32)), *results, smoothing=smoothing)
    return tuple(results)


def pooling(source, size, stride, padding, counted=True):
    # few values, many equal ones: the first in row order wins
    x = source.put(source.rng.integers(-3, 3, (2, 3, 9, 8)).astype(source.dtype))
    window = size, stride, padding
    y, argmax = max_pool_forward(x, *window)
    mean = average_pool_forward(x, *window, counted)
    gy = source.normal(*y.shape)
    return (
        y,
        argmax,
        max_pool_backward(gy, argmax, x.shape, *window),
        mean,
        average_pool_backward(gy, x.shape, *window, counted),
    )


def global_average_pool(source):
    x = source.normal(3, 5, 9, 7)
    y = global_average_pool_forward(x)
    return y, global_average_pool_backward(source.normal(3, 5), x.shape)


def update(source, nesterov):
    w, g, v = source.normal(3, 301), source.normal(3, 301), source.normal(3, 301)
    sgd_update(w, g, v, 0.1, 0.9, 1e-4, nesterov)
    return w, v


def gradients_of_parts(source, sizes):
    """Gradients of so many numbers, each of so many parts, by one launch."""
    parts = [source.normal(S, count) for count, S in sizes]
    if device_of(parts[0]) == "cpu":
        return [part.sum(axis=0) for part in parts]
    partials = source.put(np.concatenate([to_host(part).ravel() for part in parts]))
    sums = source.put(np.full(sum(count for count, _ in sizes), np.nan, source.dtype))
    rows, start, place = [], 0, 0
    for count, S in sizes:
        rows.append((start, S, sums[place : place + count]))
        start, place = start + count * S, place + count
    launch_sum_partials(partial_sums(rows, partials, sums))
    return [gradient for *_, gradient in rows]


def photographs(height, width, pad, mirror):
    """Return a loader of batches of 4 of 11 images."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (11, 3, height, width), np.uint8)
    augmentation = Augmentation(pad, mirror) if pad or mirror else None
    return Loader(
        Split(images, rng.integers(0, 10, 11)),
        batch_size=4,
        mean=(120.4, 99.6, 3.0),
        std=(60.0, 50.0, 40.0),
        augmentation=augmentation,
        seed=2**40 + 3,
    )


def resident(put, loader, epoch, batch):
    """Return on a device what a batch of an epoch is taken from."""
    change = loader.augmentation or Augmentation(0, False)
    seed = loader.seed
    words = [batch * loader.batch_size, seed & 0xFFFFFFFF, seed >> 32, epoch, 0]
    arrays = (
        loader.split.images,
        loader.split.labels.astype(np.int32),
        loader.order(epoch).astype(np.int32),
        np.array(words, np.uint32),
        loader.mean,
        loader.std,
    )
    return Resident(*map(put, arrays), change.pad, change.mirror, AUGMENT_STREAM)


def augment(source, pad, mirror):
    loader = photographs(6, 5, pad, mirror)
    if device_of(source.normal(1)) == "cpu":
        batches = list(loader.epoch(5))
        return tuple(array for batch in batches for array in batch)
    put, results = source.put, []
    for batch in range(len(loader)):
        x = put(np.zeros((4, 3, 6, 5), source.dtype))
        labels = put(np.zeros(4, np.int32))
        launch_augment(resident(put, loader, 5, batch), x, labels)
        results += [x, labels]
    return tuple(results)


def stem(source, height, width, channels, pad, mirror, launch=launch_stem):
    """The second batch, the convolution of it, and mean and variance of that."""
    loader = photographs(height, width, pad, mirror)
    w = source.normal(channels, 3, 3, 3)
    if device_of(w) == "cpu":
        x, labels = next(loader.epoch(5, 1))
        z = convolution_forward(x.astype(source.dtype), w, 1, 1)
        return x, labels, z, z.mean((0, 2, 3)), z.var((0, 2, 3))

    def new(*shape):
        return source.put(np.full(shape, np.nan, source.dtype))

    x, z = new(4, 3, height, width), new(4, channels, height, width)
    labels = source.put(np.full(4, -1, np.int32))
    moments = new(channels, stem_blocks(4, height), 3)
    launch(resident(source.put, loader, 5, 1), w, x, labels, z, moments)
    counts, means, squares = np.moveaxis(to_host(moments), 2, 0)  # (C, S) each
    mean = (counts * means).sum(axis=1) / counts.sum(axis=1)
    spread = squares + counts * (means - mean[:, None]) ** 2
    return x, labels, z, mean, spread.sum(axis=1) / counts.sum(axis=1)


ACTIVATIONS = {
    0: (lambda x: x, lambda gy, y: gy),
    1: (relu_forward, relu_backward),
    2: (relu6_forward, relu6_backward),
}


def combine(source, normed, relu, accumulate, side=(4, 7), formula=False, spread=1):
    """One or two terms, some normalised, and the gradient of each."""
    N, C, H, W = 5, 3, *side
    xs = [source.normal(N, C, H, W, mean=2.0) for _ in normed]
    parameters = [(spread * source.positive(C), source.normal(C)) for _ in normed]
    running = [(source.normal(C), source.positive(C)) for _ in normed]
    gy, before = source.normal(N, C, H, W), source.normal(N, C, H, W)
    if device_of(gy) == "cpu":
        return combine_on_the_cpu(xs, parameters, running, gy, before, normed, relu, accumulate)
    put = source.put

    def new(*shape):
        return put(np.full(shape, np.nan, source.dtype))

    moments, partial_sums, norms, results = new(C, 4, 3), new(C, 4, 2), [], []  # 4 slices
    for (gamma, beta), (mean, var), is_normed in zip(parameters, running, normed, strict=True):
        own = [new(C) for _ in range(6)]
        norms.append(
            DeviceNorm(gamma, beta, mean, var, *own, new(C, 3), tickets(source, C), 0.9, 2e-5)
            if is_normed
            else None
        )
    for training in (True, False):
        for x, norm in zip(xs, norms, strict=True):
            if norm:
                launch_norm(x, norm, moments, training)
        y = new(N, C, H, W)
        launch_combine_forward(list(zip(xs, norms, strict=True)), y, relu)
        results.append(y)
        if not training:
            break
        mask = (NO_RELU, WHERE_Y, WHERE_Y6)[relu]
        if relu == 1 and list(normed) == [True]:
            mask = WHERE_NORMED
        masked = new(N, C, H, W)
        for x, norm in zip(xs, norms, strict=True):
            gx = before.copy() if accumulate else new(N, C, H, W)
            if norm:
                launch_sums(formula, gy, y, x, norm, partial_sums, mask, masked)
                own, left = (masked, NO_RELU) if mask in (WHERE_Y, WHERE_Y6) else (gy, mask)
                launch_combine_backward(own, x, norm, gx, left, accumulate)
                results += [norm.ggamma, norm.gbeta, norm.running_mean, norm.running_var]
            else:
                launch_skip_backward(gy, y, gx, relu, accumulate)
            results.append(gx)
            masked = gy  # of a second term
    return tuple(results)


def combine_on_the_cpu(xs, parameters, running, gy, before, normed, relu, accumulate):
    results = []
    terms, kept = [], []
    for x, (gamma, beta), is_normed in zip(xs, parameters, normed, strict=True):
        if is_normed:
            y, *rest = batch_norm_forward_training(x, gamma, beta, 2e-5)
            terms.append(y)
            kept.append(rest)
        else:
            terms.append(x)
            kept.append(None)
    forward, backward = ACTIVATIONS[relu]
    y = forward(sum(terms))
    g = backward(gy, y)
    results.append(y)
    after = []
    for x, (gamma, beta), (mean, var), rest in zip(xs, parameters, running, kept, strict=True):
        gx = g
        if rest:
            centred, batch_mean, batch_var = rest
            gx, ggamma, gbeta = batch_norm_backward_training(g, centred, batch_var, gamma, 2e-5)
            mean = 0.9 * mean + 0.1 * batch_mean
            var = 0.9 * var + 0.1 * batch_var
            results += [ggamma, gbeta, mean, var]
            x = batch_norm_forward_evaluation(x, gamma, beta, mean, var, 2e-5)
        results.append(before + gx if accumulate else gx)
        after.append(x)
    return (*results, forward(sum(after)))


def record(source):
    """Two batches written down: their losses and right answers, and where the next one begins."""
    losses, right = source.positive(7), source.put((np.arange(7) % 3 == 0).astype(source.dtype))
    if device_of(losses) == "cpu":
        row = [losses.mean(), 3]
        return np.array([row, row, [-1, -1]]), np.array([14, 1, 2, 3, 5])
    results = source.put(np.full((3, 2), -1, source.dtype))
    state = source.put(np.array([0, 1, 2, 3, 3], np.uint32))
    for _ in range(2):
        launch_record_result(losses, right, results, state)
    return results, state


# also by the kernels that can be read
UNITS = {
    "fused unit": partial(
        fused, L=3, M=2, side=(8, 8), images=3, activate=True, mask=WHERE_NORMED, accumulate=False
    ),
    "fused unit of 6 groups of 4": partial(
        fused, L=6, M=4, side=(8, 16), images=2, activate=False, mask=WHERE_Y, accumulate=True
    ),
    "fused unit without ReLU, little shared memory": partial(
        fused,
        L=9,
        M=2,
        side=(4, 32),
        images=2,
        activate=True,
        mask=NO_RELU,
        accumulate=True,
        shared_bytes=30_000,
    ),
}

CASES = {
    "relu": relu,
    "relu6": relu6,
    "add": add,
    "permutation": permutation,
    "permutation of 48 by 24": partial(permutation, channels=48, branches=24),
    "batch norm": batch_norm,
    "batch norm, one image": partial(batch_norm, shape=(1, 2, 3, 1)),
    "batch norm far from zero": partial(batch_norm, shape=(5, 2, 23, 29), mean=3.0),
    "batch norm in evaluation": batch_norm_evaluation,
    "convolution": partial(
        convolution, x_shape=(3, 5, 7, 6), w_shape=(9, 5, 3, 3), stride=1, padding=1, groups=1
    ),
    "convolution of many pixels": partial(  # 6 slices
        convolution, x_shape=(5, 2, 23, 29), w_shape=(6, 1, 3, 3), stride=1, padding=1, groups=2
    ),
    "convolution with stride": partial(
        convolution, x_shape=(2, 6, 9, 7), w_shape=(4, 3, 3, 3), stride=2, padding=1, groups=2
    ),
    "convolution by 24 groups of 2": partial(
        convolution, x_shape=(1, 48, 6, 5), w_shape=(48, 2, 3, 3), stride=1, padding=1, groups=24
    ),
    "convolution 7×7": partial(
        convolution, x_shape=(2, 3, 11, 13), w_shape=(5, 3, 7, 7), stride=2, padding=3, groups=1
    ),
    "convolution 1×1 with stride": partial(
        convolution, x_shape=(2, 8, 5, 7), w_shape=(12, 8, 1, 1), stride=2, padding=0, groups=1
    ),
    "convolution 1×1 over more channels than fit": partial(
        convolution, x_shape=(1, 401, 3, 3), w_shape=(8, 401, 1, 1), stride=1, padding=0, groups=1
    ),
    "convolution 1×1 to more channels than fit": partial(
        convolution, x_shape=(1, 8, 3, 3), w_shape=(401, 8, 1, 1), stride=1, padding=0, groups=1
    ),
    "depthwise convolution": partial(
        convolution, x_shape=(2, 6, 5, 5), w_shape=(6, 1, 3, 3), stride=1, padding=1, groups=6
    ),
    "convolution that is not square": partial(
        convolution,
        x_shape=(2, 4, 8, 7),
        w_shape=(6, 2, 2, 3),
        stride=(2, 1),
        padding=(0, 2),
        groups=2,
    ),
    "regular convolution": partial(
        convolution, x_shape=(3, 5, 4, 8), w_shape=(19, 5, 3, 3), stride=1, padding=1, groups=1
    ),
    "regular convolution with stride": partial(
        convolution, x_shape=(2, 6, 8, 16), w_shape=(12, 2, 3, 3), stride=2, padding=1, groups=3
    ),
    "regular convolution of many channels with stride": partial(
        convolution, x_shape=(2, 7, 8, 8), w_shape=(9, 7, 3, 3), stride=2, padding=1, groups=1
    ),
    "regular convolution 1×1": partial(
        convolution, x_shape=(5, 38, 4, 4), w_shape=(36, 19, 1, 1), stride=1, padding=0, groups=2
    ),
    "regular convolution 1×1 with stride": partial(
        convolution, x_shape=(3, 10, 6, 8), w_shape=(20, 5, 1, 1), stride=2, padding=0, groups=2
    ),
    "regular depthwise convolution": partial(
        convolution, x_shape=(2, 6, 8, 8), w_shape=(6, 1, 3, 3), stride=2, padding=1, groups=6
    ),
    "convolution by its formula": convolution_formula,
    "mix": partial(mix, C=12, L=6, secondary_groups=2),
    "mix of the down-sampling unit": partial(mix, C=24, L=6, secondary_groups=2),
    "mix of one group": partial(mix, C=6, L=3, secondary_groups=1),
    **UNITS,
    **{f"{name}, by its formulas": partial(unit, version="v1") for name, unit in UNITS.items()},
    **{f"{name}, cut anew": partial(unit, version="v3") for name, unit in UNITS.items()},
    "fused unit of 24 groups of 2": partial(
        fused, L=24, M=2, side=(8, 8), images=1, activate=True, mask=WHERE_NORMED, accumulate=True
    ),
    # as in the paper's networks, stage by stage
    "fused unit of stage 1": partial(
        fused,
        L=24,
        M=2,
        side=(32, 32),
        images=1,
        activate=True,
        mask=WHERE_NORMED,
        accumulate=True,
    ),
    "fused unit of stage 2": partial(
        fused, L=24, M=4, side=(16, 16), images=2, activate=False, mask=WHERE_Y, accumulate=False
    ),
    "fused unit of stage 3": partial(
        fused, L=24, M=8, side=(8, 8), images=3, activate=True, mask=WHERE_Y, accumulate=True
    ),
    "linear": linear,
    "softmax cross-entropy": softmax_cross_entropy,
    "softmax cross-entropy of 10": partial(softmax_cross_entropy, classes=10),
    "smoothed cross-entropy": partial(softmax_cross_entropy, smoothing=0.1),
    "head": partial(head, classes=41),
    "head of 3 classes": partial(head, classes=3),
    "head of smoothed labels": partial(head, classes=41, smoothing=0.1),
    "head by its formula": partial(head, classes=41, launch=launch_head_formula),
    "smoothed head by its formula": partial(
        head, classes=3, launch=launch_head_formula, smoothing=0.1
    ),
    "pooling 3×3": partial(pooling, size=3, stride=2, padding=1),
    "pooling 2×2": partial(pooling, size=2, stride=2, padding=0),
    "pooling 3×2, pixels alone": partial(
        pooling, size=(3, 2), stride=(1, 2), padding=(2, 1), counted=False
    ),
    "global average pool": global_average_pool,
    "Nesterov": partial(update, nesterov=True),
    "momentum": partial(update, nesterov=False),
    "parts of gradients": partial(gradients_of_parts, sizes=((36, 5), (260, 71), (4, 1))),
    "parts of odd gradients": partial(gradients_of_parts, sizes=((35, 9), (1, 3), (64, 8))),
    "one term": partial(combine, normed=[True], relu=0, accumulate=False),
    "one term and ReLU": partial(combine, normed=[True], relu=1, accumulate=True),
    "a term and a skip": partial(combine, normed=[True, False], relu=1, accumulate=False),
    "a skip and a term": partial(combine, normed=[False, True], relu=1, accumulate=True),
    "two terms of odd images": partial(
        combine, normed=(True, True), relu=1, accumulate=True, side=(5, 3)
    ),
    "a term and a skip of odd images": partial(
        combine, normed=(True, False), relu=1, accumulate=True, side=(5, 3)
    ),
    "two terms": partial(combine, normed=[True, True], relu=1, accumulate=False),
    "two terms of many pixels": partial(
        combine, normed=[True, True], relu=1, accumulate=False, side=(48, 40)
    ),
    "two terms by their formula": partial(
        combine, normed=[True, True], relu=1, accumulate=False, formula=True
    ),
    "a term by its formula": partial(
        combine, normed=[True], relu=0, accumulate=False, formula=True
    ),
    "a term and ReLU6": partial(combine, normed=[True], relu=2, accumulate=True, spread=9),
    "two terms and ReLU6": partial(
        combine, normed=[True, False], relu=2, accumulate=False, formula=True, spread=9
    ),
    "a sum": partial(combine, normed=[False, False], relu=0, accumulate=True),
    "what a batch came to": record,
    "augmentation": partial(augment, pad=2, mirror=True),
    "stem": partial(stem, height=11, width=7, channels=20, pad=2, mirror=True),
    "stem by its formula": partial(
        stem, height=11, width=7, channels=20, pad=2, mirror=True, launch=launch_stem_formula
    ),
    "stem of whole rows": partial(stem, height=8, width=32, channels=8, pad=0, mirror=False),
    "images as they are": partial(augment, pad=0, mirror=False),
}


def results(name, device, dtype):
    """Return the arrays of a case as host arrays."""
    arrays = CASES[name](Source(lambda array: to_device(array, device), dtype))
    return [to_host(array) for array in arrays]
