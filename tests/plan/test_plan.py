"""What is particular to plans on the CPU: threads, evaluation, values set by hand, graphs."""

import numpy as np
import pytest

from igcnn import build_network
from igcnn.datasets import Loader
from igcnn.datasets.dataset import Augmentation, Split
from igcnn.errors import KernelError, PlanError, ShapeError
from igcnn.functional import add, conv2d, global_avg_pool2d, linear
from igcnn.kernels.convolution import Packed, compiled_convolution_pack
from igcnn.kernels.geometry import convolution_fields
from igcnn.kernels.lanes import Lanes
from igcnn.optim import SGD
from igcnn.plan import Plan
from igcnn.plan.trace import trace
from igcnn.training import TapeEngine, make_engine

from .networks import (
    CASES,
    Biased,
    Blocks,
    Crossed,
    Permuted,
    Pooled,
    Squared,
    Summed,
    batch,
    small_network,
)
from .test_updates import NoImages, assert_equal, updated


@pytest.mark.parametrize(("net", "settings", "side", "images"), CASES)
def test_logits_are_those_of_the_tape(net, settings, side, images):
    network = build_network(net, num_classes=10, dtype="float64", **settings)
    x, labels = batch(images, side, "float64")
    TapeEngine(network).step(x, labels)  # statistics other than 0 and 1
    rng = np.random.default_rng(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    for size in (1, images):
        with Plan(network, x.shape[1:], size, training=False) as plan:
            plan.refresh()
            for count in (size, max(1, size - 2)):
                expected = TapeEngine(network).logits(x[:count])
                scale = max(1.0, np.abs(expected).max())
                np.testing.assert_allclose(plan.logits(x[:count]), expected, atol=1e-12 * scale)


@pytest.mark.parametrize("images", [1, 7, 17, 37, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_batch_size(images, dtype):
    networks = [small_network(dtype=d) for d in ("float64", dtype)]
    x, labels = batch(images, dtype="float64")
    tape, plan = TapeEngine(networks[0]), Plan(networks[1], x.shape[1:], images)
    expected, _ = updated(tape, networks[0], [(x, labels)])
    actual, _ = updated(plan, networks[1], [(x.astype(dtype), labels)])
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=tolerance)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), tolerance)


@pytest.mark.parametrize("device", ["cpu", "emu"])
@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_a_gradient_ends_when_all_that_read_a_tensor_have_added_theirs(projected, six, device):
    networks = [Blocks(projected, six) for _ in range(2)]
    x, labels = batch(5, dtype="float64")
    expected, _ = updated(TapeEngine(networks[0]), networks[0], [(x, labels)])
    plan = Plan(networks[1], x.shape[1:], 5, device)
    actual, _ = updated(plan, networks[1], [(x, labels)])
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-12)


@pytest.mark.parametrize("device", ["cpu", "emu"])
@pytest.mark.parametrize(("make", "images"), [(Pooled, 5), (Permuted, 16), (Crossed, 5)])
def test_windows_permutations_and_sums_beside_any_operation(make, images, device):
    networks = [make() for _ in range(2)]
    x, labels = batch(images, dtype="float64")
    expected, _ = updated(TapeEngine(networks[0]), networks[0], [(x, labels)])
    engine, words = make_engine(networks[1], x.shape[1:], images, device=device)
    assert not isinstance(engine, TapeEngine), words
    actual, _ = updated(engine, networks[1], [(x, labels)])
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-11)
    engine.refresh()
    logits = TapeEngine(networks[0]).logits(x)
    np.testing.assert_allclose(engine.logits(x), logits, atol=1e-10 * np.abs(logits).max())


def trained(threads, images=37, updates=3):
    """Return all that some updates by a plan leave, as bytes."""
    network = small_network()
    optimizer = SGD(network.parameters(), lr=0.1)
    x, labels = batch(images)
    with Plan(network, x.shape[1:], images, threads=threads) as plan:
        plan.prepare(optimizer, NoImages)
        for k in range(updates):
            optimizer.lr = 0.1 / (k + 1)
            plan.update((x, labels))
        losses = plan.collect(wait=True)
        plan.refresh()
        logits = plan.logits(x)
    state = {name: array.tobytes() for name, array in network.state_dict().items()}
    return losses, logits.tobytes(), state


def test_convolutions_permute_channels_where_their_kernels_can():
    plan = Plan(Permuted(), (3, 8, 8), 16)
    left = [o for o in plan.program.graph.operations if o.name == "permutation"]
    # from and to Winograd's kernels; from one sum to another; the second after a convolution;
    # after a convolution that others read
    assert [operation.branches for operation in left] == [2, 4, 2, 2, 8]
    found = [o.branches for o in plan.program.graph.operations if o.name == "convolution"]
    assert found == [(1, 1), (1, 1), (1, 1), (8, 1), (8, 1), (1, 2), (1, 1), (1, 1)]
    assert len(plan.program.recomputed) == 1


def test_any_number_of_threads_gives_the_same_bits():
    results = [trained(threads) for threads in (1, 2, 4, 7)]
    assert results[1:] == results[:1] * 3


def test_only_convolutions_and_residual_sums_are_stored():
    network = build_network("resnet_igc", depth=14, L=4, M=2, num_classes=10)
    plan = Plan(network, (3, 8, 8), 2)
    inner = [
        operation.y
        for operation in plan.graph.operations
        if operation.name == "norm_add_relu" and len(operation.terms) == 1
    ]
    # that within each of 6 blocks; what the first convolution gives is a shortcut too
    assert len(inner) == 7
    assert list(plan.program.recomputed) == inner[1:]


def test_evaluation_is_nothing_but_convolutions_and_the_head():
    network = build_network("resnet_igc", depth=14, L=4, M=2, num_classes=10)
    plan = Plan(network, (3, 8, 8), 2, training=False)
    kernels = [call.func.__name__.removeprefix("compiled_") for call in plan.program.evaluation]
    assert set(kernels[:-2]) == {"convolution_forward", "igc_forward"}
    assert kernels[-2:] == ["global_average_pool_forward", "linear_forward"]


def test_a_plan_leaves_the_network_whole():
    network = small_network()
    x, labels = batch(5)
    plan = Plan(network, x.shape[1:], 5)
    updated(plan, network, [(x, labels)])
    before = network.state_dict()
    plan.close()
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    TapeEngine(network).step(x, labels)


def test_two_plans_of_one_network_see_the_same_parameters():
    network = small_network()
    x, labels = batch(5)
    plan, other = Plan(network, x.shape[1:], 5), Plan(network, x.shape[1:], 5, training=False)
    updated(plan, network, [(x, labels)] * 2)
    other.refresh()
    expected = TapeEngine(network).logits(x)
    np.testing.assert_allclose(other.logits(x), expected, atol=1e-5 * np.abs(expected).max())
    plan.update((x, labels))
    other.refresh()
    assert np.abs(other.logits(x) - expected).max() > 1e-3


def test_too_many_images():
    with Plan(small_network(), (3, 8, 8), 4, training=False) as plan:
        plan.refresh()
        with pytest.raises(ShapeError, match="5 images exceed the batch size 4"):
            plan.logits(batch(5)[0])


def test_weights_set_between_updates_are_used():
    network = small_network()
    x, labels = batch(6)
    plan = Plan(network, x.shape[1:], 6)
    updated(plan, network, [(x, labels)])
    for parameter in network.parameters():
        parameter.data = np.zeros_like(parameter.data)
    plan.update((x, labels))
    ((loss, _),) = plan.collect(wait=True)
    assert loss == pytest.approx(np.log(10), abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_weight_reaches_the_loss(value):
    """A ReLU that turns NaN into 0 would hide it."""
    network = small_network()
    x, labels = batch(6)
    plan = Plan(network, x.shape[1:], 6)
    network.parameters()[3].data[0] = value
    ((loss, _),), _ = updated(plan, network, [(x, labels)])
    assert not np.isfinite(loss)
    plan.refresh()
    assert not np.isfinite(plan.logits(x)).any()


def test_parameters_begin_where_a_vector_of_four_may():
    network = build_network("plain_igc", depth=8, L=3, M=3, num_classes=7)
    plan = Plan(network, (3, 8, 8), 2)
    assert any(tensor.size % 4 for tensor in plan.parameters.tensors)
    assert not any(start % 4 for start in plan.parameters.starts)


def test_what_has_no_plan_is_computed_on_the_tape():
    engine, words = make_engine(Squared(), (3, 8, 8), 4)
    assert isinstance(engine, TapeEngine)
    assert words.startswith("tape (no plan: the operation")


def test_without_compiled_kernels_the_tape_computes(monkeypatch):
    monkeypatch.setenv("IGCNN_COMPILED", "0")
    engine, words = make_engine(small_network(), (3, 8, 8), 4)
    assert isinstance(engine, TapeEngine)
    assert words == "tape (no plan: IGCNN_COMPILED=0)"


def test_eager_is_the_tape():
    engine, words = make_engine(small_network(), (3, 8, 8), 4, eager=True)
    assert isinstance(engine, TapeEngine)
    assert words == "tape (--eager)"


class Headless(Biased):
    def forward(self, x):
        return global_avg_pool2d(x)


class TwoClassifiers(Biased):
    def forward(self, x):
        x = linear(global_avg_pool2d(x), self.u)
        return linear(x, self.t)

    def __init__(self):
        super().__init__()
        self.t = self.add_parameter("t", np.ones((5, 4)))


class Tied(Biased):
    def forward(self, x):
        return linear(global_avg_pool2d(add(conv2d(x, self.w), conv2d(x, self.w))), self.v)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Tied(), "w is used by two operations"),
        (Biased(), "bias"),
        (Squared(), "operation"),
        (Summed(), "use functional.add"),
        (Headless(), "does not end in"),
        (TwoClassifiers(), "only at the end, after a global mean"),
    ],
)
def test_what_has_no_plan_is_named(network, words):
    with pytest.raises(PlanError, match=words):
        trace(network, (3, 8, 8))


class FromTheHost:
    """Images that are augmented by the loader instead of by the plan."""

    def __init__(self, split):
        self.batches = split.batches
        self.labels = split.labels

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize("device", ["cpu", "emu"])
def test_images_that_the_plan_augments_are_those_of_the_loader(device):
    """With a falling learning rate, a seed of more than 32 bits and a late start."""
    rng = np.random.default_rng(4)
    split = Split(rng.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, 40))
    results = []
    for resident in (True, False):
        settings = {"mean": (120.0, 110.0, 100.0), "std": (60.0, 61.0, 62.0), "seed": 2**33 + 5}
        loader = Loader(split, batch_size=17, augmentation=Augmentation(2, True), **settings)
        if not resident:
            loader.split = FromTheHost(split)
        network = small_network()
        optimizer = SGD(network.named_parameters(), lr=0.1)
        plan = Plan(network, (3, 8, 8), 17, device, threads=2)
        plan.prepare(optimizer, loader)
        for epoch, start in ((0, 0), (1, 1)):
            for batch_ in plan.batches(epoch, start):
                plan.update(batch_)
                optimizer.lr *= 0.7
        state = {name: array.tobytes() for name, array in network.state_dict().items()}
        results.append((plan.collect(wait=True), state))
    (losses, state), (others, other) = results
    assert len(losses) == 5
    if device == "cpu":  # elsewhere the launch that augments is the first convolution too
        assert (losses, state) == (others, other)
    np.testing.assert_allclose(losses, others, rtol=1e-4)


def test_packed_weights_of_another_size_are_refused():
    lanes = Lanes(4, "float32")
    sizes = convolution_fields((16, 8, 8), (16, 8, 8), (3, 3), (1, 1), (1, 1), 1)
    w = np.zeros((16, 16, 3, 3), np.float32)
    packed = [Packed(w.ravel().copy(), w.ravel().copy())]  # as many as the direct kernels take
    with pytest.raises(KernelError, match="packed weights take 9216 numbers, not 2304"):
        compiled_convolution_pack(lanes, [w], None, packed, sizes, wait=True)
