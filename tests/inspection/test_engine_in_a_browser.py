"""The page's engine in a real browser: NumPy's numbers, forward and backward, every network."""

import base64
from collections import Counter

import numpy as np
import pytest

from igcnn import build_network
from igcnn.autograd import Tensor, no_grad
from igcnn.functional import (
    avg_pool2d,
    conv2d,
    cross_entropy,
    global_avg_pool2d,
    interleaved_group_conv2d,
    linear,
    max_pool2d,
    permute_channels,
    relu,
    relu6,
)
from igcnn.inspection.page import ENGINE, script
from igcnn.inspection.steps import StepError, multiply_adds, read_steps
from igcnn.layers import BatchNorm, Chain, Layer, summary, undisturbed

NETWORKS = [
    dict(net="plain", depth=5, L=6),
    dict(net="resnet", depth=8, L=4, M=1),
    dict(net="resnet_igc", depth=8, L=6, M=2),
    dict(net="plain_igc", depth=5, L=4, M=3, fusion="summation"),
    dict(net="resnet_igc_imgnet_d18", L=2, M=2),
    dict(net="igcv2", depth=8, factors="4,4", width=16),
    dict(net="igcv3", width_mult=0.25, blocks="1,1,1,1,1,1,1"),
    dict(net="merge_and_run", depth=8),
]
LONG = [
    dict(net="resnet_igc", depth=20, L=24, M=2),
    dict(net="resnet_igc", depth=38, L=24, M=2),
    dict(net="resnet_imgnet_d18", L=4, M=1),
    dict(net="plain_igc_equal", depth=8),
    dict(net="igcv2"),
    dict(net="igcv3"),
    dict(net="igcv3_imgnet"),
    dict(net="mobilenetv2"),
    dict(net="mobilenetv2_imgnet"),
    dict(net="merge_and_run", depth=14),
]
ULPS = 12  # of the largest number of a layer that is given NumPy's inputs
DRIFT = 3  # more for each step before, where the engine goes on from its own numbers

# the whole network, and each step by itself from NumPy's inputs
COMPUTE = """([program, weights, x, label, tensors, gradients]) => {
  const read = (text) => text === null ? null : new Float32Array(
    Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const write = (a) => a && btoa(Array.from(new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
    (byte) => String.fromCharCode(byte)).join(""));
  const w = read(weights), arrays = arraysOf(program, w);
  const own = compute({ program, weights: w, x: read(x), label, silenced: {} });
  const steps = program.steps.map((step) => {
    const { own: parts, shape } = partsOf(program, arrays, step), s = sizesOf(program, step);
    const inputs = step.inputs.map((k) => read(tensors[k])), gy = read(gradients[step.output]);
    const y = OPS[step.op].forward(step, s, inputs, parts, shape);
    const theirs = read(tensors[step.output]);
    const back = gy && OPS[step.op].backward(step, s, gy, inputs, parts, shape, theirs);
    return { y: write(y), inputs: back && back.inputs.map(write) };
  });
  return {
    values: own.values.map(write), gradients: own.gradients.map(write), steps,
    weights: write(own.ofWeights), loss: own.loss, label: own.label,
    probabilities: [...own.probabilities],
  };
}"""


def encoded(array):
    if array is None:
        return None
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def decoded(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def ulps(found, expected):
    """The largest difference in units of the last place of the largest number."""
    expected = np.ravel(expected).astype(np.float64)
    largest = max(np.abs(expected).max(), float(np.finfo(np.float32).tiny))
    return np.abs(found - expected).max() / np.spacing(np.float32(largest))


def trained(**settings):
    """A network whose running statistics are those of images, and an image."""
    network = build_network(**settings, num_classes=7)
    rng = np.random.default_rng(3)
    side = 33 if "imgnet" in settings["net"] else 9
    images = rng.standard_normal((4, 3, side, side)).astype(np.float32)
    for _, layer in network.named_layers():
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0  # the statistics of one batch are all that is kept
    with no_grad():
        network.train()(images)
    for tensor in network.parameters():
        if tensor.data.ndim == 1:  # γ, β and the bias are not what they were made as
            tensor.data += rng.normal(0, 0.1, tensor.shape).astype(np.float32)
    return network, images[:1]


@pytest.fixture(scope="module")
def computed(browser):
    """Return a function: what the engine computes for steps, in a page without anything else."""
    page = browser.new_page()
    page.add_script_tag(content=script(ENGINE))

    def compute(steps, label=-1):
        weights = np.concatenate([array.ravel() for array in steps.arrays])
        values, gradients = map(encoded, steps.values), map(encoded, steps.gradients)
        image = encoded(steps.values[0])
        arguments = [steps.to_json(), encoded(weights), image, label, [*values], [*gradients]]
        return page.evaluate(COMPUTE, arguments)

    yield compute
    page.close()


def whole_way(steps):
    return ULPS + DRIFT * len(steps.steps)


def compare(steps, found):
    assert found["label"] == steps.label
    assert found["loss"] == pytest.approx(steps.loss, rel=1e-5)
    reached = [g for g in steps.gradients if g is not None]
    assert len(reached) > 0.7 * len(steps.shapes)
    for number, (value, gradient) in enumerate(zip(steps.values, steps.gradients, strict=True)):
        assert ulps(decoded(found["values"][number]), value) < ULPS + DRIFT * number, number
        if gradient is not None:
            assert ulps(decoded(found["gradients"][number]), gradient) < whole_way(steps), number
    read = Counter(number for step in steps.steps for number in step["inputs"])
    for step, own in zip(steps.steps, found["steps"], strict=True):
        assert ulps(decoded(own["y"]), steps.values[step["output"]]) < ULPS, step
        for number, gx in zip(step["inputs"], own["inputs"] or [], strict=False):
            if read[number] == 1 and steps.gradients[number] is not None:
                assert ulps(decoded(gx), steps.gradients[number]) < ULPS, step


def check(computed, network, x):
    steps = read_steps(network, x, label=4)
    assert np.any(steps.gradients[0])
    found = computed(steps, label=4)
    compare(steps, found)
    with undisturbed(network, training=False):
        cross_entropy(network(x), np.array([4])).backward()
        gradients = {name: tensor.grad for name, tensor in network.named_parameters()}
    flat, at, seen = decoded(found["weights"]), 0, set()
    for name, array in zip(steps.names, steps.arrays, strict=True):
        if name in gradients:
            assert ulps(flat[at : at + array.size], gradients[name]) < whole_way(steps), name
            seen.add(name)
        at += array.size
    assert seen == set(gradients)


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: s["net"])
def test_every_layer_and_gradient_is_numpys(computed, settings):
    check(computed, *trained(**settings))


@pytest.mark.long
@pytest.mark.parametrize("settings", LONG, ids=lambda s: f"{s['net']}-{s.get('depth', '')}")
def test_the_products_networks_are_numpys(computed, settings):
    check(computed, *trained(**settings))


class Odd(Layer):
    """Every operation in shapes that no network has."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(5)

        def weight(*shape):
            return Tensor(0.3 * rng.standard_normal(shape, np.float32), requires_grad=True)

        self.w = [weight(12, 3, 2, 5), weight(8, 3, 3, 1), weight(24, 1, 1, 1)]
        self.w += [weight(24, 8, 4, 4), weight(24, 6, 1, 1), weight(5, 24)]
        self.b = [weight(12), weight(5)]

    def forward(self, x):
        w, b = self.w, self.b
        x = conv2d(x, w[0], b[0], stride=(2, 3), padding=(3, 1))
        x = relu6(conv2d(x, w[1], stride=1, padding=(2, 0), groups=4) * 0.5)
        x = permute_channels(max_pool2d(x, (3, 2), (2, 1), (1, 1)), 4)
        x = avg_pool2d(x, (2, 3), (1, 2), (1, 2))
        x = relu(avg_pool2d(x, 3, 1, 1, count_include_pad=False) + x)
        x = conv2d(x, w[2], groups=8)
        x = interleaved_group_conv2d(x, w[3], w[4], (1, 2), (2, 3), L=3, secondary_groups=4)
        return linear(global_avg_pool2d(x), w[5], b[1])


def test_odd_shapes(computed):
    x = np.random.default_rng(1).standard_normal((1, 3, 13, 19)).astype(np.float32)
    x[:, :, :6] = np.round(x[:, :, :6])  # ties
    check(computed, Odd(), x)


def test_the_most_probable_class_is_the_default(computed):
    network, x = trained(net="plain", depth=5, L=4)
    steps = read_steps(network, x)
    found = computed(steps)
    assert found["label"] == steps.label == int(np.argmax(found["probabilities"]))
    assert sum(found["probabilities"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("settings", NETWORKS[:4], ids=lambda s: s["net"])
def test_steps_cost_what_the_summary_says(settings):
    network, x = trained(**settings)
    expected = summary.summarize(network, x.shape[1:])
    steps = read_steps(network, x)
    assert multiply_adds(steps) == expected.macs
    named = {step["layer"] for step in steps.steps} - {""}
    assert named == {layer.name for layer in expected.layers}


def test_what_has_no_step_is_said():
    network, x = trained(net="plain", depth=5, L=4)

    with pytest.raises(StepError, match="product of two tensors"):
        read_steps(Squared(network.children()), x)
    with pytest.raises(StepError, match="depend on the image"):
        read_steps(Constant(network.children()), x)


class Squared(Chain):
    def forward(self, x):
        return super().forward(x * x)


class Constant(Chain):
    def forward(self, x):
        return Tensor(np.ones((1, 3), np.float32))
