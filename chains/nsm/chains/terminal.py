"""Makes text from elsewhere safe to print on a terminal: names, labels, errors of peers, output of workloads.

A terminal obeys control characters, and reorders or hides text around bidirectional and format characters: a chosen
name could rewrite what an operator reads. Everything that is printed about a mesh passes through here.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

_NARROWEST = 60


def escaped(text: str) -> str:
    r"""`text` on one line, each character that is not plainly visible as its code: ``\x1b``, ``\u202e``, ``\n``."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _number(each) for each in text)


def escaped_lines(text: str) -> str:
    """Like `escaped`, but line breaks stay: for tables and tracebacks."""
    return text if text.isprintable() else "\n".join(map(escaped, text.split("\n")))


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a table of names and their meanings; meanings are wrapped to the terminal's width."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    first = 2 + max(len(name) for name, _ in rows) + 2
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, width - first - 1, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"  {name:<{first - 2}}{wrapped[0]}".rstrip(), *(f"{'':<{first}}{line}" for line in wrapped[1:])]
    return lines


def _number(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
