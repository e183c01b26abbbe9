"""The text of a policy file."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import PurePath

MOST_BYTES = 256 << 10
_PACKAGE = re.compile(r"^package[ \t]+([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)[ \t\r]*(?:#.*)?$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:default[ \t]+)?valid\b", re.MULTILINE)
_OWN_NAME = re.compile(r"\binput\.resource_path_ids_map\[input\.resource_name\]")
_INPUT_AS_A_WHOLE = re.compile(r"\binput\b(?!\.[A-Za-z_])")


@dataclass(frozen=True, eq=False)
class Source:
    """A policy's text, as read once. Instances are compared by identity."""

    path: str
    text: str
    package: str

    @property
    def title(self) -> str:
        """Its name in refusals: the policy's name, and the file."""
        return f"{PurePath(self.path).stem} ({self.path})"

    @property
    def wants_all_names(self) -> bool:
        """Whether it reads entries of `input.resource_path_ids_map` other than the resource's own."""
        rest = _OWN_NAME.sub("", self.text)
        return "resource_path_ids_map" in rest or _INPUT_AS_A_WHOLE.search(rest) is not None


def read_source(path: str) -> Source:
    """Read the file. Raises ValueError that begins with its path: missing, too long, not text, no package or rule."""
    text = _text(path)
    package = _PACKAGE.search(text)
    if package is None:
        raise ValueError(f"{path}:1: it has no package; expected a line such as `package nsm`")
    if _RULE.search(text) is None:
        raise ValueError(f"{path}:1: it has no rule `valid`, which says whether a call is allowed")
    return Source(path, text, package[1])


def _text(path: str) -> str:
    try:
        content = _content(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is longer than {MOST_BYTES >> 10} KiB")
    if b"\0" in content:
        raise ValueError(f"{path}:{_line(content, content.index(0))}: a NUL is not text")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{_line(content, error.start)}: it is not UTF-8") from None


def _content(path: str) -> bytes:
    descriptor = os.open(
        path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    )  # opening a FIFO must not block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)


def _line(content: bytes, offset: int) -> int:
    return content[:offset].count(b"\n") + 1
