import pytest

from igcnn.cli.settings import SETTINGS, collect
from igcnn.errors import ConfigError


def flags(**values):
    return dict.fromkeys(SETTINGS) | values


def test_each_source_outranks_those_before_it(tmp_path):
    config = tmp_path / "a.toml"
    config.write_text("lr = 0.3\nepochs = 7\ndepth = 14\nseed = 4\nmomentum = 0.5\n")
    environment = {"IGCNN_LR": "0.4", "IGCNN_EPOCHS": "8", "IGCNN_DEPTH": "20", "IGCNN_L": "6"}
    settings = collect(
        flags(lr="0.5", epochs="9"),
        ["lr=0.6"],
        str(config),
        {"seed": 3, "log_interval": 5},
        environment,
    )
    assert settings["lr"] == 0.6  # --set over flags
    assert settings["epochs"] == 9  # flags over environment
    assert settings["depth"] == 20  # environment over file
    assert settings["L"] == 6
    assert settings["seed"] == 4  # file over the resumed run
    assert settings["log_interval"] == 5  # the resumed run over default
    assert settings["momentum"] == 0.5
    assert settings["net"] == "resnet_igc"  # default


def test_the_preset_follows_the_data_set_and_yields_to_all_but_defaults(tmp_path):
    def epochs(**values):
        return collect(flags(**values), environment={})["epochs"]

    digits = epochs()
    assert digits < 100
    assert epochs(dataset="cifar10") == 400
    assert epochs(dataset="svhn") == 40
    assert epochs(dataset="cifar100", preset="digits") == digits
    assert epochs(preset="paper") == 400
    assert epochs(dataset="svhn", epochs="150") == 150
    config = tmp_path / "a.toml"
    config.write_text('dataset = "svhn"\nepochs = 3')
    assert collect(flags(), config=str(config), environment={})["epochs"] == 3


@pytest.mark.parametrize("text", ["200,300,350", [200, 300, 350]])
def test_lr_steps_from_flags_and_from_toml(text):
    assert collect(flags(lr_steps=text), environment={})["lr_steps"] == [200, 300, 350]


def test_no_lr_steps():
    assert collect(flags(lr_steps="none"), environment={})["lr_steps"] == []


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("depth", "x", "an integer"),
        ("depth", 8.5, "an integer"),
        ("depth", True, "an integer"),
        ("seed", "-1", "an integer of at least 0"),
        ("lr", "fast", "a number"),
        ("net", 7, "a text"),
        ("net", "", "a text"),
        ("lr_steps", "1,b", "integers"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(name, value, what):
    with pytest.raises(ConfigError, match=f"{name} must be {what}"):
        collect(flags(**{name: value}), environment={})


def test_unknown_names_come_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean epochs"):
        collect(flags(), ["epoch=3"], environment={})
    config = tmp_path / "a.toml"
    config.write_text("[train]\nlr = 1")
    with pytest.raises(ConfigError, match=r"unknown setting 'train' \(.*a\.toml\)"):
        collect(flags(), config=str(config), environment={})


def test_set_takes_the_spelling_of_flags():
    assert collect(flags(), ["batch-size = 3"], environment={})["batch_size"] == 3


def test_files_that_are_no_settings(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        collect(flags(), config=str(tmp_path / "none.toml"), environment={})
    (tmp_path / "a.toml").write_text("lr: 3")
    with pytest.raises(ConfigError, match="cannot parse --config"):
        collect(flags(), config=str(tmp_path / "a.toml"), environment={})
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot parse --config"):
        collect(flags(), config=str(tmp_path / "b.toml"), environment={})


def test_another_schedule_drops_the_constants_of_the_one_below():
    before = {"lr_steps": [2, 3], "lr_factor": 0.1, "lr": 0.05}
    settings = collect({"schedule": "cosine", "lr_min": "0.001"}, resumed=before)
    assert (settings["lr_steps"], settings["lr_factor"]) == (None, None)
    assert (settings["lr"], settings["lr_min"]) == (0.05, 0.001)
    kept = collect({"schedule": "Steps"}, resumed=before)
    assert kept["lr_steps"] == [2, 3]
    assert collect({"dataset": "imagenet"})["lr_steps"] == (30, 60, 90)
    assert collect({"dataset": "imagenet", "schedule": "cosine"})["lr_steps"] is None


def test_patterns_come_in_one_text_or_several():
    for given in (("g0_*,g1_*",), ("g0_*", "g1_*"), ["g0_*", "g1_*"]):
        assert collect({"freeze": given})["freeze"] == ["g0_*", "g1_*"]
    assert collect({}, assignments=["freeze=g0_*, g1_*"])["freeze"] == ["g0_*", "g1_*"]
    assert collect({"freeze": ("none",)})["freeze"] == []
