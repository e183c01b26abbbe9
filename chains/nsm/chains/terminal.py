"""What a terminal is shown of texts that come from elsewhere: names, labels, errors of peers, output of workloads.

A terminal obeys control characters and reorders or hides text around bidirectional and format characters; whoever chose
a name could rewrite what an operator reads. All that is printed of a mesh goes through here.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    r"""`text` in one line, with each character that is not simply seen as its number: ``\x1b``, ``\u202e``, ``\n``."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _number(each) for each in text)


def escaped_lines(text: str) -> str:
    """`text` likewise, but for its own line breaks: for tables and tracebacks."""
    return text if text.isprintable() else "\n".join(map(escaped, text.split("\n")))


def _number(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
