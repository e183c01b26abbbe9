"""Finds the policy files that a mask selects."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice

_MOST_ENTRIES = 10_000
_EXPRESSION = re.compile(r"[\\^$*+?()\[\]{}|]")
OWN_FOLDER = "etc/nsm/opa/"
"""The folder of NSM's named policies: searched below the root folder too, whatever the working directory."""


def found_files(mask: str) -> dict[str, str]:
    """The files that `mask` selects, as a path or as a regular expression: absolute paths, by name.

    A file below `OWN_FOLDER` is named like a native policy, any other by its path. Files are searched below the folder
    that the mask begins with, up to the first part with an expression. Relative masks are relative to the working
    directory. Raises re.error, and ValueError for a mask that searches too many files, or for a file that another
    user may have put there.
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
        return {}  # the path of a missing file, not a mask
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
    """Refuse files that other users can write: whoever may write to the working directory must not set policies."""
    parts = path.split("/")
    for length in range(len(parts) + 1):
        place = os.path.join(base, *parts[:length])
        found = os.lstat(place)
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX and not stat.S_ISLNK(found.st_mode)
        if found.st_uid not in (0, os.geteuid()) or is_open:
            whose = "all users may write to it" if is_open else f"it belongs to uid {found.st_uid}"
            raise ValueError(f"policies below {base} are not safe, {place}: {whose}; remove them or start elsewhere")


def _fitting(base: str, mask: str) -> Iterator[str]:
    expression, folder = re.compile(mask), os.path.join(base, _fixed_folder(mask))
    seen = list(islice(_below(folder), _MOST_ENTRIES))
    if len(seen) == _MOST_ENTRIES:
        raise ValueError(f"policy {mask!r} has {_MOST_ENTRIES} files to search in {folder}; name a subfolder")
    return (path for path in seen if expression.fullmatch(os.path.relpath(path, base)))


def _below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".."))  # versions of a mounted ConfigMap
        yield from (os.path.join(place, name) for name in sorted(names))


def _fixed_folder(mask: str) -> str:
    """The beginning of a mask, up to the first part with an expression."""
    parts = mask.split("/")[:-1]
    fixed = next((number for number, part in enumerate(parts) if _EXPRESSION.search(part)), len(parts))
    return "/".join(parts[:fixed])
