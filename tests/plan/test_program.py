"""A plan computes what the tape computes."""

import numpy as np
import pytest

from igcnn import build_network
from igcnn.backend import single_threaded_blas
from igcnn.errors import PlanError
from igcnn.functional import add, conv2d, cross_entropy, global_avg_pool2d, linear, relu
from igcnn.layers import BatchNorm, Layer
from igcnn.plan.graph import Graph, trace
from igcnn.plan.program import TrainingProgram
from igcnn.plan.shard import Memory, shard_sizes

# network, settings, side of the image, batch
CASES = [
    ("resnet_igc", {"depth": 8, "L": 2, "M": 3}, 8, 5),
    ("resnet_igc", {"depth": 14, "L": 4, "M": 2}, 8, 18),
    ("plain_igc", {"depth": 8, "L": 3, "M": 2}, 9, 5),
    ("plain_igc", {"depth": 8, "L": 1, "M": 4}, 8, 2),
    ("plain_igc", {"depth": 8, "L": 4, "M": 1}, 7, 3),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "summation"}, 8, 5),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "four_branch"}, 8, 5),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "identity"}, 8, 5),
    ("resnet", {"depth": 8, "L": 5, "M": 1}, 11, 7),
    ("plain", {"depth": 8, "L": 5, "M": 1}, 8, 1),
    ("plain", {"depth": 5, "L": 16, "M": 1}, 32, 8),  # 19 rows of a channel at a time
    ("plain", {"depth": 5, "L": 16, "M": 1}, 32, 18),  # 8 rows
    ("resnet_imgnet_d18", {"L": 4, "M": 1}, 33, 3),
    ("resnet_igc_imgnet_d18", {"L": 4, "M": 2}, 33, 3),
    ("resnet_igc_imgnet_d18", {"L": 2, "M": 4, "growth": "M"}, 32, 5),
]


def make_memory(traced, image_shape, batch):
    weights = [tensor.data for tensor in traced.weights]
    graph = traced.graph
    shards = len(shard_sizes(batch))
    return Memory(
        images=np.zeros((*image_shape, batch), graph.dtype),
        labels=np.zeros(batch, np.int64),
        weights=weights,
        gradients=[[np.full_like(w, np.nan) for w in weights] for _ in range(shards)],
        statistics=[np.zeros((2, shards, 2, weights[n.gamma].size)) for n in graph.norms],
        losses=np.zeros(shards),
        hits=np.zeros(shards),
        running=[np.zeros((2, weights[n.gamma].size)) for n in graph.norms],
        logits=np.zeros((*graph.shapes[graph.logits], batch), graph.dtype),
    )


def run(programs):
    """Execute a step by several programs in turn, as processes would."""
    for program in programs:
        for call in program.refresh:
            call()
    for k in range(len(programs[0].segments)):
        for program in programs:
            for call in program.segments[k]:
                call()
        for program in programs:
            for call in program.merges[k]:
                call()


def gradients_of(graph, memory, program):
    total = {i: sum(shard[i] for shard in memory.gradients) for i in range(len(graph.weights))}
    for norm, statistics in zip(graph.norms, program.norms, strict=True):
        total[norm.gamma], total[norm.beta] = statistics.ggamma, statistics.gbeta
    return {i: g for i, g in total.items() if graph.trained[i]}


@pytest.mark.parametrize(("net", "settings", "side", "batch"), CASES)
def test_loss_and_gradients_are_those_of_the_tape(net, settings, side, batch):
    network = build_network(net, num_classes=10, dtype="float64", **settings)
    check_against_tape(network, side, batch)


def check_against_tape(network, side, batch):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((batch, 3, side, side)), rng.integers(0, 10, batch)
    before = network.state_dict()
    traced = trace(network, (3, side, side))
    graph = traced.graph
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    memory = make_memory(traced, (3, side, side), batch)
    memory.images[...] = x.transpose(1, 2, 3, 0)
    memory.labels[...] = labels
    program = TrainingProgram(graph, memory, list(range(len(memory.losses))))
    with single_threaded_blas():
        run([program])
        run([program])  # a second step finds the memory as the first left it
    logits = network(x)
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert memory.losses.sum() == pytest.approx(loss.item(), abs=1e-12)
    assert memory.hits.sum() == np.count_nonzero(logits.data.argmax(axis=1) == labels)
    for i, gradient in gradients_of(graph, memory, program).items():
        expected = traced.weights[i].grad
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * scale)


class Blocks(Layer):
    """A residual block of another form than those of the paper's networks, after a first layer."""

    def __init__(self, projected):
        super().__init__()
        self.projected = projected
        rng = np.random.default_rng(3)
        for name, kernel, inputs in (("a", 3, 3), ("b", 3, 4), ("c", 3, 4), ("d", 1, 4)):
            weight = rng.standard_normal((4, inputs, kernel, kernel))
            setattr(self, name, self.add_parameter(name, weight))
        self.v = self.add_parameter("v", rng.standard_normal((10, 4)))
        self.norms = {
            name: self.add_child(f"bn_{name}", BatchNorm(4, dtype="float64")) for name in "abcd"
        }

    def forward(self, x):
        def layer(name, x):
            weight = getattr(self, name)
            return self.norms[name](conv2d(x, weight, padding=weight.shape[2] // 2))

        y = relu(layer("a", x))
        if self.projected:  # its gradient comes before that of the branch with two convolutions
            skip = layer("d", y)
            y = relu(add(layer("c", relu(layer("b", y))), skip))
        else:  # that of the sum comes after that of the only convolution
            y = relu(add(layer("b", y), y))
            y = relu(layer("c", y))
            y = relu(layer("d", y))
        return linear(global_avg_pool2d(y), self.v)


@pytest.mark.parametrize("projected", [False, True])
def test_a_gradient_ends_when_all_that_read_a_tensor_have_added_theirs(projected):
    check_against_tape(Blocks(projected), 8, 5)


def test_what_only_a_convolution_reads_is_not_stored():
    network = build_network("resnet_igc", depth=14, L=4, M=2, num_classes=10)
    traced = trace(network, (3, 8, 8))
    graph = traced.graph
    program = TrainingProgram(graph, make_memory(traced, (3, 8, 8), 2), [0])
    (shard,) = program.shards
    # of each block the batch norm within it: its output is read by no sum, and by no stride
    inner = [
        node.output
        for node in graph.nodes
        if node.op == "combine" and node.relu and graph.uses(node.output) == 1
    ]
    assert len(inner) == 7  # one in each of 6 blocks, and the last sum, that is pooled
    assert sorted(shard.deferred) == inner[:-1]
    assert not set(shard.deferred) & set(shard.values)


def test_who_computes_a_shard_changes_no_bit():
    network = build_network("resnet_igc", depth=8, L=4, M=2, num_classes=10)
    traced = trace(network, (3, 8, 8))
    graph = Graph.from_json(traced.graph.to_json())
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((3, 8, 8, 37)), rng.integers(0, 10, 37)
    results = []
    for split in ([[0, 1, 2, 3]], [[0, 1], [2, 3]], [[3], [0, 2], [1]], [[0], [1], [2], [3]]):
        memory = make_memory(traced, (3, 8, 8), 37)
        memory.images[...] = images
        memory.labels[...] = labels
        programs = [TrainingProgram(graph, memory, local) for local in split]
        with single_threaded_blas():
            run(programs)
        gradients = gradients_of(graph, memory, programs[0])
        results.append([memory.losses.tobytes(), *(g.tobytes() for g in gradients.values())])
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 63, 64, 65, 129, 1000])
def test_shards(batch):
    sizes = shard_sizes(batch)
    assert sum(sizes) == batch
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 16
    assert len(sizes) >= min(4, batch)


class Biased(Layer):
    """A network with an operation that plans do not know."""

    def __init__(self):
        super().__init__()
        self.w = self.add_parameter("w", np.ones((2, 3, 3, 3)))
        self.b = self.add_parameter("b", np.ones(2))
        self.v = self.add_parameter("v", np.ones((4, 2)))
        self.u = self.add_parameter("u", np.ones((4, 3)))

    def forward(self, x):
        return linear(global_avg_pool2d(conv2d(x, self.w, self.b)), self.v)


class Squared(Biased):
    def forward(self, x):
        return linear(global_avg_pool2d(x * x), self.u)


class Summed(Biased):
    def __init__(self):
        super().__init__()
        self.norm = self.add_child("norm", BatchNorm(3, dtype="float64"))

    def forward(self, x):
        return linear(global_avg_pool2d(self.norm(x) + x), self.u)


@pytest.mark.parametrize(
    ("network", "words"),
    [(Biased(), "bias"), (Squared(), "operation"), (Summed(), "use functional.add")],
)
def test_what_has_no_plan_is_named(network, words):
    with pytest.raises(PlanError, match=words):
        trace(network, (3, 8, 8))
