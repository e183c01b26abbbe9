"""Label templates: the part of Go's text/template that selectors use.

Literal text with actions ``{{.key}}``, ``{{index . "key"}}`` and ``{{"text"}}``, with trimming (``{{-``, ``-}}``) and
comments. What is not of this kind does not compile; selectors then compare it as it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

NO_VALUE = "<no value>"
"""What a field that is missing renders as."""

Template = Callable[[Mapping[str, str]], str]

_ACTION = re.compile(r"\{\{(?P<left>- )?(?P<body>.*?)(?P<right> -)?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.(?P<key>[A-Za-z_]\w*)")
_STRING = r"\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`"
_INDEX = re.compile(rf"index\s+\.\s+(?P<key>{_STRING})")
_LITERAL = re.compile(_STRING)
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_template(text: str) -> Template | None:
    """The template, compiled once; None if it has no action or is not of this kind."""
    if "{{" not in text:
        return None
    parts: list[str | Template] = []
    end, trim_next = 0, False
    for match in _ACTION.finditer(text):
        parts.append(_trimmed(text[end : match.start()], trim_next, match["left"] is not None))
        action = _action(match["body"].strip())
        if action is None:
            return None
        parts.append(action)
        end, trim_next = match.end(), match["right"] is not None
    rest = text[end:]
    if "{{" in rest:
        return None
    parts.append(_trimmed(rest, trim_next, False))
    return lambda values: "".join(part if isinstance(part, str) else part(values) for part in parts)


def _trimmed(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _action(body: str) -> Template | None:
    if field := _FIELD.fullmatch(body):
        key = field["key"]
        return lambda values: values.get(key, NO_VALUE)
    if index := _INDEX.fullmatch(body):
        wanted = _unquoted(index["key"])
        return lambda values: values.get(wanted, "")
    if _LITERAL.fullmatch(body):
        text = _unquoted(body)
        return lambda values: text
    if _COMMENT.fullmatch(body):
        return lambda values: ""
    return None


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]
