"""Weights of another run: what is taken over, what is new, what is refused."""

import dataclasses

import numpy as np
import pytest

from igcnn import build_network, load_checkpoint, save_checkpoint
from igcnn.errors import CheckpointError
from igcnn.training import Preprocessing
from igcnn.training.transfer import initialise_from

TEN = tuple("0123456789")


def network(seed, **settings):
    settings = {"depth": 8, "L": 2, "M": 2, "num_classes": 10} | settings
    return build_network("plain_igc", seed=seed, **settings)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint in which nothing has its initial value."""
    made = network(1)
    for array in (*(x.data for x in made.parameters()), *(x for _, x in made.named_buffers())):
        array += 0.5
    path = tmp_path_factory.mktemp("source") / "a.h5"
    preprocessing = Preprocessing("digits", TEN, (0.0,) * 3, (1.0,) * 3)
    save_checkpoint(path, made, preprocessing=preprocessing)
    return load_checkpoint(path)


def taken(own, source):
    """Return the names of what is equal to the checkpoint."""
    state = own.state_dict()
    return {n for n, x in source.state.items() if n in state and np.array_equal(state[n], x)}


def test_the_same_classes_keep_the_classifier(source):
    own = network(2)
    (line,) = initialise_from(own, source, TEN)
    assert taken(own, source) == set(source.state)
    count = len(source.parameters)
    assert line == f"loaded {count} of {count} parameters from the checkpoint"


@pytest.mark.parametrize("classes", [("cat", "dog"), tuple("abcdefghij")])
def test_other_classes_get_a_new_classifier(source, classes):
    own = network(2, num_classes=len(classes))
    before = own.state_dict()
    lines = initialise_from(own, source, classes)
    assert taken(own, source) == set(source.state) - {"fc_score_weight", "fc_score_bias"}
    for name in ("fc_score_weight", "fc_score_bias"):
        np.testing.assert_array_equal(own.state_dict()[name], before[name])
    assert lines[1:] == ["new classifier for different classes: fc_score_weight, fc_score_bias"]


def test_missing_unexpected_and_reshaped_are_named(source):
    state = dict(source.parameters)
    state["extra_weight"] = np.ones(3, np.float32)
    state["g1_b1_bn_beta"] = np.ones(3, np.float32)
    del state["g0_bn_gamma"]
    odd = dataclasses.replace(source, parameters=state)
    own = network(2)
    before = own.state_dict()
    lines = initialise_from(own, odd, TEN)
    assert lines[1:] == [
        "not in the checkpoint, so newly initialized: g0_bn_gamma",
        "of a different shape in the checkpoint, so newly initialized: g1_b1_bn_beta",
        "only in the checkpoint, so ignored: extra_weight",
    ]
    for name in ("g0_bn_gamma", "g1_b1_bn_beta"):
        np.testing.assert_array_equal(own.state_dict()[name], before[name])


def test_another_network_is_refused_and_nothing_changed(source):
    own = network(2, L=4)
    before = own.state_dict()
    with pytest.raises(CheckpointError, match="plain_igc, depth 8, L 2, M 2: only") as error:
        initialise_from(own, source, TEN)
    assert error.value.exit_code == 6
    for name, array in own.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
