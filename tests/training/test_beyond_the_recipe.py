"""Validation, early stopping, frozen and averaged weights: what they do, and that they resume."""

import dataclasses

import numpy as np
import pytest

from igcnn import load_checkpoint, save_checkpoint
from igcnn.datasets import hold_out
from igcnn.errors import ConfigError
from igcnn.layers import BatchNorm
from igcnn.training import Recipe, TapeEngine, evaluate, evaluator
from igcnn.training.describe import closing_lines
from igcnn.training.epoch import lagging_statistics, unusual_lines

from .test_trainer import assert_equal_state, rows_of

FULL = Recipe(
    epochs=3,
    batch_size=32,
    lr=0.05,
    schedule="cosine",
    lr_min=0.001,
    warmup_epochs=0.5,
    label_smoothing=0.1,
    average=0.9,
    validation=0.2,
    patience=2,
    freeze=("g1_b?_bn_*", "g0_*"),
)
UPDATES = 3  # an epoch: 80 of 100 images are left


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run with everything, that nothing interrupted."""
    from igcnn import build_network
    from igcnn.training import RunDirectory, Trainer

    network = build_network("plain_igc", depth=8, L=2, M=2, num_classes=10, seed=1)
    run = RunDirectory(tmp_path_factory.mktemp("whole") / "run")
    run.create()
    trainer = Trainer(network, dataset, FULL, run, log_interval=3)
    return trainer, trainer.run()


def assert_same_end(run, reference):
    for name in ("last", "best"):
        one, other = (load_checkpoint(getattr(r, name)) for r in (run, reference))
        assert_equal_state(one, other)
        assert one.raw.keys() == other.raw.keys()
        assert all((one.raw[key] == other.raw[key]).all() for key in one.raw)
    assert rows_of(run) == rows_of(reference)


@pytest.mark.parametrize("stop", [1, 3, 4, 8])
def test_stopped_and_resumed_is_never_stopped(whole, make_trainer, stop):
    make_trainer(recipe=FULL, max_steps=stop).run()
    trainer = make_trainer(recipe=FULL)
    trainer.resume(load_checkpoint(trainer.run_directory.last))
    result = trainer.run()
    reference, expected = whole
    assert_same_end(trainer.run_directory, reference.run_directory)
    assert dataclasses.replace(result, seconds=0) == dataclasses.replace(expected, seconds=0)


@pytest.mark.parametrize("step", [3, 6, 9])
def test_interrupted_while_other_weights_are_evaluated(whole, make_trainer, step, monkeypatch):
    """last.h5 is of the raw weights, not of their average or of best.h5."""
    trainer = make_trainer(recipe=FULL)
    original = evaluator.evaluate

    def interrupt(*arguments, **keywords):
        if trainer.state.step == step:
            trainer._interrupt.requested = "SIGINT"
        return original(*arguments, **keywords)

    monkeypatch.setattr(evaluator, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    monkeypatch.undo()
    again = make_trainer(recipe=FULL)
    checkpoint = load_checkpoint(again.run_directory.last)
    assert checkpoint.progress["step"] == step
    again.resume(checkpoint)
    again.run()
    assert_same_end(again.run_directory, whole[0].run_directory)


def test_the_schedule_is_in_force(whole):
    rates = [row["lr"] for row in whole[0].run_directory.read_steps()]
    # steps 3, 6 and 9, of which 2 warm up: t = 0, 3, 6 of T = 7
    cosine = [(1 + np.cos(np.pi * t / 7)) / 2 for t in (0, 3, 6)]
    assert rates == pytest.approx([0.001 + 0.049 * c for c in cosine])


def test_validation_images_choose_and_test_images_judge_once(whole, dataset, make_trainer):
    trainer, result = whole
    rows = trainer.run_directory.read_epochs()
    assert "test_top1" not in rows[0]
    assert result.best_top1 == max(row["val_top1"] for row in rows)
    parts = hold_out(dataset, 0.2, seed=0)
    assert len(trainer.loader.split) == len(parts.train) == 80
    best = load_checkpoint(trainer.run_directory.best)
    engine = TapeEngine(best.build())
    constants = {"mean": dataset.mean, "std": dataset.std}
    assert evaluate(engine, parts.validation, **constants).top1 == result.best_top1
    assert evaluate(engine, dataset.test, **constants).top1 == result.best_evaluation.top1
    last = TapeEngine(load_checkpoint(trainer.run_directory.last).build())
    assert evaluate(last, dataset.test, **constants).top1 == result.evaluation.top1


def test_test_images_are_not_looked_at_before_the_end(make_trainer, dataset, monkeypatch):
    trainer = make_trainer(recipe=Recipe(epochs=2, batch_size=32, lr=0.05, validation=0.2))
    seen = []
    original = evaluator.evaluate

    def look(engine, split, **keywords):
        seen.append((trainer.state.step, split is dataset.test))
        return original(engine, split, **keywords)

    monkeypatch.setattr(evaluator, "evaluate", look)
    trainer.run()
    assert [on_test for step, on_test in seen if step < trainer.total] == [False]
    assert any(on_test for _, on_test in seen)


def test_best_h5_is_evaluated_and_not_the_last_weights(make_trainer, dataset):
    trainer = make_trainer(recipe=Recipe(epochs=2, batch_size=32, lr=0.05, validation=0.2))
    trainer.run()
    own = trainer.network.state_dict()
    best = own | {"fc_score_weight": 0 * own["fc_score_weight"]}
    best["fc_score_bias"] = np.eye(10, dtype=np.float32)[3]  # says 3 whatever it sees
    save_checkpoint(trainer.run_directory.best, trainer.network, average=best)
    trainer.state.best_epoch = 1
    result = trainer._result()
    threes = 100 * np.mean(dataset.test.labels == 3)
    assert result.best_evaluation.top1 == pytest.approx(threes)
    for name, array in trainer.network.state_dict().items():
        assert array.tobytes() == own[name].tobytes()
    trainer.run_directory.best.write_bytes(b"damaged")
    assert trainer._result().best_evaluation is None


def test_result_json_says_how_it_ended(whole):
    import json

    trainer, result = whole
    said = json.loads(trainer.run_directory.result.read_text())
    assert said["best_val_top1"] == result.best_top1
    assert said["best_top1"] == result.best_evaluation.top1
    assert said["last_top1"] == result.evaluation.top1
    assert said["step"] == result.step


def test_patience(make_trainer):
    """Without a learning rate the accuracy is best after the first epoch, and no better later."""
    still = Recipe(epochs=9, batch_size=32, lr=0, validation=0.2, patience=2)
    # running statistics move: keep the accuracy from moving with them
    trainer = make_trainer(recipe=still, checkpoint_epochs=5)
    for _, layer in trainer.network.named_layers():
        if isinstance(layer, BatchNorm):
            layer.momentum = 1.0
    result = trainer.run()
    assert result.stopped_early
    assert (result.best_epoch, result.step) == (1, 3 * UPDATES)
    run = trainer.run_directory
    assert load_checkpoint(run.last).progress["step"] == 3 * UPDATES
    assert "stopped     early: the validation accuracy has not improved since epoch 1" in (
        closing_lines(trainer, result)
    )
    again = make_trainer(recipe=still)
    again.resume(load_checkpoint(run.last))
    assert not run.result.exists()  # it goes on
    assert again.run().step == 3 * UPDATES
    assert run.result.exists()
    patient = make_trainer(recipe=dataclasses.replace(still, patience=3))
    patient.resume(load_checkpoint(run.last))
    for _, layer in patient.network.named_layers():
        if isinstance(layer, BatchNorm):
            layer.momentum = 1.0
    assert patient.run().step == 4 * UPDATES


def test_a_run_that_improves_is_not_stopped(make_trainer):
    recipe = Recipe(epochs=3, batch_size=32, lr=0.05, validation=0.2, patience=3)
    assert not make_trainer(recipe=recipe).run().stopped_early


def test_frozen_parameters_keep_their_bits(whole, make_trainer):
    before = make_trainer().network.state_dict()
    trainer, _ = whole
    after = trainer.network.state_dict()
    names = [name for name, _ in trainer.network.named_parameters()]
    frozen = [n for n in names if n.startswith(("g0_", "g1_b1_bn_", "g1_b2_bn_"))]
    assert 4 <= len(frozen) < len(names) - 4
    for name in names:
        assert (after[name].tobytes() == before[name].tobytes()) == (name in frozen), name
    saved = load_checkpoint(trainer.run_directory.last)
    assert set(saved.velocity) == set(names) - set(frozen)
    # the running statistics of a frozen batch norm follow the images
    assert (after["g0_bn_moving_mean"] != before["g0_bn_moving_mean"]).any()


def test_what_is_not_as_usual_is_said(whole, make_trainer):
    def said(trainer):
        return unusual_lines(trainer.dataset, trainer.network, trainer.optimizer)

    held_out, frozen = said(whole[0])
    assert "20 of the training images are held out" in held_out
    assert "80 are trained on; the test images are evaluated once, at the end" in held_out
    assert frozen.startswith("frozen      7 of 29 parameters; the running statistics")
    assert said(make_trainer()) == []


def test_patterns_that_match_nothing_or_everything(make_trainer):
    for pattern, message in (
        ("g0_conf_*", r"called 'g0_conf_\*'; names are like g0_conv_weight"),
        ("*", "leave the classifier out: fc_score_weight, fc_score_bias"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_trainer(recipe=Recipe(epochs=3, freeze=(pattern,)))


@pytest.mark.parametrize("change", [{"freeze": ("g0_*",)}, {"validation": 0.3}])
def test_resume_refuses_other_images_or_other_frozen_parameters(whole, make_trainer, change):
    other = make_trainer(recipe=dataclasses.replace(FULL, **change))
    with pytest.raises(ConfigError, match=f"the run to resume has {next(iter(change))} = "):
        other.resume(load_checkpoint(whole[0].run_directory.last))


def test_the_average_is_that_of_the_formula_and_changes_no_weight(make_trainer):
    recipe = Recipe(epochs=3, batch_size=32, lr=0.05)
    plain = make_trainer("plain", recipe=recipe)
    states = [plain.network.state_dict()]

    class Watched(TapeEngine):
        def update(self, batch):
            super().update(batch)
            states.append(self.network.state_dict())

    plain.engine = Watched(plain.network)
    plain.run()
    averaged = make_trainer("averaged", recipe=dataclasses.replace(recipe, average=0.5))
    result = averaged.run()
    saved = load_checkpoint(averaged.run_directory.last)
    assert saved.format_version == 2
    for name, array in states[-1].items():
        assert saved.raw[name].tobytes() == array.tobytes()
        expected = states[0][name].astype(float)
        for t, state in enumerate(states[1:], 1):
            d = min(0.5, (1 + t) / (10 + t))
            expected = d * expected + (1 - d) * state[name]
        np.testing.assert_allclose(saved.state[name], expected, rtol=1e-5, atol=1e-6)
    engine = TapeEngine(saved.build())
    constants = {"mean": plain.dataset.mean, "std": plain.dataset.std}
    assert evaluate(engine, plain.dataset.test, **constants).top1 == result.evaluation.top1


def test_an_average_may_begin_or_end_on_resume(make_trainer):
    recipe = Recipe(epochs=2, batch_size=32, lr=0.05, lr_steps=())
    with_average = dataclasses.replace(recipe, average=0.9)
    make_trainer("reference", recipe=recipe).run()
    reference = load_checkpoint(make_trainer("reference").run_directory.last)
    for folder, first, second in (("a", recipe, with_average), ("b", with_average, recipe)):
        make_trainer(folder, recipe=first, max_steps=3).run()
        trainer = make_trainer(folder, recipe=second)
        trainer.resume(load_checkpoint(trainer.run_directory.last))
        trainer.run()
        saved = load_checkpoint(trainer.run_directory.last)
        assert bool(saved.raw) == (second is with_average)
        for name, array in reference.state.items():
            assert saved.training_state[name].tobytes() == array.tobytes()


def test_batch_norm_that_lags_is_explained():
    layer = BatchNorm(4, momentum=0.99)
    text = lagging_statistics(layer, 92, 82.0, 13.9)
    assert "after 92 updates" in text
    assert "still 40% initial values" in text
    assert "train for at least 299 updates" in text
    assert lagging_statistics(layer, 92, 82.0, 70.0) is None
    assert lagging_statistics(layer, 299, 82.0, 13.9) is None
    assert lagging_statistics(BatchNorm(4, momentum=0.9), 92, 82.0, 13.9) is None


def test_the_end_tells_what_best_was_chosen_on(whole, make_trainer):
    trainer, result = whole
    told = closing_lines(trainer, result)
    assert told[0] == (
        f"best        test top-1 {result.best_evaluation.top1:.2f} % after epoch "
        f"{result.best_epoch}, chosen for {result.best_top1:.2f} % on the validation images"
    )
    assert not any(line.startswith("note") for line in told)
    plain = make_trainer()
    (note,) = [x for x in closing_lines(plain, plain.run()) if x.startswith("note")]
    assert "chosen on the test images" in note
    assert note.endswith("--validation 0.1")


def test_the_end_explains_batch_norm_that_lags(whole, monkeypatch):
    from igcnn.training import describe

    seen = []
    monkeypatch.setattr(describe, "lagging_statistics", lambda *args: seen.append(args) or "lags")
    trainer, result = whole
    assert closing_lines(trainer, result).count("lags") == 1
    row = trainer.run_directory.read_epochs()[-1]
    assert seen == [(trainer.network, row["step"], row["train_top1"], row["val_top1"])]
