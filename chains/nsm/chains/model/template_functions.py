"""The functions of label templates, as defined by Go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MOST_OUTPUT = 4_096
"""The longest output of a template, and of each value in it, in characters: longer than any label."""

Value = str | bool | int | Mapping[str, str] | None
"""None stands for a missing label."""


class TemplateError(Exception):
    """The template does not compile, or cannot be rendered with these labels."""


def truth(value: Value) -> bool:
    """Whether ``{{if}}`` treats it as true: neither missing, empty, 0 nor false."""
    return bool(value)


def bounded(text: str) -> str:
    """The text. Raises `TemplateError` if it is too long."""
    if len(text) > MOST_OUTPUT:
        raise TemplateError("a value is too long")
    return text


def shown(value: Value) -> str:
    """The value as text. Raises `TemplateError` if labels are too long together."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        if sum(len(key) + len(text) for key, text in value.items()) > MOST_OUTPUT:
            raise TemplateError("all labels together are too long")
        return f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]"
    return "<nil>" if value is None else str(value)


_PLAIN_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-3][0-7]{2})|x(?P<hex>[0-9A-Fa-f]{2})|u(?P<rune>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})|(?P<plain>.))"
)


def unquoted(literal: str) -> str:
    """The value of a string literal."""
    if literal.startswith("`"):
        return literal[1:-1].replace("\r", "")
    return _ESCAPE.sub(_unescaped, literal[1:-1]).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _unescaped(escape: re.Match[str]) -> str:
    if escape["plain"]:
        if escape["plain"] not in _PLAIN_ESCAPES:
            raise TemplateError(f"{escape[0]} is not an escape")
        return _PLAIN_ESCAPES[escape["plain"]]
    if (rune := escape["rune"] or escape["long"]) is not None:
        number = int(rune, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise TemplateError(f"{escape[0]} is not a character")
        return chr(number)
    byte = int(escape["octal"], 8) if escape["octal"] else int(escape["hex"], 16)
    return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)


def _kind(value: Value) -> str:
    if isinstance(value, Mapping):
        return "map[string]string"
    return {str: "string", bool: "bool", int: "int"}.get(type(value), "")


def _eq(first: Value, *others: Value) -> bool:
    if not others:
        raise TemplateError("nothing to compare with")
    for other in others:
        if first is None or other is None:
            if first is other:
                return True
        elif _kind(first) != _kind(other) or isinstance(first, Mapping):
            raise TemplateError("values of these types cannot be compared")
        elif first == other:
            return True
    return False


def _ne(first: Value, second: Value) -> bool:
    return not _eq(first, second)


def _lt(first: Value, second: Value) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if _kind(first) == _kind(second) == "int":
        return int(first) < int(second)  # type: ignore[arg-type]  # both are int
    raise TemplateError("values of these types have no order")


def _le(first: Value, second: Value) -> bool:
    return _lt(first, second) or _eq(first, second)


def _gt(first: Value, second: Value) -> bool:
    return not _le(first, second)


def _ge(first: Value, second: Value) -> bool:
    return not _lt(first, second)


def _not(value: Value) -> bool:
    return not truth(value)


def _len(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, Mapping):
        return len(value)
    raise TemplateError("only text and labels have a length")


def _index(item: Value, *keys: Value) -> Value:
    if item is None:
        raise TemplateError("there is nothing to index")
    for key in keys:
        if not isinstance(item, Mapping) or not isinstance(key, str):
            raise TemplateError("only labels have an index, which is text")
        item = item.get(key, "")
    return item


def _print(*values: Value) -> str:
    """The values, with a space between neighbours of which neither is text."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += shown(value)
    return text


def _println(*values: Value) -> str:
    return " ".join(map(shown, values)) + "\n"


_SHOWN_AS = {"s": {"string", "map[string]string"}, "d": {"int"}}
_VERB = re.compile(r"%(.?)", re.DOTALL)


def _printf(form: Value, *values: Value) -> str:
    """``%s``, ``%v``, ``%d`` and ``%%``; other verbs are not supported."""
    if not isinstance(form, str):
        raise TemplateError("a format is text")
    left = list(values)

    def filled(match: re.Match[str]) -> str:
        verb = match[1]
        if verb == "%":
            return "%"
        if verb not in {"s", "v", "d"}:
            raise TemplateError(f"%{verb} is not supported")
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        if verb == "v" or _kind(value) in _SHOWN_AS[verb]:
            return shown(value)
        if isinstance(value, Mapping):
            raise TemplateError("numbers of labels are not supported")
        return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({_kind(value)}={shown(value)})"

    text = _VERB.sub(filled, form)
    extra = ", ".join("<nil>" if value is None else f"{_kind(value)}={shown(value)}" for value in left)
    return f"{text}%!(EXTRA {extra})" if left else text


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "eq": _eq,
    "ne": _ne,
    "lt": _lt,
    "le": _le,
    "gt": _gt,
    "ge": _ge,
    "not": _not,
    "len": _len,
    "index": _index,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "and": lambda *values: None,
    "or": lambda *values: None,
}
LAZY = {"and": False, "or": True}
"""The truth value at which evaluation stops; later arguments are not rendered."""
