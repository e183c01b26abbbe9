"""What a terminal is shown of texts that come from elsewhere: names, labels, errors of peers, output of workloads.

A terminal obeys control characters and reorders or hides text around bidirectional and format characters; whoever chose
a name could rewrite what an operator reads. All that is printed of a mesh goes through here.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

_NARROWEST = 60


def escaped(text: str) -> str:
    r"""`text` in one line, with each character that is not simply seen as its number: ``\x1b``, ``\u202e``, ``\n``."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _number(each) for each in text)


def escaped_lines(text: str) -> str:
    """`text` likewise, but for its own line breaks: for tables and tracebacks."""
    return text if text.isprintable() else "\n".join(map(escaped, text.split("\n")))


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a table of names and what they mean, which is wrapped beside the names to the terminal's width."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    first = 2 + max(len(name) for name, _ in rows) + 2
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, width - first - 1, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"  {name:<{first - 2}}{wrapped[0]}".rstrip(), *(f"{'':<{first}}{line}" for line in wrapped[1:])]
    return lines


def _number(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
