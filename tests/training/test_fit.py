"""fit(): a run from Python, with the parts and the words of `igcnn train`."""

import dataclasses
import os
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest

import igcnn
from igcnn import Callback, build_network, load_checkpoint
from igcnn.errors import CheckpointError, ConfigError
from igcnn.layers import GlobalAveragePool, Linear
from igcnn.networks import Network, register_network
from igcnn.training.combine import combine

SMALL = dict(net="plain_igc", depth=8, L=2, M=2, progress="none", log_interval=1, cores=1)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny(install):
    """A network of one's own with a setting of its own."""

    @register_network("tiny")
    def tiny(*, width: int = 4, num_classes: int = 10, rng, dtype):
        return {
            "pool": GlobalAveragePool(),
            "one": Linear(3, width, rng=rng, dtype=dtype),
            "two": Linear(width, num_classes, rng=rng, dtype=dtype),
        }


class Recorder(Callback):
    """Keeps rows, and says stop at a step or an epoch."""

    def __init__(self, step=None, epoch=None):
        self.steps, self.epochs = [], []
        self.step, self.epoch = step, epoch

    def on_step(self, row):
        self.steps.append(row)
        return row["step"] == self.step

    def on_epoch(self, row):
        self.epochs.append(row)
        return row["epoch"] == self.epoch


def same_weights(one, other):
    return all(np.array_equal(array, other[name], equal_nan=True) for name, array in one.items())


def unwrapped(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_five_lines(dataset, capsys):
    recorder = Recorder()
    fit = igcnn.fit(dataset=dataset, epochs=2, callbacks=[recorder], **SMALL)
    assert fit.result.step == 4  # 100 images in batches of 64
    assert [row["epoch"] for row in fit.history] == [1, 2]
    assert recorder.epochs == fit.history
    assert recorder.steps == fit.run.read_steps()
    assert fit.network.settings["L"] == 2
    assert fit.run.path.parent.as_posix() == "runs/digits/plain_igc-L2M2-d8"
    assert "run folder runs/digits/plain_igc-L2M2-d8/" in unwrapped(capsys)
    saved = load_checkpoint(fit.run.last)
    assert same_weights(saved.state, fit.network.state_dict())


def test_the_command_line_makes_the_same_bits(dataset, monkeypatch):
    from igcnn.cli import train as command
    from igcnn.cli.main import main

    fit = igcnn.fit(dataset=dataset, epochs=2, seed=3, out="python", **SMALL)
    monkeypatch.setattr(command, "open_dataset", lambda *_, **__: dataset)
    words = "--net plain_igc --depth 8 --L 2 --M 2 --progress none --log-interval 1 --cores 1"
    assert main(["train", *words.split(), "--epochs", "2", "--seed", "3", "--out", "shell"]) == 0
    assert same_weights(
        load_checkpoint("shell/checkpoints/last.h5").state, fit.network.state_dict()
    )
    configs = [tomllib.loads(Path(run, "config.toml").read_text()) for run in ("python", "shell")]
    assert configs[0] == configs[1]


def test_names_and_defaults_are_those_of_the_table():
    defaults = combine([("fit()", {})])
    assert (defaults["net"], defaults["dataset"], defaults["log_interval"]) == (
        "resnet_igc",
        "digits",
        20,
    )
    assert combine([("fit()", {"lr_steps": (1, 2)})])["lr_steps"] == [1, 2]
    for settings, message in (
        (dict(epoch=3), r"unknown setting 'epoch' \(fit\(\)\): did you mean epochs\?"),
        (dict(net="resnet_icg"), "did you mean resnet_igc"),
        (dict(dataset="digitz"), "did you mean digits"),
        (dict(epochs="many"), "epochs must be an integer, not 'many'"),
        (dict(net="resnet", fusion="learned"), "resnet has no setting 'fusion'"),
    ):
        with pytest.raises(ConfigError, match=message):
            igcnn.fit(**settings)
    assert not os.listdir()


@pytest.mark.parametrize(("stop", "step"), [(dict(step=2), 3), (dict(epoch=2), 8)])
def test_a_callback_ends_the_run(dataset, stop, step):
    recorder = Recorder(**stop)
    fit = igcnn.fit(dataset=dataset, epochs=9, batch_size=25, callbacks=[recorder], **SMALL)
    assert fit.result.step == step
    assert len(fit.history) == step // 4
    saved = load_checkpoint(fit.run.last)
    assert saved.progress["step"] == step
    assert same_weights(saved.state, fit.network.state_dict())


def test_what_a_callback_raises_is_seen(dataset):
    class Broken(Callback):
        def on_epoch(self, row):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        igcnn.fit(dataset=dataset, epochs=2, callbacks=[Broken()], **SMALL)


def test_interrupted_it_is_saved_and_resumed_to_the_same_bits(dataset, capsys):
    class Interrupting(Callback):
        def on_step(self, row):
            if row["step"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

    whole = igcnn.fit(dataset=dataset, epochs=4, out="whole", **SMALL)
    part = igcnn.fit(dataset=dataset, epochs=4, out="part", callbacks=[Interrupting()], **SMALL)
    assert part.result is None
    assert "not finished" in repr(part)
    step = load_checkpoint(part.run.last).progress["step"]
    assert 2 <= step < 8
    assert len(part.history) in (step // 2, step // 2 - 1)
    assert "to resume: igcnn.fit(resume='part')" in capsys.readouterr().out
    resumed = igcnn.fit(dataset=dataset, resume="part")
    assert resumed.result.step == 8
    assert same_weights(whole.network.state_dict(), resumed.network.state_dict())


def test_a_run_that_is_there_is_spared(dataset):
    igcnn.fit(dataset=dataset, epochs=1, out="run", **SMALL)
    with pytest.raises(ConfigError, match="run is not empty"):
        igcnn.fit(dataset=dataset, epochs=1, out="run", **SMALL)
    fit = igcnn.fit(dataset=dataset, epochs=2, out="run", overwrite=True, **SMALL)
    assert len(fit.history) == 2


def test_a_network_is_trained_from_the_weights_that_it_has(dataset):
    network = build_network("plain_igc", depth=8, L=2, M=2, seed=7)
    before = network.state_dict()
    run = {k: v for k, v in SMALL.items() if k not in ("net", "depth", "L", "M")}
    fit = igcnn.fit(network, dataset, epochs=1, lr=0, weight_decay=0, out="run", **run)
    assert fit.network is network
    parameters = {name for name, _ in network.named_parameters()}
    assert all(np.array_equal(network.state_dict()[name], before[name]) for name in parameters)
    config = tomllib.loads(Path("run/config.toml").read_text())
    assert (config["net"], config["L"], config["precision"]) == ("plain_igc", 2, "fp32")
    with pytest.raises(ConfigError, match="is already built; leave out L"):
        igcnn.fit(network, dataset, L=3)
    with pytest.raises(ConfigError, match="built for precision fp32, not fp64"):
        igcnn.fit(network, dataset, precision="fp64")


def test_a_network_that_is_not_registered_trains_too(dataset, capsys):
    layers = {"pool": GlobalAveragePool(), "fc": Linear(3, 10, rng=np.random.default_rng(0))}
    run = {k: v for k, v in SMALL.items() if k not in ("net", "depth", "L", "M")}
    network = Network(layers, {"num_classes": 10})
    fit = igcnn.fit(network, dataset, epochs=1, **run)
    assert fit.run.path.parent.as_posix() == "runs/digits/network"
    assert fit.result.step == 2
    assert "plans do not support a linear classifier of the image" in unwrapped(capsys)
    assert "net" not in fit.run.read_config()
    assert igcnn.fit(network, dataset, epochs=2, resume=fit.run.path).result.step == 4
    with pytest.raises(CheckpointError, match="register_network"):
        load_checkpoint(fit.run.last).build()


def test_settings_of_ones_own_network(dataset, tiny):
    run = {k: v for k, v in SMALL.items() if k not in ("net", "depth", "L", "M")}
    fit = igcnn.fit("tiny", dataset, width=6, epochs=1, **run)
    assert fit.network.settings == dict(net="tiny", width=6, num_classes=10)
    assert fit.run.path.parent.as_posix() == "runs/digits/tiny-width6"
    resumed = igcnn.fit(dataset=dataset, resume=fit.run.path, epochs=2)
    assert resumed.network.settings == fit.network.settings
    with pytest.raises(ConfigError, match=r"tiny has no setting 'depth': .*it takes width"):
        igcnn.fit("tiny", dataset, depth=3, **run)
    with pytest.raises(ConfigError, match="did you mean width"):
        igcnn.fit("tiny", dataset, widht=3, **run)
    with pytest.raises(ConfigError, match=r"width must be an integer, not 'x' \(fit\(\)\)"):
        igcnn.fit("tiny", dataset, width="x", **run)


def test_a_setting_of_a_network_that_training_has_too(install):
    @register_network("clash")
    def clash(*, momentum: float = 0.9, num_classes: int = 10, rng, dtype):
        return {}

    with pytest.raises(ConfigError, match="clash has a setting momentum, which training has too"):
        igcnn.fit("clash", width=3)


def test_settings_of_another_network_in_a_file_are_left_out():
    file = ("a.toml", {"net": "plain_igc", "fusion": "summation", "L": 6})
    settings = combine([file, ("flags", {"net": "resnet"})])
    assert (settings["net"], settings["fusion"], settings["L"]) == ("resnet", None, 6)
    assert combine([file, ("flags", {"net": "plain_igc"})])["fusion"] == "summation"


def test_a_data_set_of_an_odd_name_stays_below_runs(dataset):
    odd = dataclasses.replace(dataset, name="../my data")
    fit = igcnn.fit(dataset=odd, epochs=1, **SMALL)
    assert fit.run.path.parent.parent.as_posix() == "runs/_._my_data"
    assert not os.path.exists("../my data")


def test_how_it_is_shown(dataset):
    fit = igcnn.fit(dataset=dataset, epochs=1, out="<i>", **SMALL)
    top1 = fit.history[0]["test_top1"]
    assert repr(fit) == (
        "Fit(plain_igc, depth 8, L 2, M 2, fusion learned on digits, run='<i>', "
        f"test top-1 {top1:.2f} % after epoch 1)"
    )
    page = fit._repr_html_()
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert 'src="data:image/svg+xml;base64,' in page
