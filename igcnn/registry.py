"""Networks and data sets by name: registered in Python, or offered by installed packages.

A package offers one by an entry point, the name and the module that registers it:

    [project.entry-points."igcnn.networks"]
    my_net = "my_package.nets"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from .errors import ConfigError

Item = TypeVar("Item")


class Registry(Collection[str], Generic[Item]):
    """Items by name. Modules are imported only when one of their names is looked up.

    As a collection it holds all names: the built-in ones, those registered, those of entry points.

    Args:
        kind: what the items are called in messages: "network".
        group: name of the entry points of installed packages that offer more.
        built_in: name → module that registers it when it is imported.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._modules = dict(built_in)
        self._items: dict[str, Item] = {}

    def add(self, name: str, item: Item, module: str) -> None:
        """Register an item under a name; the same module may replace it, as notebooks do.

        Raises:
            ConfigError: another module has registered the name, or it does not suit as the name
                of a folder.
        """
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(
                f"{name!r} cannot be the name of a {self.kind}: use letters, digits, _ and -"
            )
        owner = self._modules.setdefault(name, module)
        if owner != module:
            raise ConfigError(
                f"{module} registers the {self.kind} {name}, which {owner} has registered; choose "
                "another name"
            )
        self._items[name] = item

    def __iter__(self) -> Iterator[str]:
        offered = (point.name for point in entry_points(group=self.group))
        return iter(dict.fromkeys((*self._modules, *offered)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def __getitem__(self, name: str) -> Item:
        """Return what is registered under a name.

        Raises:
            ConfigError: there is no such name, or its package cannot be imported.
        """
        if name not in self._items:
            if name in self._modules:
                import_module(self._modules[name])
            else:
                self._import_offered(name)
        return self._items[name]

    def _import_offered(self, name: str) -> None:
        points = list(entry_points(group=self.group, name=name))
        if not points:
            near = difflib.get_close_matches(name, list(iter(self)), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"unknown {self.kind} {name!r}: {hint}choose one of {', '.join(self)}"
            )
        packages = [point.dist.name if point.dist else point.value for point in points]
        if len(points) > 1:
            raise ConfigError(
                f"several packages offer a {self.kind} {name}: {', '.join(packages)}; uninstall "
                "all but one"
            )
        try:
            points[0].load()
        except Exception as error:  # whatever the code of others raises
            raise ConfigError(
                f"cannot import the {self.kind} {name} of the package {packages[0]}: "
                f"{type(error).__name__}: {error}; repair or uninstall {packages[0]}"
            ) from error
        if name not in self._items:
            raise ConfigError(
                f"{points[0].value} of the package {packages[0]} does not register the "
                f"{self.kind} {name}, although its entry point says so; repair {packages[0]}"
            )
