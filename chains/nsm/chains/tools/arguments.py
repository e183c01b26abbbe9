"""Parsing of command-line arguments, with suggestions for misspelt ones."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from typing import NoReturn

from nsm.chains.reading import nearest

_CHOICE = re.compile(r"invalid choice: '(?P<word>.*)' \(choose from (?P<choices>.*)\)$")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<word>--?[a-zA-Z-]+)")
_LONGEST = 64


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors suggest the nearest command or option."""

    def error(self, message: str) -> NoReturn:
        """Print usage and `message` to standard error, and exit with 2."""
        super().error(f"{message}{self._hint(message)}")

    def _hint(self, message: str) -> str:
        if (choice := _CHOICE.search(message)) is not None:
            near = nearest(choice["word"][:_LONGEST], re.findall(r"'([^']*)'", choice["choices"]))
        elif (unknown := _UNKNOWN.search(message)) is not None:
            near = nearest(unknown["word"][:_LONGEST], set(_options(self)))
        else:
            near = None
        return "" if near is None else f"; did you mean {near}?"


def seconds(text: str) -> float:
    """A number of seconds, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; expected one such as 30 or 0.5")
    return value


def count(least: int) -> Callable[[str], int]:
    """A parser for whole numbers that are at least `least`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; expected {least} or more")
        return int(text)

    return read


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its commands."""
    for action in parser._actions:  # argparse offers no public access
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)
