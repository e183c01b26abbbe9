"""Values in the fields of VPP's messages, packed and unpacked.

field                             value
numbers, bool                     int, float, bool
string                            str; bytes that are not UTF-8 are kept as lone surrogates
u8[n]                             bytes
other lists                       list
mac_address                       str, ``02:fe:00:00:00:01``
address, ip4_address              `ipaddress.IPv4Address` or `IPv6Address`; their text is accepted
prefix, address_with_prefix       `ipaddress.IPv4Interface` or `IPv6Interface`; a network or text is accepted
an enumeration                    the name of the value, or a number that has no name; a number is accepted
flags                             a frozen set of their names; a name, a number or a list is accepted
a union                           bytes, all of it; an address is accepted
a structure                       `Record`; a mapping is accepted, and what it leaves out has its default
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .errors import BadField, Malformed

_ADDRESS_SIZE = 16
_COUNT = struct.Struct(">I")
_NUMBERS = {
    "u8": ">B",
    "i8": ">b",
    "u16": ">H",
    "i16": ">h",
    "u32": ">I",
    "i32": ">i",
    "u64": ">Q",
    "i64": ">q",
    "f64": "=d",  # VPP leaves it in the order of its processor
}


class Record(dict[str, Any]):
    """The fields of a structure or a message by name, and as attributes where a `dict` has none of that name."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """The field of that name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Codec(Protocol):
    """How one type is packed. `beside` has the fields of the same structure that come before."""

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        """Append a value. Raises `ValueError`, `TypeError` or `struct.error` if the type cannot carry it."""

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        """The value at a position, and the position after it. Raises `Malformed` or `struct.error`."""

    def default(self) -> Any:
        """The value of a field that is not given."""


class Number:
    """An integer or a floating-point number."""

    def __init__(self, kind: str) -> None:
        self._struct = struct.Struct(_NUMBERS[kind])

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        out += self._struct.pack(value)

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        return self._struct.unpack_from(data, at)[0], at + self._struct.size

    def default(self) -> Any:
        return 0


class Bool:
    """One byte; a program that writes another value than 0 and 1 does not follow the description."""

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        if value not in {0, 1}:
            raise ValueError(f"expected true or false, not {value!r}")
        out.append(int(value))

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        (byte,) = _slice(data, at, 1)
        if byte > 1:
            raise Malformed(f"a truth value of {byte}")
        return bool(byte), at + 1

    def default(self) -> Any:
        return False


class Enumeration:
    """One of the named values."""

    def __init__(self, kind: str, values: Mapping[str, int]) -> None:
        self._number = Number(kind)
        self._values = values
        self._names = {number: name for name, number in reversed(list(values.items()))}

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        self._number.pack(_value_of(value, self._values), out, beside)

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        number, at = self._number.unpack(data, at, beside)
        return self._names.get(number, number), at

    def default(self) -> Any:
        return 0


class Flags:
    """Any of the named bits."""

    def __init__(self, kind: str, values: Mapping[str, int]) -> None:
        self._number = Number(kind)
        self._values = values
        self._bits = {number: name for name, number in reversed(list(values.items())) if number.bit_count() == 1}

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        bits = 0
        for one in [value] if isinstance(value, int | str) else value:
            bits |= _value_of(one, self._values)
        self._number.pack(bits, out, beside)

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        number, at = self._number.unpack(data, at, beside)
        bits = (1 << place for place in range(number.bit_length()))
        return frozenset(self._bits.get(bit, bit) for bit in bits if number & bit), at

    def default(self) -> Any:
        return frozenset()


class Text:
    """A string in `size` bytes, the last of which is zero."""

    def __init__(self, size: int) -> None:
        self._size = size

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        data = _encoded(value)
        if len(data) >= self._size:
            raise ValueError(f"{value!r} is longer than {self._size - 1} bytes")
        out += data.ljust(self._size, b"\0")

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        raw = _slice(data, at, self._size).split(b"\0", 1)[0]
        return raw.decode(errors="surrogateescape"), at + self._size

    def default(self) -> Any:
        return ""


class LongText:
    """A string after its length; it ends a message."""

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        data = _encoded(value)
        out += _COUNT.pack(len(data)) + data

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        (size,) = _COUNT.unpack_from(data, at)
        raw = _slice(data, at + _COUNT.size, size)
        return raw.decode(errors="surrogateescape"), at + _COUNT.size + size

    def default(self) -> Any:
        return ""


class Bytes:
    """Bytes of a fixed number, or of a number that another field has; fewer than the fixed number get zeros."""

    def __init__(self, size: int, count: str = "") -> None:
        self._size, self._count = size, count

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        data = bytes(value)
        if self._count:
            _same_length(data, self._count, beside)
        elif len(data) > self._size:
            raise ValueError(f"{len(data)} bytes, more than {self._size}")
        out += data.ljust(self._size, b"\0")

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        size = int(beside[self._count]) if self._count else self._size
        return _slice(data, at, size), at + size

    def default(self) -> Any:
        return b""


class Repeated:
    """A list of a fixed length, or of a length that another field has."""

    def __init__(self, of: Codec, size: int, count: str = "") -> None:
        self._of, self._size, self._count = of, size, count

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        if self._count:
            _same_length(value, self._count, beside)
        elif len(value) != self._size:
            raise ValueError(f"{len(value)} elements, not {self._size}")
        for one in value:
            self._of.pack(one, out, {})

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        size = int(beside[self._count]) if self._count else self._size
        if size > len(data) - at:
            raise Malformed(f"a list of {size} elements in {len(data) - at} bytes")
        found = []
        for _ in range(size):
            one, at = self._of.unpack(data, at, {})
            found.append(one)
        return found, at

    def default(self) -> Any:
        return [] if self._count else [self._of.default()] * self._size


class Mac:
    """A hardware address."""

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        data = bytes.fromhex(value.replace(":", "")) if isinstance(value, str) else bytes(value)
        if len(data) != 6:
            raise ValueError(f"{value!r} is no MAC address")
        out += data

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        return _slice(data, at, 6).hex(":"), at + 6

    def default(self) -> Any:
        return bytes(6)


class Address:
    """An IP address: of one family, or with a byte in front that says of which."""

    def __init__(self, size: int = 0) -> None:
        self._size = size

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        address = ipaddress.ip_address(value)
        if not self._size:
            out.append(address.version == 6)
        elif len(address.packed) != self._size:
            raise ValueError(f"{address} is of the other family")
        out += address.packed.ljust(self._size or _ADDRESS_SIZE, b"\0")

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        if self._size:
            return ipaddress.ip_address(_slice(data, at, self._size)), at + self._size
        raw = _slice(data, at, 1 + _ADDRESS_SIZE)
        if raw[0] > 1:
            raise Malformed(f"an address of family {raw[0]}")
        return ipaddress.ip_address(raw[1:] if raw[0] else raw[1:5]), at + 1 + _ADDRESS_SIZE

    def default(self) -> Any:
        return ipaddress.IPv6Address(0) if self._size == _ADDRESS_SIZE else ipaddress.IPv4Address(0)


class Prefix:
    """An address with the length of its prefix."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            address, length = value.network_address, value.prefixlen
        else:
            interface = ipaddress.ip_interface(value)
            address, length = interface.ip, interface.network.prefixlen
        self._address.pack(address, out, beside)
        out.append(length)

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        address, at = self._address.unpack(data, at, beside)
        (length,) = _slice(data, at, 1)
        if length > address.max_prefixlen:
            raise Malformed(f"a prefix of {length} bits for {address}")
        return ipaddress.ip_interface((address, length)), at + 1

    def default(self) -> Any:
        return f"{self._address.default()}/0"


class Union:
    """Bytes that have one of several meanings."""

    def __init__(self, size: int) -> None:
        self._bytes = Bytes(size)

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            value = value.packed
        self._bytes.pack(value, out, beside)

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        return self._bytes.unpack(data, at, beside)

    def default(self) -> Any:
        return b""


class Structure:
    """Fields one after the other: (name, codec, default or None)."""

    def __init__(self, name: str, fields: Sequence[tuple[str, Codec, Any]], counts: Mapping[str, str]) -> None:
        self._name, self._fields = name, fields
        self._counts = counts
        """The list whose length a field has, by the name of the field."""
        self._names = frozenset(name for name, _, _ in fields)

    def pack(self, value: Any, out: bytearray, beside: Mapping[str, Any]) -> None:
        if unknown := value.keys() - self._names:
            names = ", ".join(name for name, _, _ in self._fields)
            raise BadField(f"{self._name} has no field {', '.join(sorted(unknown))}; it has {names}")
        values = dict(value)
        for count, of in self._counts.items():
            values.setdefault(count, len(values.get(of, ())))
        for name, codec, default in self._fields:
            given = values.get(name)
            if given is None:
                given = values[name] = codec.default() if default is None else default
            try:
                codec.pack(given, out, values)
            except BadField:
                raise
            except (ValueError, TypeError, struct.error, AttributeError) as error:
                raise BadField(f"{self._name}: {name}: {error}") from None

    def unpack(self, data: bytes, at: int, beside: Mapping[str, Any]) -> tuple[Any, int]:
        found = Record()
        for name, codec, _ in self._fields:
            found[name], at = codec.unpack(data, at, found)
        return found, at

    def default(self) -> Any:
        return {}


def _value_of(value: Any, values: Mapping[str, int]) -> int:
    if isinstance(value, str):
        if value not in values:
            raise ValueError(f"{value} is none of {', '.join(values)}")
        return values[value]
    return int(value)


def _same_length(value: Sequence[Any], count: str, beside: Mapping[str, Any]) -> None:
    if len(value) != beside[count]:
        raise ValueError(f"{len(value)} elements, but {count} is {beside[count]}")


def _encoded(value: Any) -> bytes:
    data: bytes = value.encode(errors="surrogateescape")
    if b"\0" in data:
        raise ValueError(f"{value!r} contains a zero byte")
    return data


def _slice(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise Malformed(f"{size} bytes were expected where {len(part)} are left")
    return part
