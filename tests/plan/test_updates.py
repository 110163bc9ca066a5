"""Updates and logits by a plan on every device, against the tape on the CPU."""

import shutil

import numpy as np
import pytest

from igcnn import Tensor, build_network
from igcnn.backend import gpu_count, to_host
from igcnn.errors import ConfigError, DeviceError, ShapeError
from igcnn.functional import global_avg_pool2d, linear, relu
from igcnn.kernels.launch import emulation
from igcnn.layers import BatchNorm, Convolution, Layer
from igcnn.optim import SGD
from igcnn.plan import Plan
from igcnn.plan.program import Arena
from igcnn.training import TapeEngine, make_engine

from .networks import CASES, Entwined, Squared, batch, small_network

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
CUDA = pytest.param("cuda:0", marks=pytest.mark.gpu)
GPUS = ["emu", CUDA]
DEVICES = ["cpu", *GPUS]


@pytest.fixture(autouse=True)
def with_a_gpu(request):
    if "cuda:0" in request.node.name and not gpu_count():
        pytest.skip("no GPU")


class NoImages:
    """A loader of images that do not lie in memory: batches come from the host."""

    split = None


def updated(engine, network, batches):
    """Return loss and right answers of updates on some batches."""
    optimizer = SGD(network.named_parameters(), lr=0.1, momentum=0.8, weight_decay=1e-3)
    engine.prepare(optimizer, NoImages)
    for one in batches:
        engine.update(one)
    return engine.collect(wait=True), optimizer


def assert_equal(actual, expected, tolerance):
    assert list(actual) == list(expected)
    for name in expected:
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name
        )


def is_frozen(name):
    # neighbours and single ones, the first and the last, weights, γ and β
    return name.startswith(("g0_", "g2_b1")) or name.endswith(("conv2_weight", "fc_bias", "gamma"))


@pytest.mark.parametrize("device", [None, *DEVICES])
def test_frozen_parameters_stay_to_the_bit(device):
    """They do not decay either, and the others are updated as if nothing were frozen."""
    networks = [small_network(dtype="float64") for _ in range(2)]
    x, labels = batch(4, dtype="float64")
    before = networks[0].state_dict()
    engine, _ = make_engine(networks[0], x.shape[1:], 4, device=device or "cpu", eager=not device)
    named = {n: p for n, p in networks[0].named_parameters() if not is_frozen(n)}
    assert 3 < len(named) < len(before) - 3
    optimizer = SGD(named.items(), lr=0.1, momentum=0.8, weight_decay=0.1)
    engine.prepare(optimizer, NoImages)
    everything = SGD(networks[1].named_parameters(), lr=0.1, momentum=0.8, weight_decay=0.1)
    tape = TapeEngine(networks[1])
    tape.prepare(everything, NoImages)
    for update in range(2):
        engine.update((x, labels))
        tape.update((x, labels))
        after = networks[0].state_dict()
        if not update:  # from the second on all gradients differ
            rest = {name: after[name] for name in named}
            expected = networks[1].state_dict()
            assert_equal(rest, {name: expected[name] for name in named}, 1e-12)
    for name, _ in networks[0].named_parameters():
        assert (after[name].tobytes() == before[name].tobytes()) == is_frozen(name), name
    assert optimizer.names == list(named)
    engine.close()


# learning rate, momentum and weight decay of updates
CONSTANTS = (0.1, 0.9, 1e-4), (0.01, 0.9, 1e-4), (0.01, 0.5, 1e-4), (0.01, 0.5, 0.1)


@pytest.mark.parametrize("device", DEVICES)
def test_constants_that_change_and_a_velocity_from_before_are_those_of_the_tape(device):
    """As in a run with a schedule that is resumed."""
    one, states = batch(5, dtype="float64"), []
    for eager in (True, False):
        network = small_network(dtype="float64")
        optimizer = SGD(network.named_parameters(), lr=0.1)
        for k, velocity in enumerate(optimizer.velocity):
            velocity += 0.01 * (k % 3)
        engine, _ = make_engine(network, (3, 8, 8), 5, device=device, eager=eager)
        engine.prepare(optimizer, NoImages)
        for constants in CONSTANTS:
            optimizer.lr, optimizer.momentum, optimizer.weight_decay = constants
            engine.update(one)
        states.append((network.state_dict(), engine.collect(wait=True)))
        engine.close()
    (expected, losses), (actual, others) = states
    np.testing.assert_allclose(others, losses, rtol=1e-9)
    assert_equal(actual, expected, 1e-9)  # four updates amplify rounding


@pytest.mark.parametrize(("net", "L", "M"), [("resnet_igc", 24, 2), ("resnet", 16, 1)])
def test_gradients_of_the_papers_shapes(net, L, M):
    """64 images of 32×32, as in training on CIFAR-10: L24M2, and 16, 32 and 64 channels."""
    networks = [
        build_network(net, depth=8, L=L, M=M, num_classes=10, dtype="float64") for _ in range(2)
    ]
    x, labels = batch(64, 32, "float64")
    expected = TapeEngine(networks[0]).step(x, labels)
    plan = Plan(networks[1], (3, 32, 32), 64)
    ((loss, correct),), _ = updated(plan, networks[1], [(x, labels)])
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert correct == expected[1]
    gradients = dict(networks[0].named_parameters())
    for tensor, gradient in zip(plan.parameters.tensors, plan.parameters.gradients, strict=True):
        own = gradients[tensor.name].grad
        error = np.abs(gradient - own).max()
        assert error <= 1e-11 * max(1, np.abs(own).max()), tensor.name
    plan.close()


@pytest.mark.parametrize("device", DEVICES)
def test_label_smoothing_is_that_of_the_tape(device):
    networks = [small_network(dtype="float64") for _ in range(2)]
    x, labels = batch(5, dtype="float64")
    tape = TapeEngine(networks[0], label_smoothing=0.2)
    expected, _ = updated(tape, networks[0], [(x, labels)] * 2)
    plan, _ = make_engine(networks[1], x.shape[1:], 5, device=device, label_smoothing=0.2)
    actual, _ = updated(plan, networks[1], [(x, labels)] * 2)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-12)
    plain = TapeEngine(small_network(dtype="float64"))
    assert updated(plain, plain.network, [(x, labels)])[0][0][0] != actual[0][0]
    plan.close()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("net", "settings", "side", "images"), CASES)
def test_updates_are_those_of_the_tape(net, settings, side, images, device):
    networks = [build_network(net, num_classes=7, dtype="float64", **settings) for _ in range(2)]
    x, labels = batch(images, side, "float64")
    batches = [(x, labels % 7), (x[::-1], (labels[::-1] + 1) % 7)]
    tape = TapeEngine(networks[0])
    plan = Plan(networks[1], x.shape[1:], images, device)
    expected, optimizer = updated(tape, networks[0], batches)
    actual, other = updated(plan, networks[1], batches)
    plan.refresh()
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-12)
    for v, w in zip(other.velocity, optimizer.velocity, strict=True):
        # one update more amplifies rounding: a batch norm divides by what may be small
        scale = max(1.0, np.abs(w).max())
        np.testing.assert_allclose(to_host(v), w, rtol=0, atol=1e-11 * scale)
    for count in (images, max(1, images - 2)):
        logits = tape.logits(x[:count])
        scale = max(1.0, np.abs(logits).max())
        np.testing.assert_allclose(plan.logits(x[:count]), logits, atol=1e-11 * scale)
    plan.close()
    assert {tensor.device for tensor in networks[1].parameters()} == {"cpu"}


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize(
    ("net", "L", "M", "fused", "recomputed"),
    [("resnet_igc", 3, 2, 6, 3), ("plain_igc", 6, 2, 2, 1), ("resnet_igc", 3, 4, 6, 3)],
)
def test_updates_by_fused_kernels_are_those_of_the_tape(net, L, M, fused, recomputed, device):
    """In the first stage: the images of the others are too small for them here."""
    settings = {"depth": 20 if net == "resnet_igc" else 8, "L": L, "M": M, "num_classes": 7}
    networks = [build_network(net, dtype=dtype, **settings) for dtype in ("float64", "float32")]
    x, labels = batch(5, 16 if M == 4 else 8, "float32")
    tape, plan = TapeEngine(networks[0]), Plan(networks[1], x.shape[1:], 5, device)
    assert len(plan.program.fusion.units) >= fused
    assert len(plan.program.fusion.recomputed) >= recomputed
    expected, _ = updated(tape, networks[0], [(x.astype("float64"), labels % 7)])
    actual, _ = updated(plan, networks[1], [(x, labels % 7)])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-5)
    gradients = dict(networks[0].named_parameters())
    for tensor, gradient in zip(plan.parameters.tensors, plan.parameters.gradients, strict=True):
        own = gradients[tensor.name].grad
        error = np.abs(to_host(gradient) - own).max()
        assert error <= 1e-4 * np.abs(own).max(), tensor.name
    plan.refresh()
    logits = tape.logits(x.astype("float64"))
    np.testing.assert_allclose(plan.logits(x), logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("device", GPUS)
def test_a_gradient_that_others_read_is_not_changed(device):
    networks = [Entwined(dtype) for dtype in ("float64", "float32")]
    x, labels = batch(5)
    tape, plan = TapeEngine(networks[0]), Plan(networks[1], x.shape[1:], 5, device)
    assert len(plan.program.fusion.units) == 2
    expected, _ = updated(tape, networks[0], [(x.astype("float64"), labels)])
    actual, _ = updated(plan, networks[1], [(x, labels)])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    own = plan.parameters
    gradients = {id(t): g for t, g in zip(own.tensors, own.gradients, strict=True)}
    for (name, tape_s), tensor in zip(
        networks[0].named_parameters(), networks[1].parameters(), strict=True
    ):
        error = np.abs(to_host(gradients[id(tensor)]) - tape_s.grad).max()
        assert error <= 1e-4 * np.abs(tape_s.grad).max(), name


@pytest.mark.parametrize("device", GPUS)
def test_the_tape_runs_on_the_device(device):
    networks = [small_network(dtype="float64") for _ in range(2)]
    x, labels = batch(5, dtype="float64")
    expected, _ = updated(TapeEngine(networks[0]), networks[0], [(x, labels)] * 2)
    engine, words = make_engine(networks[1], x.shape[1:], 5, device=device, eager=True)
    assert words == f"tape on {device} (--eager)"
    actual, optimizer = updated(engine, networks[1], [(x, labels)] * 2)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-12)
    assert {tensor.device for tensor in networks[1].parameters()} == {device}
    assert type(optimizer.velocity[0]) is type(networks[1].parameters()[0].data)
    np.testing.assert_allclose(
        engine.logits(x), TapeEngine(networks[0]).logits(x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_equal_to_the_bit(device):
    states = []
    for _ in range(2):
        network = small_network()
        plan = Plan(network, (3, 8, 8), 9, device)
        results, _ = updated(plan, network, [batch(9)] * 3)
        states.append((results, [a.tobytes() for a in network.state_dict().values()]))
    assert states[0] == states[1]


@pytest.mark.parametrize("device", GPUS)
def test_bfloat16_keeps_activations_in_two_bytes(device):
    network = small_network()
    plan = Plan(network, (3, 8, 8), 9, device, precision="bf16")
    half = plan.program.arena.used
    results, _ = updated(plan, network, [batch(9)] * 2)
    other = small_network()
    expected, _ = updated(TapeEngine(other), other, [batch(9)] * 2)
    np.testing.assert_allclose([r[0] for r in results], [r[0] for r in expected], rtol=0.02)
    # weights stay whole: what they lose comes from the gradients
    assert all(tensor.dtype == np.float32 for tensor in network.parameters())
    logits = TapeEngine(other).logits(batch(9)[0])
    np.testing.assert_allclose(plan.logits(batch(9)[0]), logits, atol=0.1 * np.abs(logits).max())
    full = Plan(small_network(), (3, 8, 8), 9, device).program.arena.used
    assert half < 0.65 * full


def test_check_mode_finds_nothing_in_an_update():
    """Through the whole GPU path: dispatch, packing, plan."""
    network = small_network(L=3)
    with emulation(checked=True):
        plan = Plan(network, (3, 8, 8), 3, "emu")
        assert plan.program.fusion.units
        results, _ = updated(plan, network, [batch(3)])
        plan.logits(batch(3)[0])
    assert np.isfinite(results[0][0])


def test_losses_are_kept_on_the_device_until_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("igcnn.plan.plan.SLOTS", 4)
    network = small_network(L=2)
    plan = Plan(network, (3, 8, 8), 3, "emu")
    plan.prepare(SGD(network.parameters(), lr=0.1), NoImages)
    one, told = batch(3), []
    for _ in range(7):
        plan.update(one)
        told.append(len(plan.collect(wait=False)))
    assert told == [0, 2, 0, 2, 0, 2, 0]
    assert len(plan.collect(wait=True)) == 1
    assert plan.collect(wait=True) == []


def test_what_has_no_plan_on_a_device_runs_on_its_tape():
    engine, words = make_engine(Squared(), (3, 8, 8), 4, device="emu")
    assert isinstance(engine, TapeEngine)
    assert words.startswith("tape on emu (no plan: ")


def test_a_batch_that_is_too_large_for_the_device_is_told_one_that_fits(monkeypatch):
    needed = Plan(small_network(), (3, 8, 8), 16, "emu").program.arena.used
    monkeypatch.setattr("igcnn.plan.plan.free_bytes", lambda _: needed / 2)
    with pytest.raises(DeviceError, match=r"batch size 16 needs .* --batch-size 8 fits") as error:
        make_engine(small_network(), (3, 8, 8), 16, device="emu")
    assert error.value.exit_code == 4
    monkeypatch.setattr("igcnn.plan.plan.free_bytes", lambda _: needed / 1.9)
    Plan(small_network(), (3, 8, 8), 8, "emu")


def test_what_cannot_be_is_refused():
    plan = Plan(small_network(), (3, 8, 8), 3, "emu")
    with pytest.raises(ShapeError, match="4 images exceed the batch size 3"):
        plan.logits(batch(4)[0])
    with pytest.raises(ConfigError, match="precision must be one of fp32, fp64, bf16, not half"):
        make_engine(small_network(), (3, 8, 8), 4, precision="half")
    with pytest.raises(ConfigError, match="bf16 needs a plan on a GPU"):
        make_engine(small_network(), (3, 8, 8), 4, precision="bf16")


def test_an_optimizer_of_other_parameters_is_refused():
    network = small_network()
    plan = Plan(network, (3, 8, 8), 3, "emu")
    extra = Tensor(np.ones(2, np.float32), requires_grad=True)
    given = [*network.named_parameters(), ("extra", extra)]
    with pytest.raises(ConfigError, match="which extra does not; leave it out"):
        plan.prepare(SGD(given, lr=0.1), NoImages)
    optimizer = SGD(network.named_parameters(), lr=0.1)
    plan.prepare(optimizer, NoImages)
    optimizer.nesterov = False
    with pytest.raises(ConfigError, match="a plan cannot change nesterov"):
        plan.update(batch(3))


class Assigned(Layer):
    """A network of attributes alone."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.convs = [
            Convolution(channels, 4, 3, padding=1, rng=rng, dtype="float64") for channels in (3, 4)
        ]
        self.norms = {name: BatchNorm(4, dtype="float64") for name in "ab"}
        self.weight = Tensor(rng.standard_normal((10, 4)), requires_grad=True)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms.values(), strict=True):
            x = relu(norm(conv(x)))
        return linear(global_avg_pool2d(x), self.weight)


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_of_attributes_is_planned(device):
    networks = [Assigned(), Assigned()]
    one = batch(5, dtype="float64")
    engine, how = make_engine(networks[1], (3, 8, 8), 5, device=device)
    assert "no plan" not in how
    expected, _ = updated(TapeEngine(networks[0]), networks[0], [one] * 3)
    results, _ = updated(engine, networks[1], [one] * 3)
    engine.close()
    np.testing.assert_allclose(results, expected, rtol=1e-12)
    assert_equal(networks[1].state_dict(), networks[0].state_dict(), 1e-12)
    assert networks[1].norms["a"].moving_mean.any()


def test_the_arena_hands_out_what_was_given_back():
    counting, arena = Arena("emu"), None
    for _ in range(2):
        for one in filter(None, (counting, arena)):
            a = one.take((50, 3), "float32")
            b = one.take((7,), "float64")
            one.give(a)
            c = one.take((150,), "float32")
            d = one.take((150,), "float32")
            assert (a.shape, b.dtype, c.shape, d.shape) == ((50, 3), np.float64, (150,), (150,))
        arena = Arena("emu", counting.used)
    assert np.shares_memory(a, c)
    for one, other in ((c, d), (b, c), (b, d)):
        assert not np.shares_memory(one, other)
