import dataclasses

import numpy as np
import pytest

from igcnn import build_network, load_checkpoint
from igcnn.errors import CheckpointError, ConfigError, DivergedError, RankError
from igcnn.functional import cross_entropy
from igcnn.training import Recipe, TapeEngine, Trainer, evaluate, evaluator

SPEED = {"images_per_second", "seconds"}


def rows_of(run):
    """All rows of the metrics but what depends on the clock."""
    return [
        {key: value for key, value in row.items() if key not in SPEED}
        for row in run.read_steps() + run.read_epochs()
    ]


def assert_equal_state(a, b):
    for one, other in (
        (a.state, b.state),
        (a.velocity, b.velocity),
    ):
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], strict=True)
    for name in ("step", "epochs", "best_top1", "best_epoch"):
        assert a.progress[name] == b.progress[name]


@pytest.fixture
def finished(make_trainer):
    """A run that nothing interrupted: 12 steps."""
    trainer = make_trainer("finished")
    result = trainer.run()
    return trainer, result


@pytest.mark.parametrize("plain", [False, True])
def test_the_loop_is_the_algorithm(dataset, make_trainer, plain):
    """Two epochs against a loop written out here, of the parts that have tests of their own."""
    constants = {"epochs": 2, "batch_size": 32, "lr": 0.05, "lr_steps": (1,)}
    trainer = make_trainer(recipe=Recipe(**constants, plain_momentum=plain))
    network = build_network("plain_igc", depth=8, L=2, M=2, num_classes=10, seed=1)
    velocity = [np.zeros_like(p.data) for p in network.parameters()]
    update = 0
    losses = []
    for epoch in range(2):
        for x, labels in trainer.loader.epoch(epoch):
            update += 1
            lr = 0.05 if update <= 3 else 0.05 * 0.1  # floor(100 / 32) = 3
            network.zero_grad()
            loss = cross_entropy(network(x), labels)
            loss.backward()
            losses.append(loss.item())
            for p, v in zip(network.parameters(), velocity, strict=True):
                d = p.grad + np.float32(1e-4) * p.data
                v[...] = np.float32(0.9) * v + d
                p.data -= np.float32(lr) * (v if plain else d + np.float32(0.9) * v)
    result = trainer.run()
    for name, array in trainer.network.state_dict().items():
        np.testing.assert_allclose(array, network.state_dict()[name], 1e-4, 1e-5, err_msg=name)
    rows = trainer.run_directory.read_steps()
    assert [row["loss"] for row in rows] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:6])], rel=1e-4
    )
    assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.005])
    epochs = trainer.run_directory.read_epochs()
    assert [row["train_loss"] for row in epochs] == pytest.approx(
        [np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-4
    )
    assert result.step == 8


def test_what_a_run_leaves(finished, dataset):
    trainer, result = finished
    run = trainer.run_directory
    assert [(row["step"], row["epoch"]) for row in run.read_steps()] == [
        (3, 1),
        (6, 2),
        (9, 3),
        (12, 3),
    ]
    epochs = run.read_epochs()
    assert [row["step"] for row in epochs] == [4, 8, 12]
    assert result.best_top1 == max(row["test_top1"] for row in epochs)
    assert epochs[result.best_epoch - 1]["test_top1"] == result.best_top1
    assert result.evaluation.top1 == epochs[-1]["test_top1"]
    best = load_checkpoint(run.best)
    mean, std = best.preprocessing.mean, best.preprocessing.std
    engine = TapeEngine(best.build())
    assert evaluate(engine, dataset.test, mean=mean, std=std).top1 == result.best_top1
    assert load_checkpoint(run.last).progress["step"] == 12
    assert (run.path / "curves.svg").stat().st_size > 1000
    assert "epoch 3/3 done" in (run.path / "train.log").read_text()


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(finished, make_trainer):
    checkpoints = []
    for folder, seed in (("again", 0), ("other", 1)):
        trainer = make_trainer(folder, seed=seed)
        trainer.run()
        checkpoints.append(load_checkpoint(trainer.run_directory.last))
    first = load_checkpoint(finished[0].run_directory.last)
    assert_equal_state(first, checkpoints[0])
    assert any((array != checkpoints[1].state[name]).any() for name, array in first.state.items())


def test_a_run_without_a_whole_epoch_comes_to_its_last_accuracy(make_trainer):
    said = make_trainer(max_steps=1).run().to_json()
    assert said["best_epoch"] == 0
    assert said["best_top1"] == said["last_top1"] >= 0


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 11])
def test_stopped_and_resumed_is_never_stopped(finished, make_trainer, stop):
    make_trainer(max_steps=stop).run()
    trainer = make_trainer()
    trainer.network.load_state_dict(  # nothing of the weights that it starts with may remain
        {name: array + 1 for name, array in trainer.network.state_dict().items()}
    )
    trainer.resume(load_checkpoint(trainer.run_directory.last))
    assert trainer.state.step == stop  # nothing was lost
    result = trainer.run()
    reference, expected = finished
    assert_equal_state(
        load_checkpoint(trainer.run_directory.last),
        load_checkpoint(reference.run_directory.last),
    )
    assert rows_of(trainer.run_directory) == rows_of(reference.run_directory)
    assert result.evaluation == expected.evaluation
    assert (result.best_top1, result.best_epoch) == (expected.best_top1, expected.best_epoch)


@pytest.mark.parametrize("kill", [1, 4, 6, 12])
def test_killed_between_checkpoints_and_resumed_is_never_killed(
    finished, make_trainer, kill, monkeypatch
):
    """A kill after step `kill`: last.h5 is of an earlier step, the metrics are of later ones."""

    class Killed(Exception):
        pass

    trainer = make_trainer(checkpoint_epochs=2)
    check = trainer._stop_if_asked

    def check_and_die():
        check()
        if trainer.state.step == kill:
            raise Killed

    monkeypatch.setattr(trainer, "_stop_if_asked", check_and_die)
    with pytest.raises(Killed):
        trainer.run()
    again = make_trainer()
    checkpoint = load_checkpoint(again.run_directory.last)
    assert checkpoint.progress["step"] == (kill - 1) // 8 * 8
    again.resume(checkpoint)
    again.run()
    reference, _ = finished
    assert_equal_state(
        load_checkpoint(again.run_directory.last), load_checkpoint(reference.run_directory.last)
    )
    assert rows_of(again.run_directory) == rows_of(reference.run_directory)


@pytest.mark.parametrize("moment", ["step", "evaluation"])
def test_interrupted_and_resumed_is_never_interrupted(finished, make_trainer, moment, monkeypatch):
    trainer = make_trainer()

    def interrupt(original):
        def call(*arguments, **keywords):
            if trainer.state.step >= 4:
                trainer._interrupt.requested = "SIGINT"
            return original(*arguments, **keywords)

        return call

    if moment == "step":
        monkeypatch.setattr(trainer.engine, "step", interrupt(trainer.engine.step))
    else:
        monkeypatch.setattr(evaluator, "evaluate", interrupt(evaluator.evaluate))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    monkeypatch.undo()
    checkpoint = load_checkpoint(trainer.run_directory.last)
    assert checkpoint.progress["step"] == (5 if moment == "step" else 4)
    again = make_trainer()
    again.resume(checkpoint)
    again.run()
    reference, _ = finished
    assert_equal_state(
        load_checkpoint(again.run_directory.last), load_checkpoint(reference.run_directory.last)
    )
    assert rows_of(again.run_directory) == rows_of(reference.run_directory)


@pytest.mark.parametrize(
    ("exchange", "call", "step"),
    # an epoch is 4 updates; the fifth signal is in its evaluation; the first comparison is made
    # before the first update
    [("signal", 2, 2), ("signal", 4, 4), ("signal", 5, 4), ("compare", 2, 4)],
)
def test_a_rank_lost_after_an_update_costs_none_and_does_none_twice(
    finished, make_trainer, monkeypatch, exchange, call, step
):
    """The step that is saved is that of the weights, wherever the ranks lose each other."""
    trainer = make_trainer()
    own, calls = getattr(trainer.agreement, exchange), []

    def lose(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise RankError("another rank ended")
        return own(*arguments)

    monkeypatch.setattr(trainer.agreement, exchange, lose)
    with pytest.raises(RankError, match=f"step {step} is saved"):
        trainer.run()
    again = make_trainer()
    checkpoint = load_checkpoint(again.run_directory.last)
    assert checkpoint.progress["step"] == step
    again.resume(checkpoint)
    again.run()
    reference, _ = finished
    assert_equal_state(
        load_checkpoint(again.run_directory.last), load_checkpoint(reference.run_directory.last)
    )
    assert rows_of(again.run_directory) == rows_of(reference.run_directory)


def test_a_finished_run_resumed_changes_nothing(finished, make_trainer):
    reference, expected = finished
    before = rows_of(reference.run_directory)
    again = make_trainer("finished")
    again.resume(load_checkpoint(reference.run_directory.last))
    result = again.run()
    assert result.step == 12
    assert result.evaluation == expected.evaluation
    assert rows_of(reference.run_directory) == before


def test_more_epochs_go_on_from_the_end(make_trainer):
    recipe = Recipe(epochs=1, batch_size=32, lr=0.05, lr_steps=())
    make_trainer(recipe=recipe).run()
    longer = make_trainer(recipe=dataclasses.replace(recipe, epochs=3))
    longer.resume(load_checkpoint(longer.run_directory.last))
    longer.run()
    straight = make_trainer("straight", recipe=dataclasses.replace(recipe, epochs=3))
    straight.run()
    assert_equal_state(
        load_checkpoint(longer.run_directory.last), load_checkpoint(straight.run_directory.last)
    )


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"recipe": Recipe(epochs=3, batch_size=16, lr=0.05)}]
)
def test_resume_refuses_another_order_of_images(finished, make_trainer, change):
    trainer = make_trainer(**change)
    with pytest.raises(ConfigError, match=r"seed|batch_size"):
        trainer.resume(load_checkpoint(finished[0].run_directory.last))


def test_resume_refuses_another_network(finished, make_trainer):
    trainer = make_trainer(net="plain")
    with pytest.raises(CheckpointError, match="plain_igc"):
        trainer.resume(load_checkpoint(finished[0].run_directory.last))


def test_divergence_keeps_the_last_good_weights(make_trainer):
    trainer = make_trainer(recipe=Recipe(epochs=3, batch_size=32, lr=1e30))
    message = r"training loss became (nan|inf) after step 1 .*last\.h5 holds the last good weights"
    with pytest.raises(DivergedError, match=message):
        trainer.run()
    checkpoint = load_checkpoint(trainer.run_directory.last)
    assert all(np.isfinite(array).all() for array in checkpoint.state.values())
    assert "diverged" in (trainer.run_directory.path / "train.log").read_text()


def test_a_test_loss_that_is_no_number_is_divergence_too(make_trainer, monkeypatch):
    trainer = make_trainer()
    original = evaluator.evaluate

    def broken(*arguments, **keywords):
        return dataclasses.replace(original(*arguments, **keywords), loss=float("inf"))

    monkeypatch.setattr(evaluator, "evaluate", broken)
    with pytest.raises(DivergedError, match="test loss became inf"):
        trainer.run()
    assert load_checkpoint(trainer.run_directory.last).progress["step"] == 0


def test_of_equal_epochs_the_first_is_the_best(make_trainer, monkeypatch):
    original = evaluator.evaluate

    def alike(*arguments, **keywords):
        return dataclasses.replace(original(*arguments, **keywords), top1=50.0)

    monkeypatch.setattr(evaluator, "evaluate", alike)
    trainer = make_trainer()
    assert trainer.run().best_epoch == 1
    assert load_checkpoint(trainer.run_directory.best).progress["step"] == 4


def test_another_way_to_compute_the_gradient_plugs_in(finished, make_trainer):
    calls = []

    class Counting(TapeEngine):
        def step(self, x, labels):
            calls.append(len(labels))
            return super().step(x, labels)

    trainer = make_trainer()
    trainer.engine = Counting(trainer.network)
    trainer.run()
    assert calls == [32] * 12
    assert_equal_state(
        load_checkpoint(trainer.run_directory.last),
        load_checkpoint(finished[0].run_directory.last),
    )


@pytest.mark.parametrize("name", ["log_interval", "checkpoint_epochs", "max_steps"])
def test_intervals_below_one_are_refused(make_trainer, name):
    with pytest.raises(ConfigError, match=name):
        make_trainer(**{name: 0})


def test_classes_must_match(dataset, make_trainer):
    trainer = make_trainer()
    network = build_network("plain", depth=8, L=2, num_classes=7)
    with pytest.raises(ConfigError, match="7 classes"):
        Trainer(network, dataset, trainer.recipe, trainer.run_directory)
