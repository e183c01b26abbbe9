"""Writes, reads and copies messages with straight-line code that is compiled once per message type.

betterproto2 interprets a message's field table each time; here the table is compiled to three plain Python functions at
the first use of a type. Messages remain dataclasses, and the encoding is that of protobuf:
fields by number, unknown fields kept and written at the end.

The work is linear in the number of bytes: repeated parts (unknown fields, the parts of a
message field that is to be merged) is collected and put together once. Bytes differ in what they cost: an empty message
inside another takes two, and an object. So the number of parts of a message is limited in proportion to its length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import betterproto2
from betterproto2 import FieldMetadata, Message
from grpclib.encoding.base import CodecBase

M = TypeVar("M", bound=Message)

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes, int, int, list[int]], Any]
"""Reads the bytes between two positions; the last argument holds the number of parts that are still allowed."""
Clone = Callable[[Any], Any]

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_SCALARS = {"int32", "int64", "uint32", "uint64", "bool", "enum"}
_GROUP_DEPTH = 100
_PARTS, _BYTES_PER_PART = 1024, 16
"""The parts that any message may have, plus one per so many bytes: messages in lists and maps, unknown fields."""


class DecodeError(ValueError):
    """The bytes are not a message of this type: truncated, a broken varint, not UTF-8, or too many parts."""


class EncodeError(ValueError):
    """The message has a value that its field cannot carry."""


def encode(message: Message) -> bytes:
    """The wire form of `message`. Raises `EncodeError`."""
    try:
        return _compiled(type(message)).encode(message)
    except (ValueError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise EncodeError(f"cannot write {type(message).__name__}: {error}") from error


def decode(kind: type[M], data: bytes) -> M:
    """Read a message of `kind` from all of `data`. Raises `DecodeError`."""
    try:
        message: M = _compiled(kind).decode(data, 0, len(data), [_PARTS + len(data) // _BYTES_PER_PART])
    except (IndexError, UnicodeDecodeError, DecodeError) as error:
        reason = str(error) if isinstance(error, DecodeError) else "truncated or malformed"
        raise DecodeError(f"no {kind.__name__}: {reason}") from error
    return message


def clone(message: M) -> M:
    """A copy that shares nothing mutable with `message`."""
    copy: M = _compiled(type(message)).clone(message)
    return copy


def prepare(*kinds: type[Message]) -> None:
    """Compile the codec for `kinds` and the types that they contain now, instead of at the first message."""
    for kind in kinds:
        _compiled(kind)


class Codec(CodecBase):
    """The codec for grpclib's channels and servers."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Write `message`; raises TypeError if it is not of `message_type`."""
        if not isinstance(message, message_type):
            raise TypeError(f"expected {message_type.__name__}, got {type(message).__name__}")
        return encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Read a message of `message_type`."""
        return decode(message_type, data)


@dataclasses.dataclass(slots=True)
class _Functions:
    encode: Encode
    decode: Decode
    clone: Clone


_cache: dict[type[Message], _Functions] = {}


def _compiled(kind: type[Message]) -> _Functions:
    functions = _cache.get(kind)
    return functions if functions is not None else _compile(kind)


def _compile(kind: type[Message]) -> _Functions:
    fields = [_Field(kind, field) for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # every message is a dataclass
    fields.sort(key=lambda field: field.number)
    names: dict[str, Any] = {"KIND": kind, "NEW": kind.__new__, **_RUNTIME}
    for field in fields:
        names.update(field.names)
    source = "\n".join([*_encoder(fields), *_decoder(fields), *_cloner(fields)])
    exec(compile(source, f"<codec of {kind.__name__}>", "exec"), names)  # noqa: S102 - our own text, from field tables
    functions = _cache[kind] = _Functions(names["encode"], names["decode"], names["clone"])
    return functions


class _Field:
    """One field: its number, its shape, and the names that its generated code refers to."""

    def __init__(self, kind: type[Message], field: dataclasses.Field[Any]) -> None:
        meta = FieldMetadata.get(field)
        self.name, self.number, self.type = field.name, meta.number, meta.proto_type
        self.repeated, self.is_map = meta.repeated, meta.proto_type == betterproto2.TYPE_MAP
        self.is_merged = self.type == "message" and not self.repeated
        self.names: dict[str, Any] = {}
        self.value = self.type
        if self.is_map:
            assert meta.map_meta is not None
            key, value = meta.map_meta
            self.value = value.proto_type
            self._check(kind, key.proto_type == "string" and self.value in {"string", "bytes", "message"})
        else:
            self._check(kind, not (self.repeated and self.type in _SCALARS) and meta.group is None)
        if self.value in {"message", "enum"}:
            child = kind._betterproto.cls_by_field[  # type: ignore[arg-type]  # a class property
                f"{field.name}.value" if self.is_map else field.name
            ]
            self._refer_to(child)

    def _check(self, kind: type[Message], supported: bool) -> None:
        if not supported or self.value not in _SCALARS | {"string", "bytes", "message"}:
            raise TypeError(f"{kind.__name__}.{self.name}: fields of this kind are not used by the API")

    def _refer_to(self, child: Any) -> None:
        if self.value == "enum":
            self.names[f"E{self.number}"] = child
            self.names[f"V{self.number}"] = {member.value: member for member in child}
            return
        functions = _compiled(child)
        self.names[f"e{self.number}"] = functions.encode
        self.names[f"d{self.number}"] = functions.decode
        self.names[f"c{self.number}"] = functions.clone

    def tag(self, number: int | None = None, value: str | None = None) -> bytes:
        wire = _VARINT if (value or self.value) in _SCALARS and not self.is_map else _LENGTH
        return _varint((self.number if number is None else number) << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT = tuple(_varint(n) for n in range(1024))


@lru_cache(maxsize=1024)
def _large(value: int) -> bytes:
    """A varint that is remembered: most large numbers are times, and those of a token come with each message."""
    return _varint(value)


def _signed(value: int, name: str, bits: int) -> bytes:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{name} is {value}, outside of {bits} bits")
    return _large(value & 0xFFFFFFFFFFFFFFFF)


def _unsigned(value: int, name: str, bits: int) -> bytes:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} is {value}, outside of {bits} bits without a sign")
    return _large(value)


# --- writing


def _encoder(fields: list[_Field]) -> list[str]:
    lines = ["def encode(m):", "    out = []", "    add = out.append"]
    for field in fields:
        lines += [f"    {line}" for line in _write(field)]
    return [*lines, "    if m._unknown_fields: add(m._unknown_fields)", "    return b''.join(out)"]


def _write(field: _Field) -> list[str]:
    tag, value = field.tag(), f"m.{field.name}"
    if field.is_map:
        return _write_map(field, tag, value)
    if field.repeated:
        return [f"for v in {value}:", *(f"    {line}" for line in _write_bytes(field, tag, "v"))]
    if field.type == "message":
        return [f"v = {value}", "if v is not None:", *(f"    {line}" for line in _write_bytes(field, tag, "v"))]
    if field.type in {"string", "bytes"}:
        return [f"v = {value}", "if v:", *(f"    {line}" for line in _write_bytes(field, tag, "v"))]
    return [f"v = {value}", f"if v: add({tag!r} + {_scalar(field)})"]


def _scalar(field: _Field) -> str:
    if field.type == "bool":
        return "b'\\x01'"
    bits = 64 if field.type.endswith("64") else 32
    if field.type.startswith("uint"):
        return f"(SHORT[v] if 0 <= v < 1024 else unsigned(v, {field.name!r}, {bits}))"
    return f"(SHORT[v] if 0 <= v < 1024 else signed(v, {field.name!r}, {bits}))"


def _as_bytes(field: _Field, name: str) -> str:
    return {"string": f"{name}.encode()", "bytes": name, "message": f"e{field.number}({name})"}[field.value]


def _write_bytes(field: _Field, tag: bytes, name: str) -> list[str]:
    return [
        f"b = {_as_bytes(field, name)}; n = len(b)",
        f"add({tag!r} + (SHORT[n] if n < 1024 else length(n))); add(b)",
    ]


def _write_map(field: _Field, tag: bytes, value: str) -> list[str]:
    return [
        f"for k, v in {value}.items():",
        "    k = k.encode(); n = len(k); k = (SHORT[n] if n < 1024 else length(n)) + k",
        f"    b = {_as_bytes(field, 'v')}; n = len(b)",
        "    b = b'\\x0a' + k + b'\\x12' + (SHORT[n] if n < 1024 else length(n)) + b; n = len(b)",
        f"    add({tag!r} + (SHORT[n] if n < 1024 else length(n))); add(b)",
    ]


# --- reading


def _decoder(fields: list[_Field]) -> list[str]:
    lines = ["def decode(buf, pos, end, left):"]
    lines += [f"    f{field.number} = {_default(field)}" for field in fields]
    once = [field for field in fields if field.is_merged]
    lines += [
        "    unknown = more = None",
        "    while pos < end:",
        "        start = pos",
        "        tag = buf[pos]; pos += 1",
    ]
    lines += ["        if tag > 127: tag, pos = short(buf, start, end, 0xFFFFFFFF)"]
    branch = "if"
    for field in fields:
        lines += [f"        {branch} tag == {int.from_bytes(_fixed_tag(field), 'little')}:"]
        lines += [f"            {line}" for line in _read(field)]
        branch = "elif"
    if fields:
        lines += ["        else:"]
    indent = " " * (12 if fields else 8)
    lines += [f"{indent}pos = skip(buf, pos, end, tag, left)"]
    lines += [
        *(f"{indent}{line}" for line in _SPEND),
        f"{indent}if unknown is None: unknown = [buf[start:pos]]",
        f"{indent}else: unknown.append(buf[start:pos])",
    ]
    if once:
        lines += ["    if more is not None:", *(f"        {_put_together(field)}" for field in once)]
    lines += ["    m = NEW(KIND)", *(f"    m.{field.name} = f{field.number}" for field in fields)]
    return [*lines, "    m._unknown_fields = b'' if unknown is None else b''.join(unknown)", "    return m"]


def _fixed_tag(field: _Field) -> bytes:
    wire = _VARINT if field.value in _SCALARS and not field.is_map else _LENGTH
    return (field.number << 3 | wire).to_bytes(4, "little")


def _default(field: _Field) -> str:
    if field.is_map:
        return "{}"
    if field.repeated:
        return "[]"
    if field.type == "enum":
        return f"V{field.number}.get(0) or E{field.number}(0)"
    return {"string": "''", "bytes": "b''", "message": "None", "bool": "False"}.get(field.type, "0")


_SPEND = ["left[0] -= 1", "if left[0] < 0: raise Error('it has too many parts for its length')"]
_READ_LENGTH = [
    "n = buf[pos]; pos += 1",
    "if n > 127:",
    "    v = buf[pos]",
    "    if v < 128 and pos < end: n += (v << 7) - 128; pos += 1",
    "    else: n, pos = short(buf, pos - 1, end, 0x7FFFFFFF)",
    "n += pos",
    "if n > end: raise Error('a field is longer than the message')",
]


def _read(field: _Field) -> list[str]:
    target = f"f{field.number}"
    if not field.is_map and field.type in _SCALARS:
        return _read_scalar(field, target)
    if field.is_map:
        read = [f"k, v = entry(buf, pos, n, left, {_entry_value(field)})", f"{target}[k] = v"]
    elif field.repeated:
        read = [f"{target}.append({_from_bytes(field)})"]
    elif field.is_merged:
        read = [
            f"if {target} is None: {target} = {_from_bytes(field)}",
            f"else: more = another(more, {field.number}, e{field.number}, {target}, buf, pos, n, left)",
        ]
    else:
        read = [f"{target} = {_from_bytes(field)}"]
    many = field.value == "message" and not field.is_merged
    return [*_READ_LENGTH, *(_SPEND if many else []), *read, "pos = n"]


def _read_scalar(field: _Field, target: str) -> list[str]:
    convert = {
        "bool": "v != 0",
        "uint32": "v & 0xFFFFFFFF",
        "uint64": "v",
        "int32": "((v & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000",
        "int64": "(v ^ 0x8000000000000000) - 0x8000000000000000",
        "enum": f"enum(V{field.number}, E{field.number}, ((v & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000)",
    }[field.type]
    lines = ["v = buf[pos]; pos += 1", "if v > 127: v, pos = varint(buf, pos - 1, end)"]
    return [*lines, "if pos > end: raise Error('a number is cut off')", f"{target} = {convert}"]


def _from_bytes(field: _Field) -> str:
    return {
        "string": "text(buf[pos:n], 'utf-8')",
        "bytes": "buf[pos:n]",
        "message": f"d{field.number}(buf, pos, n, left)",
    }[field.value]


def _put_together(field: _Field) -> str:
    return f"if {field.number} in more: f{field.number} = d{field.number}(*whole(more[{field.number}]), left)"


def _another(
    more: dict[int, list[bytes]] | None,
    number: int,
    encode: Encode,
    first: Any,
    buf: bytes,
    pos: int,
    end: int,
    left: list[int],
) -> dict[int, list[bytes]]:
    """Keep one more part of a message field that came before.

    The wire format demands that they are merged, which is what reading all of them as one does (see `_whole`).
    """
    _spend(left)
    _check_fields(buf, pos, end, left)
    if more is None:
        more = {}
    if number not in more:
        more[number] = [encode(first)]
    more[number].append(buf[pos:end])
    return more


def _whole(parts: list[bytes]) -> tuple[bytes, int, int]:
    data = b"".join(parts)
    return data, 0, len(data)


def _check_fields(buf: bytes, pos: int, end: int, left: list[int]) -> None:
    """Each part has to be whole fields: what is cut off in one of them is not continued by the next."""
    while pos < end:
        tag, pos = _read_short(buf, pos, end, 0xFFFFFFFF)
        pos = _skip(buf, pos, end, tag, left)


def _spend(left: list[int]) -> None:
    """Count one more part."""
    left[0] -= 1
    if left[0] < 0:
        raise DecodeError("it has too many parts for its length")


def _entry_value(field: _Field) -> str:
    return {"string": "as_text, ''", "bytes": "as_bytes, b''", "message": f"d{field.number}, None"}[field.value]


def _read_varint(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while pos < end:
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFFFFFFFFFF:
                raise DecodeError("a varint has more than 64 bits")
            return value, pos
        shift += 7
        if shift > 63:
            raise DecodeError("a varint has more than ten bytes")
    raise DecodeError("a varint is cut off")


def _read_short(buf: bytes, pos: int, end: int, largest: int) -> tuple[int, int]:
    """A tag or a length: at most five bytes, as every protobuf parser demands."""
    value, stop = _read_varint(buf, pos, min(end, pos + 5))
    if value > largest:
        raise DecodeError("a tag or a length is too large")
    return value, stop


def _read_entry(buf: bytes, pos: int, end: int, left: list[int], read: Decode, default: Any) -> tuple[str, Any]:
    """One entry of a map: key and value in any order, each possibly missing."""
    if end - pos > 3 and buf[pos] == 10 and buf[pos + 1] < 128:
        stop = pos + 2 + buf[pos + 1]
        if stop + 1 < end and buf[stop] == 18 and buf[stop + 1] == end - stop - 2 < 128:
            return str(buf[pos + 2 : stop], "utf-8"), read(buf, stop + 2, end, left)  # short ones, as nearly all are
    key, value = "", default
    parts: list[bytes] = []
    while pos < end:
        tag = buf[pos]
        pos += 1
        if tag > 127:
            tag, pos = _read_short(buf, pos - 1, end, 0xFFFFFFFF)
        if tag in (10, 18):
            size = buf[pos]
            pos += 1
            if size > 127:
                size, pos = _read_short(buf, pos - 1, end, 0x7FFFFFFF)
            stop = pos + size
            if stop > end:
                raise DecodeError("a map entry is cut off")
            if tag == 10:
                key = str(buf[pos:stop], "utf-8")
            elif default is not None:
                value = read(buf, pos, stop, left)
            else:  # a message that comes twice is merged, which is what reading both as one does
                _check_fields(buf, pos, stop, left)
                parts.append(buf[pos:stop])
            pos = stop
        else:
            pos = _skip(buf, pos, end, tag, left)
    return key, value if default is not None else read(*_whole(parts), left)


def _skip(buf: bytes, pos: int, end: int, tag: int, left: list[int], depth: int = 0) -> int:
    """The position behind an unknown field."""
    wire = tag & 7
    if tag >> 3 == 0:
        raise DecodeError("field number 0")
    if wire == _VARINT:
        pos = _read_varint(buf, pos, end)[1]
    elif wire == _FIXED64:
        pos += 8
    elif wire == _FIXED32:
        pos += 4
    elif wire == _LENGTH:
        size, pos = _read_short(buf, pos, end, 0x7FFFFFFF)
        pos += size
    elif wire == _GROUP and depth < _GROUP_DEPTH:
        pos = _skip_group(buf, pos, end, tag >> 3, left, depth)
    else:
        raise DecodeError(f"wire type {wire} where a field should begin")
    if pos > end:
        raise DecodeError("an unknown field is cut off")
    return pos


def _skip_group(buf: bytes, pos: int, end: int, number: int, left: list[int], depth: int) -> int:
    while True:
        _spend(left)
        tag, pos = _read_short(buf, pos, end, 0xFFFFFFFF)
        if tag & 7 == _END_GROUP:
            if tag >> 3 != number:
                raise DecodeError("a group ends that did not begin")
            return pos
        pos = _skip(buf, pos, end, tag, left, depth + 1)


def _enum(known: dict[int, Any], kind: Any, value: int) -> Any:
    member = known.get(value)
    return member if member is not None else kind(value)


# --- copying


def _cloner(fields: list[_Field]) -> list[str]:
    lines = ["def clone(m):", "    c = NEW(KIND)"]
    lines += [f"    {line}" for field in fields for line in _copy(field)]
    return [*lines, "    c._unknown_fields = m._unknown_fields", "    return c"]


def _copy(field: _Field) -> list[str]:
    name, copy = field.name, f"c{field.number}"
    if field.is_map:
        value = "v" if field.value != "message" else f"{copy}(v)"
        return [f"v = m.{name}", f"c.{name} = {{k: {value} for k, v in v.items()}} if v else {{}}"]
    if field.repeated:
        value = f"[{copy}(v) for v in m.{name}]" if field.type == "message" else f"m.{name}.copy()"
        return [f"c.{name} = {value}"]
    if field.type == "message":
        return [f"v = m.{name}", f"c.{name} = {copy}(v) if v is not None else None"]
    return [f"c.{name} = m.{name}"]


_RUNTIME: dict[str, Any] = {
    "SHORT": _SHORT,
    "length": _varint,
    "signed": _signed,
    "unsigned": _unsigned,
    "varint": _read_varint,
    "short": _read_short,
    "entry": _read_entry,
    "skip": _skip,
    "enum": _enum,
    "text": str,
    "whole": _whole,
    "another": _another,
    "as_text": lambda buf, pos, end, _left: str(buf[pos:end], "utf-8"),
    "as_bytes": lambda buf, pos, end, _left: buf[pos:end],
    "Error": DecodeError,
}
