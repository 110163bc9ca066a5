"""The table of settings."""

import subprocess
import sys

import pytest

from igcnn.datasets import DATASETS
from igcnn.errors import ConfigError
from igcnn.networks import NETWORKS
from igcnn.settings import SETTINGS, any_of
from igcnn.training.combine import find_setting


def test_the_table_is_light():
    code = "import sys, igcnn.settings; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_each_is_complete(setting):
    assert setting.help.endswith(".")
    assert setting.help[0].isupper()
    if setting.default is not None:
        assert setting.convert(setting.default, "table") == setting.default
        assert setting.convert(str(setting.default).lower(), "flags") == setting.default


def test_names_are_those_of_the_packages():
    assert SETTINGS["net"].names() == tuple(NETWORKS)
    assert SETTINGS["dataset"].names() == tuple(DATASETS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("net", "Resnet_IGC", "resnet_igc"),
        ("dataset", "CIFAR10", "cifar10"),
        ("preset", "Paper", "paper"),
        ("device", "CUDA:1", "cuda:1"),
        ("precision", "BF16", "bf16"),
        ("growth", "m", "M"),
        ("eager", "True", True),
        ("lr_steps", "None", []),
        ("data_dir", "MyData", "MyData"),
    ],
)
def test_case_counts_in_paths_alone(name, text, value):
    assert SETTINGS[name].convert(text, "flags") == value


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(ConfigError, match=r"not Resnet_ICG \(--net\); did you mean resnet_igc\?"):
        SETTINGS["net"].convert("Resnet_ICG", "--net")
    with pytest.raises(ConfigError, match=r"did you mean epochs\?"):
        find_setting("epoch", "--set")


@pytest.mark.parametrize(
    ("name", "text"), [("lr", "0.1"), ("batch_size", "64"), ("rank_timeout", "6"), ("seed", "0")]
)
def test_defaults_in_words(name, text):
    assert SETTINGS[name].default_text() == text


def test_any_of():
    assert [any_of("abc"), any_of("ab"), any_of("a")] == ["a, b or c", "a or b", "a"]
