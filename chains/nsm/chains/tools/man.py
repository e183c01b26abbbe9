"""Man pages, made from the help of the commands: `python -m nsm.chains.tools.man FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from .manual import Manual, Option, manuals


def write(folder: Path, known: Mapping[str, Manual]) -> list[Path]:
    """Write `nsm.1` and a page for each command into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    top = Manual("nsm", "Network Service Mesh.", "nsm COMMAND ...", commands=known)
    found = []
    for manual in (top, *known.values()):
        path = folder / f"{manual.name.replace(' ', '-')}.1"
        path.write_text("".join(f"{line}\n" for line in page(manual)), encoding="utf-8")
        found.append(path)
    return found


def page(manual: Manual) -> Iterator[str]:
    """The lines of a page, for groff's macros `man`."""
    name = manual.name.replace(" ", "-")
    yield f'.TH "{name.upper()}" "1" "" "nsm {version("nsm-chains")}" "Network Service Mesh"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(manual.summary)}"
    if manual.is_component:
        yield ".SH CONFIGURATION"
        yield from (".nf", *(_line(each) for each in manual.about.rstrip().split("\n")), ".fi")
        return
    yield ".SH SYNOPSIS"
    yield _line(manual.usage or manual.name)
    yield ".SH DESCRIPTION"
    for paragraph in manual.about.strip().split("\n\n"):
        yield ".PP"
        yield _line(" ".join(paragraph.split()))
    yield from _options(manual.options, ".SH")
    if manual.commands:
        yield ".SH COMMANDS"
    for command in manual.commands.values():
        yield f'.SS "{_text(command.name)}"'
        yield _line(command.summary)
        if manual.name == "nsm":
            continue
        yield ".PP"
        yield _line(command.usage)
        yield from _items(command.options)
    if manual.epilog:
        yield ".SH NOTES"
        yield _line(manual.epilog)


def _options(options: Sequence[Option], macro: str) -> Iterator[str]:
    for group, found in groupby(options, key=lambda each: each.group):
        yield f'{macro} "{_text("ARGUMENTS" if group.startswith("positional") else group.upper())}"'
        yield from _items([*found])


def _items(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        value = f" \\fI{_text(option.value)}\\fR" if option.value else ""
        names = ", ".join(f"\\fB{_text(name)}\\fR{value}" for name in option.names)
        yield ".TP"
        yield names or value.strip()
        yield _line(option.about)


def _text(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _line(text: str) -> str:
    """A line of text, that is no macro."""
    told = _text(text)
    return f"\\&{told}" if told[:1] in {".", "'"} else told


if __name__ == "__main__":
    for written in write(Path(sys.argv[1]), manuals()):
        print(written)
