"""Which policy files a mask means."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice

_MOST_ENTRIES = 10_000
_EXPRESSION = re.compile(r"[\\^$*+?()\[\]{}|]")
OWN_FOLDER = "etc/nsm/opa/"
"""Where NSM's policies are by name: looked for in the root folder too, wherever the component runs."""


def found_files(mask: str) -> dict[str, str]:
    """The files that `mask` means, itself or what it fits as a regular expression: absolute paths, by name.

    The name of one below `OWN_FOLDER` is as that of a native policy, that of any other is its path. Files are looked
    for below the folder that the mask begins with, as far as there is no expression in it. What is relative is
    relative to the working directory. Raises re.error, and ValueError for a mask that looks through too much, or a
    file that somebody else may have put there.
    """
    bases = ["/"] if os.path.isabs(mask) else [os.getcwd()]
    rest = mask.lstrip("/").removeprefix("./")
    if rest.startswith(OWN_FOLDER) and bases != ["/"]:
        bases.append("/")
    for base in bases:
        path = os.path.join(base, rest)
        if os.path.lexists(path) and not os.path.isdir(path):
            return {_name(base, rest): path}
    if not _EXPRESSION.search(rest):
        return {}  # the path of a file that is not there, and no mask
    found: dict[str, str] = {}
    for base in bases:
        for path in _fitting(base, rest):
            found.setdefault(_name(base, os.path.relpath(path, base)), path)
    return found


def _name(base: str, path: str) -> str:
    if not path.startswith(OWN_FOLDER):
        return os.path.join(base, path)
    if base != "/":
        _check_place(base, path)
    return path


def _check_place(base: str, path: str) -> None:
    """Who may write where a component was started makes no policies for it: neither the file, nor a folder of it."""
    parts = path.split("/")
    for length in range(len(parts) + 1):
        place = os.path.join(base, *parts[:length])
        found = os.lstat(place)
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX and not stat.S_ISLNK(found.st_mode)
        if found.st_uid not in (0, os.geteuid()) or is_open:
            whose = "everybody may write to it" if is_open else f"it belongs to uid {found.st_uid}"
            raise ValueError(f"policies below {base} are not safe, {place}: {whose}; take them away or start elsewhere")


def _fitting(base: str, mask: str) -> Iterator[str]:
    expression, folder = re.compile(mask), os.path.join(base, _fixed_folder(mask))
    seen = list(islice(_below(folder), _MOST_ENTRIES))
    if len(seen) == _MOST_ENTRIES:
        raise ValueError(f"policy {mask!r} has {_MOST_ENTRIES} files to look at in {folder}; name a folder of them")
    return (path for path in seen if expression.fullmatch(os.path.relpath(path, base)))


def _below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".."))  # versions that a ConfigMap keeps
        yield from (os.path.join(place, name) for name in sorted(names))


def _fixed_folder(mask: str) -> str:
    """What a mask begins with, up to the first part with an expression in it."""
    parts = mask.split("/")[:-1]
    fixed = next((number for number, part in enumerate(parts) if _EXPRESSION.search(part)), len(parts))
    return "/".join(parts[:fixed])
