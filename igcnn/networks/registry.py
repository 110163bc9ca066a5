"""Networks by name: what `register_network` knows of each, and `build_network`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError
from ..kinds import BY_TYPE
from ..layers import Chain, Layer
from ..notebook import html_table
from ..registry import Registry

Builder = Callable[..., Mapping[str, Layer] | Layer]
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)
Settings = Mapping[str, Any]

SUPPLIED = ("rng", "dtype")  # keywords of a builder that are no settings of the network


@dataclass(frozen=True)
class Family:
    """The networks that one registered function builds.

    Attributes:
        name: what `--net` calls it.
        build: the function.
        defaults: name → default of each setting, in the order of the function's keywords.
        image_size: side of the images that it is made for, in pixels.
        derived: name of a setting → function of the others that returns its default.
    """

    name: str
    build: Builder
    defaults: dict[str, Any]
    image_size: int
    derived: Mapping[str, Callable[[Settings], Any]]

    def convert(self, setting: str, value: object) -> Any:
        """Return a value, or a text of it, as the type of the setting's default.

        Raises:
            ConfigError: there is no such setting, or the value is of another kind.
        """
        if setting not in self.defaults:
            near = difflib.get_close_matches(setting, self.defaults, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{self.name} has no setting {setting!r}: {hint}it takes "
                f"{', '.join(self.defaults)}"
            )
        kind = BY_TYPE[type(self.defaults[setting])]
        try:
            return kind.read(value)
        except ValueError as error:
            raise ConfigError(
                f"{self.name}: {setting} must be {kind.what}, not {value!r}"
            ) from error

    def complete(self, given: Settings) -> dict[str, Any]:
        """Return all settings: those given that are not None, the defaults of the others.

        Raises:
            ConfigError: an unknown setting, or a value of another kind.
        """
        settings = dict(self.defaults)
        for name, value in given.items():
            if value is not None:
                settings[name] = self.convert(name, value)
        for name, derive in self.derived.items():
            if settings[name] is None:
                settings[name] = derive(settings)
        return settings


NETWORKS: Registry[Family] = Registry(
    "network",
    "igcnn.networks",
    {
        "plain": "igcnn.networks.plain",
        "resnet": "igcnn.networks.resnet",
        "plain_igc": "igcnn.networks.plain_igc",
        "resnet_igc": "igcnn.networks.resnet_igc",
        "resnet_imgnet_d18": "igcnn.networks.imagenet18",
        "resnet_igc_imgnet_d18": "igcnn.networks.imagenet18",
        "plain_igc_equal": "igcnn.networks.plain_igc",
        "igcv2": "igcnn.networks.igcv2",
        "igcv3": "igcnn.networks.inverted",
        "igcv3_imgnet": "igcnn.networks.inverted",
        "mobilenetv2": "igcnn.networks.inverted",
        "mobilenetv2_imgnet": "igcnn.networks.inverted",
        "merge_and_run": "igcnn.networks.merge_and_run",
    },
)


def register_network(
    name: str,
    *,
    image_size: int = 32,
    defaults: Settings | None = None,
    derived: Mapping[str, Callable[[Settings], Any]] | None = None,
) -> Callable[[AnyBuilder], AnyBuilder]:
    """Return a decorator that registers a function as the builder of a network::

        @register_network("tiny")
        def tiny(*, width: int = 16, num_classes: int = 10, rng, dtype):
            return {
                "conv": Convolution(3, width, 3, padding=1, rng=rng, dtype=dtype),
                "pool": GlobalAveragePool(),
                "fc": Linear(width, num_classes, rng=rng, dtype=dtype),
            }

        build_network("tiny", width=32)

    The function's keywords are the settings of the network, and their defaults say of which type
    they are: bool, int, float or str, or a text where the default is None. It must take
    `num_classes`, the number of outputs; `rng`, the random generator that all initial weights
    have to come from; and `dtype`, "float32" or "float64". It returns a layer, or a dict of
    name → layer for layers that are executed one after another.

    Args:
        name: what `--net` calls the network.
        image_size: side in pixels of the images that it is made for, where nothing else is said.
        defaults: those that differ from the function's own, where it builds several networks.
        derived: name of a setting whose default is None → function that returns its default for
            the other settings.

    Raises:
        ConfigError: another module has registered the name, or the function does not take what
            it must.
    """

    def register(build: AnyBuilder) -> AnyBuilder:
        keywords = inspect.signature(build).parameters
        missing = {"num_classes", *SUPPLIED} - set(keywords)
        if missing:
            raise ConfigError(
                f"{name}: the builder {build.__name__} must take {', '.join(sorted(missing))}"
            )
        own = {key: keywords[key].default for key in keywords if key not in SUPPLIED}
        own |= defaults or {}
        for key, default in own.items():
            if type(default) not in BY_TYPE:
                raise ConfigError(
                    f"{name}: the keyword {key} of {build.__name__} needs a default that is a "
                    "bool, int, float, str or None"
                )
        family = Family(name, build, own, image_size, derived or {})
        NETWORKS.add(name, family, build.__module__)
        return build

    return register


class Network(Chain):
    """A network for images of three channels. Its repr is one line; str shows all layers.

    Args:
        layers: name → layer, in the order of execution.
        settings: the arguments of build_network that make the same network again; "num_classes"
            at least.
        module: which registers the network's builder; "" where build_network did not make it.
        image_size: side in pixels of the images that it is made for.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        settings: dict[str, Any],
        module: str = "",
        image_size: int = 32,
    ) -> None:
        super().__init__(layers)
        self.settings = settings
        self.module = module
        self.image_size = image_size
        for name, layer in self.named_layers():
            layer.name = name
        for name, tensor in self.named_parameters():
            tensor.name = name

    def __repr__(self) -> str:
        settings = " ".join(f"{key}={value!r}," for key, value in self.settings.items())
        count = sum(tensor.size for tensor in self.parameters())
        return f"Network({settings} {count:,} parameters)"

    def __str__(self) -> str:
        return super().__repr__()

    def _repr_html_(self) -> str:
        leaves = [(name, x) for name, x in self.named_layers() if not x.children()]
        rows = [(name, repr(x), sum(p.size for p in x.parameters())) for name, x in leaves]
        return html_table(repr(self), ("layer", "operation", "parameters"), rows)

    def to_dtype(self, dtype: str) -> Network:
        """Return a new network of the same settings and weights, on the CPU.

        Args:
            dtype: of its parameters and buffers, float32 or float64.

        Raises:
            ConfigError: build_network did not make this network.
        """
        if "net" not in self.settings:
            raise ConfigError(
                "this network cannot be built a second time: register the function that builds "
                "it by @register_network, and make it by build_network"
            )
        network = build_network(**self.settings, dtype=dtype)
        network.load_state_dict(self.state_dict())
        return network


def build_network(net: str, *, seed: int = 0, dtype: str = "float32", **settings: Any) -> Network:
    """Return a network with its initial weights, in the networks of the paper the authors'.

    Args:
        net: one of NETWORKS.
        seed: of the initial weights.
        dtype: float32 or float64.
        settings: keywords of the network's builder; None stands for its default. All take
            num_classes, the number of outputs: by default 10, ImageNet 1000. Those of the paper:

            * depth: number of layers with weights, an interleaved unit counting as one; 20 by
              default, 18 for the ImageNet networks. plain and plain_igc take 2 + 3·n, resnet
              and resnet_igc even numbers from 8.
            * L: number of primary partitions; by default 24, in regular networks 16 (ImageNet:
              100, 64). Regular networks have the width L·M.
            * M: channels of a partition in the first stage; by default 2, in regular networks 1.
            * fusion: secondary convolution of plain_igc: "learned", or one of the special cases
              "summation", "identity", "four_branch" (networks/plain_igc.py).
            * growth: what doubles from stage to stage in resnet_igc_imgnet_d18, "L" or "M"; by
              default as published, "L" for M = 2 and "M" otherwise.

    Raises:
        ConfigError: there is no such network or setting, or a value that the network cannot have.
    """
    family = NETWORKS[net]
    complete = family.complete(settings)
    num_classes = complete["num_classes"]
    if num_classes < 1:
        raise ConfigError(f"{net}: num_classes must be at least 1, not {num_classes}")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"{net}: dtype must be float32 or float64, not {dtype}")
    layers = family.build(**complete, rng=np.random.default_rng(seed), dtype=dtype)
    if isinstance(layers, Layer):
        layers = {"": layers}
    settings = {"net": net, **complete}
    return Network(layers, settings, family.build.__module__, family.image_size)
