"""Training beyond the recipe on the command line, by the compiled plan where there is one."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from igcnn import load_checkpoint
from igcnn.training.run_directory import RunDirectory

from .conftest import TINY

FULL = (
    *(*TINY, "--epochs", "2", "--schedule", "cosine", "--warmup-epochs", "0.2"),
    *("--label-smoothing", "0.1", "--average", "0.9", "--validation", "0.2"),
    *("--freeze", "g0_*,g1_b1_*", "--freeze", "fc_score_bias"),
)


def raw(run):
    return load_checkpoint(Path(run, "checkpoints", "last.h5")).raw


@pytest.mark.parametrize("eager", [(), ("--eager",)], ids=["plan", "tape"])
def test_stopped_and_resumed_is_never_stopped(igcnn, eager):
    code, out, _ = igcnn(*FULL, *eager, "--out", "whole")
    assert code == 0
    assert "average of the weights 0.9, validation 0.2, frozen g0_*, g1_b1_*, fc_score_bias" in (
        " ".join(out.split())
    )
    assert "chosen for" in out
    assert igcnn(*FULL, *eager, "--out", "stopped", "--max-steps", "7")[0] == 0
    assert igcnn("train", "--resume", "stopped", *eager)[0] == 0
    for name in ("last.h5", "best.h5"):
        one, other = (load_checkpoint(Path(x, "checkpoints", name)) for x in ("whole", "stopped"))
        assert one.velocity.keys() == other.velocity.keys()
        for group in ("state", "raw", "velocity"):
            for key, array in getattr(one, group).items():
                assert array.tobytes() == getattr(other, group)[key].tobytes(), (group, key)
    config = tomllib.loads(Path("whole/config.toml").read_text())
    assert config["freeze"] == ["g0_*", "g1_b1_*", "fc_score_bias"]
    assert (config["schedule"], config["average"], config["validation"]) == ("cosine", 0.9, 0.2)
    assert "lr_factor" not in config


def test_init_from_and_freeze(igcnn, refused):
    assert igcnn(*TINY, "--max-steps", "3", "--seed", "1", "--out", "a")[0] == 0
    frozen = ("--init-from", "a", "--freeze", "g?_*")
    code, out, _ = igcnn(*TINY, *frozen, "--max-steps", "3", "--out", "b")
    assert code == 0
    assert "init from   loaded 29 of 29 parameters from the checkpoint" in out
    before, after = (load_checkpoint(Path(x, "checkpoints", "last.h5")) for x in "ab")
    for name, array in before.parameters.items():
        same = np.array_equal(array, after.parameters[name])
        assert same == name.startswith("g"), name
    config = tomllib.loads(Path("b/config.toml").read_text())
    assert Path(config["init_from"]) == Path("a").absolute()
    assert igcnn("train", "--resume", "b", "--max-steps", "4")[0] == 0  # "a" is not read again
    assert "only 0 of 27 parameters fit" in refused(
        6, *TINY, "--L", "4", "--init-from", "a", "--out", "c"
    )
    assert "there is no checkpoint" in refused(6, *TINY, "--init-from", "x", "--out", "c")
    assert "names are like" in refused(2, *TINY, "--freeze", "conv_*", "--out", "c")
    assert not Path("c").exists()


@pytest.mark.parametrize("eager", [(), ("--eager",)], ids=["plan", "tape"])
def test_label_smoothing_is_in_the_training_loss(igcnn, eager):
    """The first loss, of the same logits: (1 − ε)·loss + ε·(loss against equal shares)."""
    losses = []
    for smoothing in ("0", "0.3", "0.6"):
        options = ("--max-steps", "1", "--log-interval", "1", "--label-smoothing", smoothing)
        assert igcnn(*TINY, *options, *eager, "--out", smoothing)[0] == 0
        losses.append(RunDirectory(smoothing).read_steps()[0]["loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)


def test_patience_needs_validation_images(refused):
    line = refused(2, *TINY, "--patience", "3", "--out", "run")
    assert "hold some out, for example --validation 0.1" in line
    assert not Path("run").exists()


def test_several_seeds(igcnn, refused):
    seeds = (*TINY, "--epochs", "1", "--seeds", "0,3", "--out", "tries")
    code, out, _ = igcnn(*seeds)
    assert code == 0
    summary = json.loads(Path("tries/seeds.json").read_text())
    results = [json.loads(Path(f"tries/seed{s}/result.json").read_text()) for s in (0, 3)]
    a, b = (result["best_top1"] for result in results)
    assert summary["best_top1"]["mean"] == pytest.approx((a + b) / 2)
    assert summary["best_top1"]["std"] == pytest.approx(abs(a - b) / 2**0.5)
    assert f"{(a + b) / 2:.2f} ± " in out.splitlines()[-2]
    table = out.splitlines()[-5:]
    saved = {s: Path(f"tries/seed{s}/checkpoints/last.h5").read_bytes() for s in (0, 3)}
    assert saved[0] != saved[3]
    RunDirectory("tries/seed3").result.unlink()  # as if it had been interrupted
    code, out, err = igcnn(*seeds)
    assert code == 0
    assert "seed0 is complete and kept" in err
    assert "resumed     after step 23" in out
    assert out.splitlines()[-5:] == table
    line = refused(2, *seeds, "--epochs", "2")
    assert "seed0 was trained with epochs = 1, not 2" in line
    assert "like 0,1,2" in refused(2, *TINY, "--seeds", "0,0", "--out", "x")
    assert "--seeds needs --out" in refused(2, *TINY, "--seeds", "0,1")


def save_photographs():
    """Six of each of two classes, in photos/."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("photos", name, f"{i}.png"))


def test_what_was_left_out_in_training_is_left_out_in_evaluation(igcnn, refused):
    save_photographs()
    Path("photos/dog/broken.png").write_bytes(b"no image")
    options = ("--dataset", "folder", "--data-dir", "photos", "--image-size", "8")
    options += ("--workers", "0", "--out", "run", "--max-steps", "2", "--on-bad-image", "skip")
    code, _, err = igcnn(*TINY, *options)
    assert code == 0
    assert "skipped: " in err
    code, out, err = igcnn("eval", "run", "--workers", "0")
    assert code == 0
    assert "images  2" in out
    assert "broken.png" in err
    assert "broken.png" in refused(3, "eval", "run", "--workers", "0", "--on-bad-image", "fail")


def test_photographs_in_class_folders(igcnn):
    save_photographs()
    options = ("--dataset", "folder", "--data-dir", "photos", "--image-size", "8")
    code, out, _ = igcnn(*TINY, *options, "--workers", "0", "--out", "run", "--max-steps", "2")
    assert code == 0
    assert "epochs 200, batch size 8" in out
    assert "2 of its 12 images" in " ".join(out.split())
    config = tomllib.loads(Path("run/config.toml").read_text())
    assert (config["epochs"], config["batch_size"]) == (200, 8)
