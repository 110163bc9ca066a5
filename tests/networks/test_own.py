"""A network of one's own: registered, built, saved, looked at."""

import numpy as np
import pytest

from igcnn import build_network, load_checkpoint, save_checkpoint
from igcnn.errors import CheckpointError, ConfigError
from igcnn.inspection import Subject, make_report
from igcnn.layers import Convolution, GlobalAveragePool, InterleavedGroupConvolution, Linear, ReLU
from igcnn.networks import NETWORKS, Network, register_network


@pytest.fixture(autouse=True)
def tiny(install):
    """A network of three layers, registered for the time of a test."""

    @register_network("tiny", image_size=12)
    def tiny(*, width: int = 4, slope: float = 0.5, wide=False, rng, num_classes=3, dtype):
        channels = width * (2 if wide else 1)
        return {
            "conv": Convolution(3, channels, 3, padding=1, rng=rng, dtype=dtype),
            "relu": ReLU(),
            "igc": InterleavedGroupConvolution(channels, channels, 2, rng=rng, dtype=dtype),
            "pool": GlobalAveragePool(),
            "fc": Linear(channels, num_classes, rng=rng, dtype=dtype),
        }

    return tiny


def images(N=2, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((N, 3, 12, 12)).astype(dtype)


def test_it_is_built_by_name():
    network = build_network("tiny", width=6, seed=3)
    expected = dict(net="tiny", width=6, slope=0.5, wide=False, num_classes=3)
    assert network.settings == expected
    assert (network.module, network.image_size) == (__name__, 12)
    assert network(images()).shape == (2, 3)
    names = [name for name, _ in network.named_parameters()]
    assert names == ["conv_weight", "igc_conv1_weight", "igc_conv2_weight", "fc_weight", "fc_bias"]
    assert "tiny" in NETWORKS


def test_the_seed_decides_on_its_weights():
    one, two, other = (build_network("tiny", seed=k).state_dict() for k in (1, 1, 2))
    assert np.array_equal(one["conv_weight"], two["conv_weight"])
    assert not np.array_equal(one["conv_weight"], other["conv_weight"])


def test_texts_become_values_of_the_type_of_the_default():
    network = build_network("tiny", width="8", slope="2", wide="true")
    assert network.settings == dict(net="tiny", width=8, slope=2.0, wide=True, num_classes=3)
    assert type(network.settings["slope"]) is float
    assert build_network("tiny", slope=1).settings["slope"] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(widht=3), "tiny has no setting 'widht': did you mean width"),
        (dict(depth=3), "it takes width, slope, wide, num_classes"),
        (dict(width=2.5), "tiny: width must be an integer, not 2.5"),
        (dict(width="wide"), "width must be an integer, not 'wide'"),
        (dict(wide=1), "wide must be true or false, not 1"),
        (dict(slope="steep"), "slope must be a number"),
        (dict(num_classes=0), "num_classes must be at least 1, not 0"),
        (dict(dtype="float16"), "dtype must be float32 or float64"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_network("tiny", **settings)


def test_builders_that_cannot_be_registered():
    with pytest.raises(ConfigError, match="builder short must take dtype, rng"):

        @register_network("other")
        def short(*, num_classes=3):
            return {}

    with pytest.raises(ConfigError, match="keyword widths of listed needs a default that is"):

        @register_network("other")
        def listed(*, widths=(1, 2), num_classes=3, rng, dtype):
            return {}

    with pytest.raises(ConfigError, match="keyword width of bare needs a default"):

        @register_network("other")
        def bare(width, *, num_classes=3, rng, dtype):
            return {}

    assert "other" not in NETWORKS


def test_a_builder_may_return_one_layer(tiny):
    @register_network("wrapped")
    def wrapped(*, num_classes: int = 3, rng, dtype):
        return Network(tiny(rng=rng, num_classes=num_classes, dtype=dtype), {})

    one, two = build_network("wrapped", seed=1), build_network("tiny", seed=1)
    assert one.settings == {"net": "wrapped", "num_classes": 3}
    assert list(one.state_dict()) == list(two.state_dict())
    np.testing.assert_array_equal(one(images()).numpy(), two(images()).numpy())


def test_what_a_builder_returns_is_checked():
    @register_network("wrong")
    def wrong(*, num_classes: int = 3, rng, dtype):
        return [ReLU()]

    with pytest.raises(ConfigError, match=r"takes a dict of name → layer, not list"):
        build_network("wrong")


def test_a_checkpoint_builds_it_again(tmp_path):
    network = build_network("tiny", width=6, seed=3)
    save_checkpoint(tmp_path / "a.h5", network)
    saved = load_checkpoint(tmp_path / "a.h5")
    assert saved.network_module == __name__
    again = saved.build()
    assert again.settings == network.settings
    np.testing.assert_array_equal(again(images()).numpy(), network(images()).numpy())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("nets.tiny", r"nets\.tiny registers: install the package that contains it, or import it"),
        ("__main__", "a script or notebook registered: run its @register_network before"),
        ("", "another package registers: install the package"),
    ],
)
def test_a_checkpoint_of_a_network_that_is_not_registered(tmp_path, module, message):
    network = build_network("tiny")
    network.settings["net"], network.module = "gone", module
    save_checkpoint(tmp_path / "a.h5", network)
    with pytest.raises(CheckpointError, match=f"of the network gone, which {message}"):
        load_checkpoint(tmp_path / "a.h5").build()


def test_a_network_that_is_not_registered_says_what_to_do(tiny, tmp_path):
    layers = tiny(rng=np.random.default_rng(0), dtype="float32")
    network = Network(layers, {"num_classes": 3})
    save_checkpoint(tmp_path / "a.h5", network)
    with pytest.raises(CheckpointError, match=r"load_state_dict.*, or register it by @register_"):
        load_checkpoint(tmp_path / "a.h5").build()
    with pytest.raises(ConfigError, match=r"by @register_network, and make it by build_network"):
        network.to_dtype("float64")


def test_in_another_type_it_computes_the_same():
    network = build_network("tiny", seed=1)
    double = network.to_dtype("float64")
    assert {x.dtype for x in double.state_dict().values()} == {np.dtype("float64")}
    expected = network(images()).numpy()
    np.testing.assert_allclose(double(images(dtype=np.float64)).numpy(), expected, atol=1e-5)


def test_a_report_of_it():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 12), np.uint8)
    subject = Subject(
        build_network("tiny", width=6), pixels, np.full(3, 127.0), np.full(3, 60.0), "noise"
    )
    report = make_report(subject, [])
    assert report["failed"] == []
    assert report["checked_side"] == 3
    assert [layer["name"] for layer in report["layers"]] == ["conv", "relu", "igc", "pool", "fc"]
