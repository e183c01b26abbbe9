"""Descriptions of VPP's messages: their fields in all versions of VPP that we know, by checksum.

They are data (messages.json, written by ``make vpp-messages``): what a name and a checksum stand for is the same in
each VPP that has them, and a running VPP reports its names and checksums (see `client`).
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .codec import (
    Address,
    Bool,
    Bytes,
    Codec,
    Enumeration,
    Flags,
    LongText,
    Mac,
    Number,
    Prefix,
    Record,
    Repeated,
    Structure,
    Text,
    Union,
)
from .errors import Malformed, UnknownMessage

_SPECIAL: dict[str, Codec] = {
    "bool": Bool(),
    "mac_address": Mac(),
    "address": Address(),
    "ip4_address": Address(4),
    "ip6_address": Address(16),
    "prefix": Prefix(Address()),
    "ip4_prefix": Prefix(Address(4)),
    "ip6_prefix": Prefix(Address(16)),
}
"""Types whose values are not those of their parts."""
_NUMBERS = frozenset({"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f64"})
_HEADER = ("_vl_msg_id", "client_index", "context")
"""The fields that the connection fills in and reads."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a request is answered with: the names of its reply, of the details of a list, and of events.

    A list without a reply has no end of its own: a ``control_ping`` after the request shows where it ends.
    """

    reply: str = ""
    details: str = ""
    events: tuple[str, ...] = ()


class Message:
    """One version of a message.

    `codec` packs all of its fields, `context_at` is the position of its context; None for an event.
    """

    def __init__(
        self, name: str, checksum: str, fields: Sequence[str], codec: Structure, context_at: int | None
    ) -> None:
        self.name, self.checksum = name, checksum
        self.fields = tuple(fields)
        self.context_at = context_at
        self.codec = codec
        self._header = tuple(field for field in _HEADER if field in fields)

    def pack(self, number: int, index: int, context: int, fields: Mapping[str, Any]) -> bytes:
        """The bytes of the message, with the number that the running VPP gives it. Raises `BadField`."""
        own = dict(zip(_HEADER, (number, index, context), strict=True))
        out = bytearray()
        self.codec.pack({**fields, **{name: own[name] for name in self._header}}, out, {})
        return bytes(out)

    def unpack(self, data: bytes) -> Record:
        """The fields, without those of the header. Raises `Malformed`."""
        try:
            found, end = self.codec.unpack(data, 0, {})
        except struct.error as error:
            raise Malformed(f"{self.name}: {error}") from None
        except Malformed as error:
            raise Malformed(f"{self.name}: {error.detail}") from None
        if end != len(data):
            raise Malformed(f"{self.name} of {len(data)} bytes, where its fields take {end}")
        for name in self._header:
            del found[name]
        return Record(found)


class Descriptions:
    """All that messages.json has. Codecs are made when a message is used first."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._types: Mapping[str, Any] = data["types"]
        self._messages: Mapping[str, Mapping[str, Any]] = data["messages"]
        self._services = {name: Service(*_service(said)) for name, said in data["services"].items()}
        self._errors: dict[int, str] = {int(number): name for number, name in data["errors"].items()}
        self.codecs: dict[str, tuple[Codec, int]] = {}
        self._made: dict[tuple[str, str], Message] = {}
        self.versions: tuple[str, ...] = tuple(data["versions"])

    def __iter__(self) -> Any:
        """The names of all messages."""
        return iter(self._messages)

    def service(self, name: str) -> Service:
        """What a request is answered with. Raises `UnknownMessage` for what is no request that we use."""
        if name not in self._services:
            raise UnknownMessage(f"{name} is not among the messages of VPP that we use", message=name)
        return self._services[name]

    def variants(self, name: str) -> tuple[str, ...]:
        """The checksums of the versions of a message that we know, in the order of VPP's versions."""
        return tuple(self._messages.get(name, ()))

    def versions_of(self, name: str, checksum: str) -> tuple[str, ...]:
        """The versions of VPP that have this version of a message."""
        return tuple(self._messages[name][checksum]["in"])

    def span(self, name: str, checksum: str | None = None) -> str:
        """The versions of VPP that have a message, or one version of it: ``24.10 to 26.06``."""
        variants = self._messages[name]
        found: list[str] = [one for key, said in variants.items() if checksum in {None, key} for one in said["in"]]
        first, last = min(found), max(found)
        return first if first == last else f"{first} to {last}"

    def error_name(self, number: int) -> str:
        """What VPP's sources call a return value: ``NO_SUCH_ENTRY``."""
        return self._errors.get(number, "an error without a name")

    def error_number(self, name: str) -> int:
        """The return value that VPP's sources call so."""
        return next(number for number, known_as in self._errors.items() if known_as == name)

    def first(self, name: str) -> Message:
        """The newest version of a message."""
        made = self.message(name, self.variants(name)[-1])
        assert made is not None
        return made

    def message(self, name: str, checksum: str) -> Message | None:
        """One version of a message, if we know it."""
        said = self._messages.get(name, {}).get(checksum)
        if said is None:
            return None
        made = self._made.get((name, checksum))
        if made is None:
            made = self._made[name, checksum] = self._message(name, checksum, said["fields"])
        return made

    def _message(self, name: str, checksum: str, fields: Sequence[Sequence[Any]]) -> Message:
        names = [field[1] for field in fields]
        at = None
        if "context" in names:
            at = sum(self._sized(field)[1] for field in fields[: names.index("context")])
        return Message(name, checksum, names, self._structure(name, fields)[0], at)

    def _structure(self, name: str, fields: Sequence[Sequence[Any]]) -> tuple[Structure, int]:
        made, counts, size = [], {}, 0
        for field in fields:
            codec, field_size = self._sized(field)
            options = field[-1] if isinstance(field[-1], dict) else {}
            made.append((field[1], codec, options.get("default")))
            size += field_size
            if count := _count_of(field):
                counts[count] = field[1]
        return Structure(name, made, counts), size

    def _sized(self, field: Sequence[Any]) -> tuple[Codec, int]:
        """The codec of a field and its number of bytes; without what is in a list of variable length."""
        kind = field[0]
        is_list = len(field) > 2 and isinstance(field[2], int)
        if kind == "string":
            return (Text(field[2]), field[2]) if field[2] else (LongText(), 4)
        if not is_list:
            return self._type(kind)
        length, count = field[2], _count_of(field)
        if kind == "u8":
            return Bytes(length, count), length
        of, size = self._type(kind)
        return Repeated(of, length, count), size * length

    def _type(self, kind: str) -> tuple[Codec, int]:
        if kind not in self.codecs:
            self.codecs[kind] = self._make(kind)
        return self.codecs[kind]

    def _make(self, kind: str) -> tuple[Codec, int]:
        if kind in _NUMBERS:
            return Number(kind), int(kind[1:]) // 8
        if kind == "bool":
            return _SPECIAL[kind], 1
        said, plain = self._types[kind], kind.partition("~")[0]
        if "enum" in said:
            return Enumeration(said["enum"], said["values"]), self._type(said["enum"])[1]
        if "flags" in said:
            return Flags(said["flags"], said["values"]), self._type(said["flags"])[1]
        if "alias" in said:
            codec, size = self._sized([said["alias"][0], "", *said["alias"][1:]])
        elif "union" in said:
            size = max(self._sized(field)[1] for field in said["union"])
            codec = Union(size)
        else:
            codec, size = self._structure(plain, said["fields"])
        return _SPECIAL.get(plain, codec), size


@functools.cache
def known() -> Descriptions:
    """The descriptions that come with this package."""
    return Descriptions(json.loads(importlib.resources.files(__package__).joinpath("messages.json").read_text()))


def _service(said: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    return said.get("reply", ""), said.get("details", ""), tuple(said.get("events", ()))


def _count_of(field: Sequence[Any]) -> str:
    """The field that has the length of a list; empty if it has a fixed one."""
    return field[3] if len(field) > 3 and isinstance(field[3], str) else ""
