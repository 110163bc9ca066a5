"""What a run saves, each as something to prepare, to do, and to look at afterwards.

`do` runs in a process of its own, in which one system call fails or is the last; it returns the
exit code. `lost` says in words what is not as it was and not as it should have become.
"""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np

from igcnn import build_network, load_dataset
from igcnn.cli.failure import report
from igcnn.datasets.pack import check_block, pack
from igcnn.errors import IgcnnError
from igcnn.training import Recipe, RunDirectory, Trainer, load_checkpoint
from igcnn.training.checkpoint import load_newest

CODES = {
    "checkpoint, another follows": {0},
    "last checkpoint": {0, 6},
    "config": {0, 2},
    "metrics": {0},
    "resume": {0, 2, 6},
    "pack": {0, 3},
    "training": {0, 2, 6},
}
SECONDS = "seconds", "images_per_second"


def exit_code(action):
    """Return the code that the command line ends with."""
    try:
        action()
    except BaseException as error:
        return report(error)
    return 0


def digits():
    """10 images to train on and 6 to test."""
    whole = load_dataset("digits")

    def first(split, n):
        return dataclasses.replace(split, images=split.images[:n], labels=split.labels[:n])

    return dataclasses.replace(whole, train=first(whole.train, 10), test=first(whole.test, 6))


def trainer(folder, epochs=2):
    """Return a training of 2 updates an epoch."""
    network = build_network("plain_igc", depth=5, L=2, M=2, num_classes=10, seed=1)
    recipe = Recipe(epochs=epochs, batch_size=5, lr=0.05)
    return Trainer(network, DIGITS, recipe, RunDirectory(folder), log_interval=1)


def begin(folder):
    """Start a run as the command does."""
    run = RunDirectory(folder)
    run.create(overwrite=True)
    run.write_config({"net": "plain_igc"})
    run.write_environment("cpu")
    run.write_summary("a network")


DIGITS = digits()


class Training:
    """A whole run, and where it ended early the rest of it."""

    name = "training"

    def __init__(self, folder):
        self.reference = folder / "reference"
        self.prepare(self.reference)
        assert self.do(self.reference) == 0

    def prepare(self, folder):
        folder.mkdir()

    def do(self, folder):
        return exit_code(lambda: (begin(folder), trainer(folder).run()))

    def go_on(self, folder):
        """Do what a user does next: resume, or begin anew where nothing was begun."""
        run = RunDirectory(folder)
        if not (run.is_run() and run.last.exists()):
            return self.do(folder)

        def rest():
            own = trainer(folder)
            own.resume(load_newest(run.last, run.previous)[0])
            own.run()

        return exit_code(rest)

    def lost(self, folder, code):
        run = RunDirectory(folder)
        problems = damaged(run)
        if code and (again := self.go_on(folder)):
            return [*problems, f"cannot go on: exit code {again}"]
        return problems + different(run, RunDirectory(self.reference), whole=code != 0)


class Saving(Training):
    """A checkpoint in the middle of a run: last.h5 and previous.h5 are there."""

    name = "checkpoint, another follows"
    needed = False

    def __init__(self, folder):
        super().__init__(folder)
        saved = RunDirectory(self.reference)
        self.before, self.best = state_of(saved.last), state_of(saved.best)
        longer = folder / "longer"
        longer.mkdir()
        begin(longer)
        trainer(longer, epochs=3).run()
        self.after = state_of(longer / "checkpoints" / "last.h5")
        self.trainer = trainer(longer, epochs=3)
        self.trainer.resume(load_checkpoint(longer / "checkpoints" / "last.h5"))

    def prepare(self, folder):
        super().prepare(folder)
        if folder != self.reference:
            copy(self.reference, folder)

    def do(self, folder):
        if folder == self.reference:
            return super().do(folder)
        saver = self.trainer.saver
        saver.run = RunDirectory(folder)
        saver.run._pending[folder / "metrics.jsonl"] = '{"step": 5}\n'
        return exit_code(
            lambda: saver.save(saver.run.last, self.trainer.state, needed=self.needed)
        )

    def lost(self, folder, code):
        run = RunDirectory(folder)
        problems = []
        last, previous, best = map(state_of, (run.last, run.previous, run.best))
        if last not in (self.before, self.after):
            problems.append("last.h5 is neither the old nor the new one")
        if last == self.after and previous != self.before:
            problems.append("previous.h5 is not what last.h5 was")
        if self.needed and code == 0 and last != self.after:
            problems.append("the last checkpoint is not there, and nothing was said")
        if best != self.best:
            problems.append("best.h5 has changed")
        return problems


class LastSaving(Saving):
    """The checkpoint that a run ends with."""

    name = "last checkpoint"
    needed = True


class Config:
    """Settings that replace others."""

    name = "config"

    def __init__(self, folder):
        self.old, self.new = {"net": "plain"}, {"net": "resnet_igc", "L": 24}

    def prepare(self, folder):
        folder.mkdir()
        RunDirectory(folder).write_config(self.old)

    def do(self, folder):
        return exit_code(lambda: RunDirectory(folder).write_config(self.new))

    def lost(self, folder, code):
        found = RunDirectory(folder).read_config()
        if found == self.new or (code and found == self.old):
            return []
        return [f"the settings are {found}"]


class Metrics:
    """Two log steps and an epoch after others; what could not be written is tried again."""

    name = "metrics"

    def __init__(self, folder):
        steps = ("step", "epoch", "loss", "top1", "lr", *SECONDS)
        self.steps = [{key: float(k) for key in steps} for k in range(4)]
        names = "epoch step train_loss train_top1 test_loss test_top1 test_top5 lr seconds"
        self.epochs = [{key: float(k) for key in names.split()} for k in range(3)]
        for rows in (self.steps, self.epochs):
            for k, row in enumerate(rows):
                row["step"] = row["epoch"] = k + 1.0

    def prepare(self, folder):
        folder.mkdir()
        self.write(RunDirectory(folder), 0, 2)

    def write(self, run, first, end):
        for k in range(first, end):
            run.append_step(self.steps[k])
            if k < len(self.epochs):
                run.append_epoch(self.epochs[k])
        for _ in range(2):  # as two checkpoints do
            with contextlib.suppress(OSError):
                run.flush()

    def do(self, folder):
        return exit_code(lambda: self.write(RunDirectory(folder), 2, 4))

    def lost(self, folder, code):
        run = RunDirectory(folder)
        problems = []
        for name, found, rows in (
            ("metrics.jsonl", run.read_steps(), self.steps),
            ("metrics.csv", run.read_epochs(), self.epochs),
        ):
            if found != rows[: len(found)] or len(found) < 2:
                problems.append(f"{name} has other rows: {found}")
            if code == 0 and found != rows:
                problems.append(f"{name} has {len(found)} rows of {len(rows)}")
        return problems


class Resume(Training):
    """A run that goes on from its last checkpoint, whose rows are newer than it."""

    name = "resume"

    def __init__(self, folder):
        super().__init__(folder)
        self.half = folder / "half"
        self.half.mkdir()
        begin(self.half)
        own = trainer(self.half)
        own.total = 3
        own.run()

    def prepare(self, folder):
        folder.mkdir()
        if folder != self.reference:
            copy(self.half, folder)

    def do(self, folder):
        return super().do(folder) if folder == self.reference else self.go_on(folder)


class Pack:
    """A file of packed images that replaces another."""

    name = "pack"

    def __init__(self, folder):
        from datasets.pictures import make_tree

        self.datasets = []
        for k, images in enumerate((2, 3)):
            tree = folder / f"tree{k}"
            make_tree(tree, classes=2, images=images, size=(20, 16))
            self.datasets.append(load_dataset("imagenet", tree))
        self.old, self.new = (folder / name for name in ("old.h5", "new.h5"))
        for dataset, path in zip(self.datasets, (self.old, self.new), strict=True):
            pack(dataset, path, 0, lambda *_: None)

    def prepare(self, folder):
        folder.mkdir()
        (folder / "imagenet.h5").write_bytes(self.old.read_bytes())

    def do(self, folder):
        path = folder / "imagenet.h5"
        return exit_code(lambda: pack(self.datasets[1], path, 0, lambda *_: None))

    def lost(self, folder, code):
        path = folder / "imagenet.h5"
        check_block(path)
        found = path.read_bytes()
        if found == self.new.read_bytes() or (code and found == self.old.read_bytes()):
            return []
        return ["the file is neither the old nor the new one"]


SCENARIOS = {s.name: s for s in (Saving, LastSaving, Config, Metrics, Resume, Pack, Training)}


# -- what was lost


def copy(source, target):
    for path in sorted(source.rglob("*")):
        other = target / path.relative_to(source)
        if path.is_dir():
            other.mkdir()
        else:
            other.write_bytes(path.read_bytes())


def state_of(path):
    """Return weights, velocity and step of a checkpoint, comparable; None where there is none."""
    if not Path(path).exists():
        return None
    saved = load_checkpoint(path)
    arrays = saved.state | {f"velocity of {n}": a for n, a in saved.velocity.items()}
    return {n: a.tobytes() for n, a in arrays.items()} | {"step": saved.progress["step"]}


def damaged(run):
    """Return which of a run's checkpoints are there and cannot be read."""
    problems = []
    for path in (run.last, run.previous, run.best):
        try:
            state_of(path)
        except IgcnnError as error:
            problems.append(f"{path.name}: {error}")
    return problems


def different(run, reference, whole):
    """Return in what a finished run differs from one that nothing disturbed.

    whole: also in previous.h5's and best.h5's content and in rows: a run that went on has them
    all. One that lost a checkpoint on the way, and said so, ends with the others.
    """
    problems = []
    if state_of(run.last) != state_of(reference.last):
        problems.append("last.h5 is not that of an undisturbed run")
    for rows, others, name in (
        (run.read_steps(), reference.read_steps(), "metrics.jsonl"),
        (run.read_epochs(), reference.read_epochs(), "metrics.csv"),
    ):
        kept = [
            [{k: v for k, v in row.items() if k not in SECONDS} for row in table]
            for table in (rows, others)
        ]
        if kept[0] != kept[1]:
            problems.append(f"{name} has other rows than an undisturbed run")
    if whole and not run.result.exists():
        problems.append("result.json is missing")
    return problems


np.seterr(all="ignore")
