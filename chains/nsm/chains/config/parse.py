"""Parsers for single values. Each raises ValueError with a text that says what to write instead."""

from __future__ import annotations

import ipaddress
import itertools
import re

from nsm.chains.core import InvalidRequest, Limits

from .address import parse_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_LEVELS = {
    "TRACE": "DEBUG",
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "WARN": "WARNING",
    "WARNING": "WARNING",
    "ERROR": "ERROR",
}
_LONGEST_NUMBER, _LONGEST_DURATION = 20, 100
_TRUE, _FALSE = {"1", "t", "true"}, {"0", "f", "false"}


def text(value: str) -> str:
    """The value, unchanged."""
    return value


def flag(value: str) -> bool:
    """`true` or `false` (also 1, 0, t, f)."""
    lowered = value.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("expected true or false")
    return lowered in _TRUE


def number(value: str) -> int:
    """A whole number, base 10."""
    try:
        return int(value if len(value) <= _LONGEST_NUMBER else "")
    except ValueError:
        raise ValueError("expected a whole number") from None


def octal(value: str) -> int:
    """A file mode such as 0660."""
    try:
        mode = int(value if len(value) <= _LONGEST_NUMBER else "", 8)
    except ValueError:
        raise ValueError("expected a file mode in octal, such as 0660") from None
    if not 0 <= mode <= 0o777:
        raise ValueError("expected a file mode from 0000 to 0777")
    return mode


def duration(value: str) -> float:
    """Seconds, from Go's notation: `300ms`, `1m30s`, `0`."""
    if value == "0":
        return 0.0
    parts = _DURATION.findall(value) if len(value) <= _LONGEST_DURATION else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError("expected a duration such as 750ms, 15s or 1m30s")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def signed_duration(value: str) -> float:
    """Seconds, as `duration`; `-1m` is a minute ago."""
    return -duration(value[1:]) if value.startswith("-") else duration(value)


def level(value: str) -> str:
    """A log level; TRACE is shown as DEBUG."""
    if value.upper() not in _LEVELS:
        raise ValueError(f"expected one of {', '.join(_LEVELS)}")
    return _LEVELS[value.upper()]


def items(value: str) -> tuple[str, ...]:
    """A list, comma separated; empty items are left out."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def pairs(value: str) -> dict[str, str]:
    """A map: `key:value,key:value`, no key twice."""
    result = {}
    for item in items(value):
        key, colon, rest = item.partition(":")
        if not colon or not key:
            raise ValueError(f"expected key:value,key:value; {item!r} has no colon")
        if key in result:
            raise ValueError(f"{key!r} is given twice")
        result[key] = rest
    return result


def limits_from(value: str) -> Limits:
    """The default limits, overridden by `name:value,name:value`."""
    return Limits().changed(pairs(value))


def url(value: str) -> str:
    """An address to listen on or dial: `unix:///path`, `tcp://host:port`, or a gRPC target such as `registry:5002`."""
    if value:
        try:
            parse_address(value)
        except InvalidRequest:
            raise ValueError("expected unix:///path, tcp://host:port or host:port") from None
    return value


def host_and_port(value: str) -> tuple[str, int]:
    """Host and port from `host:port`; without a host: all addresses."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= number(port) <= 65535:
        raise ValueError("expected host:port, such as :8081 or 127.0.0.1:8081")
    return host.strip("[]"), number(port)


def exporter(value: str) -> str:
    """OpenTelemetry's name for an exporter: `otlp`, `none`, or nothing."""
    if value not in {"", "otlp", "none"}:
        raise ValueError("expected otlp or none")
    return value


def urls(value: str) -> tuple[str, ...]:
    """Several of `url`, comma separated."""
    return tuple(url(item) for item in items(value))


def address_groups(value: str) -> tuple[tuple[str, ...], ...]:
    """Groups of prefixes: `p1,p2` is two groups of one, `[p1,p2],[p3]` one of two and one of one.

    They must not overlap: their addresses would be assigned twice.
    """
    if not _GROUPS.fullmatch(value):
        raise ValueError("expected prefixes such as 10.0.0.0/24,fd00::/64 or [10.0.0.0/24,10.1.0.0/24],[fd00::/64]")
    groups = [items(inside or single) for inside, single in _GROUP.findall(value)]
    _check_overlaps([_prefix(item) for group in groups for item in group])
    return tuple(group for group in groups if group)


_GROUP = re.compile(r"\[([^\[\]]*)\]|([^\[\],\s]+)")
_ONE = rf"(?:(?:{_GROUP.pattern})\s*+)?+"
_GROUPS = re.compile(rf"\s*+{_ONE}(?:,\s*+{_ONE})*+")


def _prefix(value: str) -> Network:
    try:
        return ipaddress.ip_interface(value).network
    except ValueError:
        raise ValueError(f"{value!r} is not a prefix; expected one such as 10.0.0.0/24 or fd00::/64") from None


def _check_overlaps(prefixes: list[Network]) -> None:
    for one, other in itertools.combinations(prefixes, 2):
        if one.overlaps(other):
            raise ValueError(f"{one} and {other} overlap; their addresses would be assigned twice")
