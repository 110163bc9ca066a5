"""Training on from the weights of another run: what is taken over, and what is not trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ..autograd import Tensor
from ..errors import CheckpointError, ConfigError
from ..layers import Layer, Linear
from .checkpoint import Checkpoint

SHOWN = 5  # names that a line spells out


def initialise_from(network: Layer, checkpoint: Checkpoint, classes: Sequence[str]) -> list[str]:
    """Copy the weights and running statistics of a checkpoint into a network where they fit.

    The classifier is taken over only if the checkpoint is of the same classes; otherwise it
    keeps its initial weights, as does everything that the checkpoint has not or has in another
    shape.

    Args:
        network: as it was built.
        checkpoint: of the same or a similar network.
        classes: names of the network's classes.

    Returns:
        Lines that say what was taken over and what was not, by name.

    Raises:
        CheckpointError: less than half of the network's parameters, the classifier aside, are
            in the checkpoint; nothing was changed.
    """
    own = network.state_dict()
    names = [name for name, _ in network.named_parameters()]
    classifier = _classifier(network)
    known = checkpoint.preprocessing.classes if checkpoint.preprocessing else None
    renewed = [] if known == tuple(classes) else classifier
    missing = [name for name in own if name not in checkpoint.state and name not in renewed]
    reshaped = [
        name
        for name, array in checkpoint.state.items()
        if name in own and name not in renewed and array.shape != own[name].shape
    ]
    left_out = {*missing, *reshaped, *renewed}
    body = [name for name in names if name not in classifier]
    fitting = [name for name in body if name not in left_out]
    if 2 * len(fitting) < len(body):
        raise CheckpointError(
            f"the checkpoint is of another network, {_settings(checkpoint)}: only {len(fitting)} "
            f"of {len(body)} parameters fit; build the same network, with its --net, --depth, "
            "--L and --M"
        )
    taken = {n: x for n, x in checkpoint.state.items() if n in own and n not in left_out}
    network.load_state_dict(own | taken)
    copied = sum(name in taken for name in names)
    notes = (
        ("new classifier for different classes", renewed),
        ("not in the checkpoint, so newly initialized", missing),
        ("of a different shape in the checkpoint, so newly initialized", reshaped),
        ("only in the checkpoint, so ignored", [n for n in checkpoint.state if n not in own]),
    )
    return [
        f"loaded {copied} of {len(names)} parameters from the checkpoint",
        *(f"{what}: {_listed(found)}" for what, found in notes if found),
    ]


def trained_parameters(network: Layer, freeze: Iterable[str]) -> list[tuple[str, Tensor]]:
    """Return (name, tensor) of the parameters that no pattern matches.

    Args:
        network: its parameters.
        freeze: patterns of names as of the shell: * stands for anything, ? for one character,
            [ab] for one of these.

    Raises:
        ConfigError: a pattern matches no name, or all names are matched.
    """
    named = list(network.named_parameters())
    names = [name for name, _ in named]
    frozen: set[str] = set()
    for pattern in freeze:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern, names, 3, 0.4) or names[:3]
            raise ConfigError(
                f"freeze: no parameter is called {pattern!r}; names are like {', '.join(near)}, "
                "and * stands for anything"
            )
        frozen.update(matched)
    if len(frozen) == len(named):
        raise ConfigError(
            f"freeze: {', '.join(freeze)} leaves no parameter to train; leave the classifier "
            f"out: {', '.join(_classifier(network))}"
        )
    return [(name, tensor) for name, tensor in named if name not in frozen]


def _classifier(network: Layer) -> list[str]:
    """Return the names of the parameters of the last fully connected layer."""
    layers = [layer for _, layer in network.named_layers() if isinstance(layer, Linear)]
    own = {id(tensor) for layer in layers[-1:] for tensor in layer.parameters()}
    return [name for name, tensor in network.named_parameters() if id(tensor) in own]


def _settings(checkpoint: Checkpoint) -> str:
    settings = checkpoint.network
    shown = [f"{name} {settings[name]}" for name in ("net", "depth", "L", "M") if name in settings]
    return ", ".join(shown) or "of unknown settings"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
