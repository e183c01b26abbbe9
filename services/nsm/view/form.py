"""JSON of frozen dataclasses, both ways, and its JSON Schema: one codec, derived from the types of the fields.

Fields may be text, numbers, flags, times, enumerations of text, dataclasses, sequences of these, and maps by text; each
but the sequences and maps may be null. Reading is strict: an unknown or missing field, or a value of another type,
raises ValueError with the path of the field. Null and what is empty are left out of the JSON if they are the default.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from nsm.chains.reading.fields import Field

T = TypeVar("T")

_Write = Callable[[Any], Any]
_Read = Callable[[Field], Any]
_LARGEST = 2**63 - 1


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as plain values for `json.dumps`."""
    kind: Any = type(value)
    written: dict[str, Any] = _writer(kind)(value)
    return written


def from_json(kind: type[T], value: Any) -> T:
    """A dataclass of `kind` from plain values. Raises ValueError, which names the field."""
    one: Any = kind
    read: T = _reader(one)(Field(value, ""))
    return read


def schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `kind`, which refers to others as ``#/components/schemas/NAME``."""
    hints, required = typing.get_type_hints(kind), []
    properties = {}
    for each in dataclasses.fields(kind):
        properties[each.name] = _schema_of(hints[each.name])
        if _has_no_default(each):
            required.append(each.name)
    about = (kind.__doc__ or "").strip().partition("\n")[0]
    found = {"type": "object", "description": about, "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def kinds(kind: type[Any]) -> list[type[Any]]:
    """`kind` and all dataclasses that its fields hold, each once."""
    found: dict[type[Any], None] = {}
    pending = [kind]
    while pending:
        one = pending.pop()
        if one not in found:
            found[one] = None
            hints = typing.get_type_hints(one)
            for each in dataclasses.fields(one):
                pending += [inner for inner in _parts(hints[each.name]) if _is_nested(inner)]
    return [*found]


def time_text(at: datetime) -> str:
    """A time as RFC 3339, with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> datetime:
    """A time from RFC 3339, in UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; expected a time such as 2026-01-31T08:00:00.000Z")
    return at.astimezone(UTC)


def _parts(hint: Any) -> list[Any]:
    inner = typing.get_args(hint)
    return [each for one in inner for each in _parts(one)] if inner else [hint]


def _is_nested(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _has_no_default(each: dataclasses.Field[Any]) -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


def _without_null(hint: Any) -> tuple[Any, bool]:
    """The type without ``None``, and whether it had it."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (one,) = [each for each in typing.get_args(hint) if each is not type(None)]
        return one, True
    return hint, False


def _same(value: Any) -> Any:
    return value


@cache
def _writer(kind: Any) -> _Write:
    """What turns a dataclass into JSON."""
    hints, rows = typing.get_type_hints(kind), []
    for each in dataclasses.fields(kind):
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        may_be_left_out = default in (None, "", ()) or default == {}
        rows.append((each.name, may_be_left_out, _write_of(hints[each.name])))

    def write(value: Any) -> dict[str, Any]:
        written = {}
        for name, may_be_left_out, convert in rows:
            held = getattr(value, name)
            if held or not may_be_left_out or held == 0:
                written[name] = convert(held) if held is not None else None
        return written

    return write


def _write_of(hint: Any) -> _Write:
    kind, _ = _without_null(hint)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence:
        write = _write_of(inner[0])
        return list if write is _same else lambda value: [write(each) for each in value]
    if origin is Mapping:
        write_value = _write_of(inner[1])
        return lambda value: {key: write_value(each) for key, each in value.items()}
    if kind is datetime:
        return time_text
    if _is_nested(kind):
        return _writer(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return str
    return _same


@cache
def _reader(kind: Any) -> _Read:
    """What turns JSON into a dataclass."""
    hints = typing.get_type_hints(kind)
    members = dataclasses.fields(kind)
    known, reads = [each.name for each in members], {each.name: _read_of(hints[each.name]) for each in members}
    required = [each.name for each in members if _has_no_default(each)]

    def read(field: Field) -> Any:
        if not isinstance(field.value, dict):
            raise field.fault("an object")
        found = field.fields(known, f"a {kind.__name__}", is_root=not field.path)
        for name in required:
            if name not in found:
                raise ValueError(f"{found[name].path} is missing; {kind.__name__} needs it")
        return kind(**{name: reads[name](found[name]) for name in known if name in found})

    return read


def _read_of(hint: Any) -> _Read:
    kind, may_be_null = _without_null(hint)
    read = _read_present(kind)
    return (lambda field: read(field) if field else None) if may_be_null else read


def _read_present(kind: Any) -> _Read:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence:
        read = _read_of(inner[0])
        return lambda field: tuple(read(each) for each in _listed(field))
    if origin is Mapping:
        read_value = _read_of(inner[1])
        return lambda field: {key: read_value(each) for key, each in _mapped(field)}
    if _is_nested(kind):
        return _reader(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda field: _chosen(kind, field)
    return _PLAIN[kind]


def _listed(field: Field) -> Sequence[Field]:
    if not isinstance(field.value, list):
        raise field.fault("a list")
    return field.each()


def _mapped(field: Field) -> Sequence[tuple[str, Field]]:
    if not isinstance(field.value, dict):
        raise field.fault("an object")
    return [*field.items()]


def _chosen(kind: type[StrEnum], field: Field) -> StrEnum:
    try:
        return kind(field.value)
    except ValueError:
        raise field.fault(" or ".join(kind)) from None


def _whole(field: Field) -> int:
    if not field:
        raise field.fault("a whole number")
    return field.whole(-_LARGEST, _LARGEST)


def _number(field: Field) -> float:
    if not isinstance(field.value, int | float) or isinstance(field.value, bool):
        raise field.fault("a number")
    return float(field.value)


def _flag(field: Field) -> bool:
    if not field:
        raise field.fault("true or false")
    return field.flag()


def _time(field: Field) -> datetime:
    try:
        return read_time(field.must_be_text())
    except ValueError:
        raise field.fault("a time such as 2026-01-31T08:00:00.000Z") from None


_PLAIN: dict[Any, _Read] = {
    str: Field.must_be_text,
    int: _whole,
    float: _number,
    bool: _flag,
    datetime: _time,
}

_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}


def _schema_of(hint: Any) -> dict[str, Any]:
    kind, may_be_null = _without_null(hint)
    found = _schema_present(kind)
    return {"anyOf": [found, {"type": "null"}]} if may_be_null else found


def _schema_present(kind: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema_of(inner[1])}
    if _is_nested(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    if issubclass(kind, StrEnum):
        return {"type": "string", "enum": [*kind]}
    return _SCHEMAS[kind]
