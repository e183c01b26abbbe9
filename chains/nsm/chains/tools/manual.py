"""What every `nsm` command is called with, read from its own parser: completion and man pages are made from it."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn
from unittest import mock

_GROUP = "nsm.commands"


@dataclass(frozen=True)
class Option:
    """An option, or an argument if it has no names."""

    names: Sequence[str]
    about: str = ""
    value: str = ""
    """What its value is called; empty if it has none."""
    choices: Sequence[str] = ()
    group: str = ""


@dataclass(frozen=True)
class Manual:
    """A command: what it does, its options, and its own commands by name."""

    name: str
    about: str = ""
    """All that it says about itself: paragraphs, or the whole help of a command without options."""
    usage: str = ""
    epilog: str = ""
    options: Sequence[Option] = ()
    commands: Mapping[str, Manual] = field(default_factory=dict)
    is_component: bool = False
    """Whether it is configured by variables, which `about` lists."""

    @property
    def summary(self) -> str:
        """The first sentence, on one line."""
        first = self.about.strip().partition("\n\n")[0]
        return " ".join(first.split()) if not self.is_component else first.partition("\n")[0]


class _FoundError(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def manuals() -> dict[str, Manual]:
    """Those of all commands that are installed, by name; a command whose extras are missing is left out."""
    found = {}
    for point in sorted(entry_points(group=_GROUP), key=lambda each: each.name):
        with contextlib.suppress(ModuleNotFoundError):
            found[point.name] = _manual(point)
    return found


def _manual(point: EntryPoint) -> Manual:
    """Calls the command for its help, and reads its parser where it would parse."""

    def stop(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _FoundError(self)

    command, told = point.load(), io.StringIO()
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop), contextlib.redirect_stdout(told):
        try:
            command(["--help"])
        except _FoundError as found:
            return read(found.parser, found.parser.prog)
        except SystemExit:
            pass
    return Manual(f"nsm {point.name}", told.getvalue(), is_component=True)


def read(parser: argparse.ArgumentParser, name: str, about: str = "") -> Manual:
    """The manual that a parser is."""
    commands: dict[str, Manual] = {}
    options = []
    for group in parser._action_groups:  # argparse offers no public access
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                helps = {each.dest: each.help or "" for each in action._choices_actions}
                commands |= {
                    each: read(child, f"{name} {each}", helps.get(each, "")) for each, child in action.choices.items()
                }
            elif action.help != argparse.SUPPRESS:
                options.append(_option(action, group.title or ""))
    text = parser.description or about
    return Manual(name, text, _usage(parser), parser.epilog or "", options, commands)


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _option(action: argparse.Action, group: str) -> Option:
    choices = [str(each) for each in action.choices] if action.choices is not None else []
    value = ""
    if action.nargs != 0:
        named = action.metavar if isinstance(action.metavar, str) else ""
        value = named or (",".join(choices) if choices else action.dest.upper())
    about = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return Option(action.option_strings, about, value, choices, group)


def paths(known: Mapping[str, Manual]) -> Iterator[Manual]:
    """Those commands, and all below them."""
    for each in known.values():
        yield each
        yield from paths(each.commands)
