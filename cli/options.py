"""Options made from the table of settings, in groups, and help texts that fit the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from igcnn.kinds import FOLDER, PATH, SWITCH, TEXTS
from igcnn.settings import RUN, SETTINGS, Setting, any_of
from igcnn.text import NO_BREAK

Command = Callable[..., Any]

BRACKETS = r"\[[^]]*\]"  # such as [default: 6]
FIRST_COLUMN = 24  # of names and metavars; longer ones stand on a line of their own


class Value(click.ParamType):
    """Text as it was typed, with what a shell completes it to.

    Args:
        names: returns the names that it can be.
        path: "file" or "dir" for a path of this kind.
    """

    name = "text"

    def __init__(self, names: Callable[[], Sequence[str]] = tuple, path: str = "") -> None:
        self.names = names
        self.path = path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so, whatever their case, or ask the shell for paths."""
        if self.path:
            return [CompletionItem(incomplete, type=self.path)]
        start = incomplete.lower()
        return [CompletionItem(name) for name in self.names() if name.lower().startswith(start)]


FILE = Value(path="file")
DIRECTORY = Value(path="dir")


class GroupedOption(click.Option):
    """An option with the heading under which a GroupedCommand shows it."""

    def __init__(self, *arguments: Any, group: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = group

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return names and help, without what click adds to it."""
        record = super().get_help_record(ctx)
        return record and (record[0], self.help or "")


def _none_for_nothing(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return the value of an option, None where one that can be repeated was not given."""
    return None if value == () else value


class SettingOption(GroupedOption):
    """The option of a setting.

    Args:
        setting: from the table.
        raw: let the value stay text, and None where it is not given.
        shown: words for another default than the setting's, which the command finds for None.
    """

    def __init__(
        self, *arguments: Any, setting: Setting, raw: bool, shown: str | None, **options: Any
    ) -> None:
        switch = setting.kind is SWITCH
        path = {FOLDER: "dir", PATH: "file"}.get(setting.kind, "")
        super().__init__(
            *arguments,
            group=setting.group,
            is_flag=switch,
            multiple=setting.kind is TEXTS,
            default=None if raw or shown else setting.default,
            type=None if switch else Value(lambda: setting.names() or setting.examples, path),
            callback=_none_for_nothing if raw else self._converted,
            help=setting.help,
            **options,
        )
        self.setting = setting
        self.shown = shown

    def _converted(self, ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        return None if value is None else self.setting.convert(value, self.setting.flag)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return flag and value, help with choices and default."""
        setting, text = self.setting, self.help or ""
        names = setting.names()
        value = setting.metavar or "|".join(names) or setting.kind.metavar
        if names and setting.metavar:
            text = f"{text.removesuffix('.')}: {any_of(names)}."
        if default := self.shown or setting.default_text():
            text += f" [default: {default}]"
        return f"{setting.flag} {value}".rstrip(), text


class GroupedCommand(click.Command):
    """A command whose help shows options by group, with all help texts in one column."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is None or not isinstance(option, click.Option):
                continue
            name, text = record
            row = f"{name:{FIRST_COLUMN}}", re.sub(BRACKETS, _unbroken, text)
            if isinstance(option, GroupedOption):
                groups.setdefault(option.group, []).append(row)
            else:
                others.append(row)
        for group, rows in [*groups.items(), ("Options", others)]:
            with formatter.section(group):
                # names of a common width make one column of the groups
                formatter.write_dl(rows, col_max=FIRST_COLUMN)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help text; a default is never broken."""
        return super().get_help(ctx).replace(NO_BREAK, " ")


def _unbroken(match: re.Match[str]) -> str:
    return match[0].replace(" ", NO_BREAK)


def grouped_option(*names: str, group: str, **options: Any) -> Callable[[Command], Command]:
    """Return a decorator that adds an option that is not a setting to a command."""
    return click.option(*names, cls=GroupedOption, group=group, **options)


def setting_options(*names: str, raw: bool = False, **shown: str) -> Callable[[Command], Command]:
    """Return what adds the options of settings to a command.

    Args:
        names: of settings; all by default.
        raw: see SettingOption.
        shown: name → words for another default.
    """

    def add(command: Command) -> Command:
        for name in reversed(names or tuple(SETTINGS)):
            setting = SETTINGS[name]
            command = click.option(
                setting.flag,
                name,
                cls=SettingOption,
                setting=setting,
                raw=raw,
                shown=shown.get(name),
            )(command)
        return command

    return add


def layer_options(command: Command) -> Command:
    """Add --config and --set, which give any setting, to a command."""
    for option in (
        grouped_option(
            "--set",
            "assignments",
            group=RUN,
            metavar="KEY=VALUE",
            multiple=True,
            help="Any setting; takes precedence.",
        ),
        grouped_option(
            "--config",
            group=RUN,
            type=FILE,
            metavar="FILE",
            help="TOML file of settings, such as a run's config.toml.",
        ),
    ):
        command = option(command)
    return command


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Return the options of a command line that give raw values of setting_options.

    Args:
        values: name → text, texts, True for a switch, or None for what is not given.
    """
    arguments = []
    for name, value in values.items():
        flag = SETTINGS[name].flag
        if value is True:
            arguments.append(flag)
        elif value is not None:
            texts = [value] if isinstance(value, str) else value
            arguments += [f"{flag}={text}" for text in texts]
    return arguments
