"""The settings of a training run, each declared once: name, kind, default, help, group.

The options of `igcnn train`, the names in --config, --set and IGCNN_… and what config.toml
records are made from SETTINGS. Nothing heavy is imported before a default or choices are asked
for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .kinds import (
    FOLDER,
    INTEGER,
    INTEGERS,
    NAME,
    NATURAL,
    NUMBER,
    PATH,
    POSITIVE,
    POSITIVE_NUMBER,
    SWITCH,
    TEXT,
    TEXTS,
    Kind,
)

# groups, in the order in which they are shown
NETWORK = "Network"
DATA = "Data"
RECIPE = "Recipe"
DEVICE = "Device"
RANKS = "Several processes"
RUN = "Run"


@dataclass(frozen=True)
class Setting:
    """A setting of a training run.

    Attributes:
        name: in Python and TOML; the flag has dashes for underscores.
        kind: what values it takes.
        group: under which it is shown.
        help: what it sets, one sentence.
        default: its value unless it is given; None: the network, the preset, the recipe or
            igcnn decides.
        shown: the default in words, or what returns it; by default `default`.
        choices: the names that it takes, or what returns them; () if there is no fixed list.
        examples: values that a shell completes it to, if there is no fixed list.
        metavar: what stands for the value in a help text; by default the kind's.
        recorded: whether it belongs to the run and is kept in config.toml, rather than to the
            terminal or the computer.
    """

    name: str
    kind: Kind
    group: str
    help: str
    default: Any = None
    shown: str | Callable[[], object] = ""
    choices: Sequence[str] | Callable[[], Sequence[str]] = ()
    examples: tuple[str, ...] = ()
    metavar: str = ""
    recorded: bool = True

    @property
    def flag(self) -> str:
        """The option of `igcnn train`."""
        return f"--{self.name.replace('_', '-')}"

    def names(self) -> tuple[str, ...]:
        """Return the names that it takes, () if there is no fixed list."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def default_text(self) -> str:
        """Return the default in words, "" if there is none."""
        shown = self.shown() if callable(self.shown) else self.shown
        if shown == "" and self.default is not None and self.default is not False:
            shown = self.default
        return f"{shown:g}" if isinstance(shown, float) else str(shown)

    def convert(self, value: object, source: str) -> Any:
        """Return a value, which may be text, as the setting's kind; case is ignored in names.

        Args:
            value: as it was given.
            source: where, for the error.

        Raises:
            ConfigError: it is of another kind, or none of the names.
        """
        try:
            result = self.kind.read(value)
        except ValueError as error:
            raise ConfigError(
                f"{self.name} must be {self.kind.what}, not {value!r} ({source})"
            ) from error
        names = self.names()
        if not names or result in names:
            return result
        by_lower = {name.lower(): name for name in names}
        if result.lower() in by_lower:
            return by_lower[result.lower()]
        near = difflib.get_close_matches(result.lower(), by_lower, 1)
        hint = f"; did you mean {by_lower[near[0]]}?" if near else ""
        raise ConfigError(f"{self.name} must be {any_of(names)}, not {result} ({source}){hint}")


def any_of(names: Sequence[str]) -> str:
    """Return names as "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _networks() -> Sequence[str]:
    from .networks import NETWORKS

    return tuple(NETWORKS)


def _fusions() -> Sequence[str]:
    from .networks.plain_igc import FUSIONS

    return tuple(FUSIONS)


def _datasets() -> Sequence[str]:
    from .datasets import DATASETS

    return tuple(DATASETS)


def _presets() -> Sequence[str]:
    from .training.recipe import PRESETS

    return PRESETS


def _schedules() -> Sequence[str]:
    from .training.recipe import SCHEDULES

    return SCHEDULES


def _progress_modes() -> Sequence[str]:
    from .training.progress import MODES

    return MODES


def _precisions() -> Sequence[str]:
    from .training.engine import PRECISIONS

    return PRECISIONS


def _reductions() -> Sequence[str]:
    from .distributed.connect import REDUCTIONS

    return REDUCTIONS


def _image_size() -> int:
    from .datasets.registry import IMAGE_SIZE

    return IMAGE_SIZE


def _lr_factors() -> str:
    from .training.recipe import FALL, STEP_FACTOR

    return f"{STEP_FACTOR:g}; exponential: {FALL:g} in all"


def _timeout() -> float:
    from .distributed.communicator import TIMEOUT

    return TIMEOUT


def _of_recipe(name: str) -> Callable[[], object]:
    """Return what reads a default of Recipe."""

    def read() -> object:
        from .training.recipe import Recipe

        return getattr(Recipe, name)

    return read


_TABLE = (
    Setting(
        "net", TEXT, NETWORK, "Network family.", "resnet_igc", choices=_networks, metavar="NAME"
    ),
    Setting("depth", INTEGER, NETWORK, "Layers with weights.", shown="20; ImageNet: 18"),
    Setting("L", INTEGER, NETWORK, "Primary partitions.", shown="24; regular: 16"),
    Setting("M", INTEGER, NETWORK, "Channels per primary partition.", shown="2; regular: 1"),
    Setting(
        "fusion",
        TEXT,
        NETWORK,
        "Secondary convolution of plain_igc.",
        shown="learned",
        choices=_fusions,
        metavar="NAME",
    ),
    Setting(
        "growth",
        TEXT,
        NETWORK,
        "What the stages of resnet_igc_imgnet_d18 double.",
        shown="as published",
        choices=("L", "M"),
    ),
    Setting("dataset", TEXT, DATA, "Data set.", "digits", choices=_datasets, metavar="NAME"),
    Setting("data_dir", FOLDER, DATA, "Directory with the data set's files."),
    Setting(
        "image_size",
        POSITIVE,
        DATA,
        "Image side in pixels, for --dataset folder.",
        shown=_image_size,
    ),
    Setting(
        "workers",
        NATURAL,
        DATA,
        "Number of processes that decode images.",
        shown="all cores",
        recorded=False,
    ),
    Setting(
        "on_bad_image",
        TEXT,
        DATA,
        "What to do with unreadable images.",
        "fail",
        choices=("fail", "skip"),
    ),
    Setting(
        "preset", TEXT, RECIPE, "Recipe to start from.", shown="the data set's", choices=_presets
    ),
    Setting("epochs", INTEGER, RECIPE, "Number of epochs.", shown="the preset's"),
    Setting(
        "batch_size",
        INTEGER,
        RECIPE,
        "Batch size, over all ranks.",
        shown=_of_recipe("batch_size"),
    ),
    Setting("lr", NUMBER, RECIPE, "Initial learning rate.", shown=_of_recipe("lr")),
    Setting(
        "schedule",
        TEXT,
        RECIPE,
        "Learning rate schedule.",
        shown=_of_recipe("schedule"),
        choices=_schedules,
        metavar="NAME",
    ),
    Setting(
        "lr_steps",
        INTEGERS,
        RECIPE,
        "Epochs after which the learning rate drops, or none.",
        shown="at 1/2, 3/4, 7/8",
    ),
    Setting(
        "lr_factor",
        NUMBER,
        RECIPE,
        "Factor of each drop; exponential: of each epoch.",
        shown=_lr_factors,
    ),
    Setting(
        "lr_min",
        NUMBER,
        RECIPE,
        "Minimum learning rate of cosine and exponential.",
        shown=_of_recipe("lr_min"),
    ),
    Setting(
        "warmup_epochs",
        NUMBER,
        RECIPE,
        "Epochs of linear warm-up.",
        shown=_of_recipe("warmup_epochs"),
    ),
    Setting("plain_momentum", SWITCH, RECIPE, "Plain instead of Nesterov momentum.", False),
    Setting("momentum", NUMBER, RECIPE, "SGD momentum.", shown=_of_recipe("momentum")),
    Setting(
        "weight_decay",
        NUMBER,
        RECIPE,
        "L2 penalty on all parameters.",
        shown=_of_recipe("weight_decay"),
    ),
    Setting(
        "label_smoothing",
        NUMBER,
        RECIPE,
        "Share of the target spread over all classes.",
        shown=_of_recipe("label_smoothing"),
    ),
    Setting(
        "average",
        NUMBER,
        RECIPE,
        "Decay of a moving average of the weights, such as 0.999; 0 for none.",
        shown=_of_recipe("average"),
    ),
    Setting(
        "validation",
        NUMBER,
        RECIPE,
        "Fraction of the training images to choose best.h5 on.",
        shown=_of_recipe("validation"),
    ),
    Setting(
        "patience",
        INTEGER,
        RECIPE,
        "Stop after this many epochs without improvement.",
        shown="never",
    ),
    Setting("init_from", PATH, RECIPE, "Start with the weights of a checkpoint or run."),
    Setting(
        "freeze", TEXTS, RECIPE, "Freeze parameters with matching names.", metavar="PATTERN,…"
    ),
    Setting("seed", NATURAL, RECIPE, "Random seed.", 0),
    Setting(
        "device",
        NAME,
        DEVICE,
        "Device to run on.",
        "auto",
        examples=("auto", "cpu", "cuda", "emu"),
        metavar="auto|cpu|cuda[:N]|emu",
    ),
    Setting(
        "precision",
        TEXT,
        DEVICE,
        "Precision; bf16 is for activations on a GPU.",
        "fp32",
        choices=_precisions,
    ),
    Setting(
        "cores", POSITIVE, DEVICE, "Number of CPU threads.", shown="all cores", recorded=False
    ),
    Setting("eager", SWITCH, DEVICE, "Run the plain tape instead of a compiled plan.", False),
    Setting("sync_bn", SWITCH, RANKS, "Batch normalization over all ranks; on the tape.", False),
    Setting(
        "reduce",
        TEXT,
        RANKS,
        "How GPUs sum gradients.",
        "auto",
        choices=_reductions,
        recorded=False,
    ),
    Setting(
        "rank_timeout",
        POSITIVE_NUMBER,
        RANKS,
        "Seconds until an unresponsive rank counts as lost.",
        shown=_timeout,
        recorded=False,
    ),
    Setting("max_steps", INTEGER, RUN, "Stop after this many updates in total."),
    Setting("log_interval", INTEGER, RUN, "Updates between log lines.", 20),
    Setting("checkpoint_epochs", INTEGER, RUN, "Epochs between checkpoints.", 1),
    Setting("checkpoint_steps", INTEGER, RUN, "Updates between extra checkpoints."),
    Setting("tensorboard", SWITCH, RUN, "Also write events to RUN/tensorboard.", False),
    Setting(
        "progress",
        TEXT,
        RUN,
        "Progress display.",
        "auto",
        choices=_progress_modes,
        metavar="MODE",
        recorded=False,
    ),
)

SETTINGS = {setting.name: setting for setting in _TABLE}
