"""The URLs of requested wires: ``kernel://service@domain/interface?label=value``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.reading import any_of

from .addresses import read_address
from .interface_name import fault

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://((?P<user>[a-z0-9._:~!$&'()*+,;=%@-]*)@)?(?P<host>[^@/?#]*)"
    r"(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?(#(?P<fragment>.*))?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_LETTERS = r"(?:[a-z0-9!\"$&'()*+,.;<=>\]_~-]|[^\x00-\x7f]|%25|%[89a-f][0-9a-f])*"
_HOST = re.compile(
    rf"\[(?P<ipv6>[0-9a-f]*:[0-9a-f:.]*)(?P<zone>%25.+)?\](:[0-9]*)?"
    rf"|(?P<name>{_LETTERS}(?::{_LETTERS})*):[0-9]*|(?P<whole>{_LETTERS})",
    re.IGNORECASE | re.ASCII,
)
_SHOWN = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class NsUrl:
    """A requested wire: a service, the mechanism and labels."""

    network_service: str
    mechanism: Mechanism
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def interface(self) -> str:
        """The interface's name; empty if it is to be generated."""
        return self.mechanism.parameters.get(INTERFACE_NAME, "")

    def means(self, request: NetworkServiceRequest) -> bool:
        """Whether `request` is for this wire: it may have more labels, and an interface name if this has none."""
        connection = request.connection or Connection()
        asked = [*request.mechanism_preferences, *([connection.mechanism] if connection.mechanism else [])]
        return (
            connection.network_service == self.network_service
            and self.labels.items() <= connection.labels.items()
            and any(self._is_met_by(mechanism) for mechanism in asked)
        )

    def _is_met_by(self, mechanism: Mechanism) -> bool:
        name = mechanism.parameters.get(INTERFACE_NAME)
        return mechanism.type == self.mechanism.type and self.interface in ("", name)


def parse_strict_nsurl(url: str) -> NsUrl:
    """Parse the URL of a wire from a configuration. Raises ValueError also for parts that `parse_nsurl` ignores.

    Those are a label without ``=``, without a name, with a semicolon or with an incomplete % escape, and anything
    after a ``#``: ignoring a label would select another endpoint.
    """
    parsed = parse_nsurl(url)
    address, hash_sign, _ = url.partition("#")
    if hash_sign:
        raise ValueError(f"{url[:_SHOWN]!r} has a #, which would hide the rest; write %23 for it in a label")
    _, question_mark, query = address.partition("?")
    for pair in query.split("&") if question_mark else ():
        if (why := _fault_of_label(pair)) is not None:
            raise ValueError(f"{url[:_SHOWN]!r}: label {pair[:_SHOWN]!r} {why}; expected ?label=value&label=value")
    return parsed


def _fault_of_label(pair: str) -> str | None:
    name, sign, _ = pair.partition("=")
    if not sign:
        return "has no ="
    if not name:
        return "has no name"
    if ";" in pair:
        return "has a semicolon (write %3B for it)"
    return "has a % without two hexadecimal digits" if _STRAY_PERCENT.search(pair) else None


def check_mechanisms(urls: Sequence[NsUrl], known: Collection[str]) -> None:
    """Check that all `urls` are for `known` mechanisms. Raises ValueError that names one that is not."""
    for url in urls:
        if (kind := url.mechanism.type) not in known:
            there = any_of(f"{each.lower()}://" for each in known)
            raise ValueError(f"mechanism {kind.lower()} is not supported by this client; use {there}")


def check_interfaces(urls: Sequence[NsUrl]) -> None:
    """Check that one workload can have all of `urls`.

    Raises ValueError that names an interface that Linux would reject, or that occurs twice.
    """
    names = [url.interface for url in urls if url.interface]
    for name in names:
        if (wrong := fault(name)) is not None:
            raise ValueError(wrong)
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"interface {', '.join(map(repr, twice))} is requested twice; each wire needs its own name")


def parse_groups(value: str) -> tuple[tuple[NsUrl, ...], ...]:
    """Groups of URLs: ``[kernel://a,kernel://b],[kernel://c]``. Raises ValueError."""
    if not _GROUPS.fullmatch(value):
        raise ValueError("expected groups of URLs such as [kernel://a/nsm-1,kernel://b],[kernel://c]")
    groups = [[item.strip() for item in group.split(",") if item.strip()] for group in _GROUP.findall(value)]
    flat = [item for group in groups for item in group]
    if twice := [item for item, times in Counter(flat).items() if times > 1]:
        raise ValueError(f"{min(twice)!r} is given twice")
    return tuple(tuple(parse_strict_nsurl(item) for item in group) for group in groups if group)


_GROUP = re.compile(r"\[([^\[\]]*)\]")
_GROUPS = re.compile(rf"\s*+(?:{_GROUP.pattern}\s*+)?+(?:,\s*+(?:{_GROUP.pattern}\s*+)?+)*+")


def parse_nsurl(url: str) -> NsUrl:
    """Parse a URL; if a label is given several times, its values are joined by commas.

    Raises ValueError with what to write instead.
    """
    parts = _URL.fullmatch(url)
    host = _host(parts["host"]) if parts is not None else ""
    if parts is None or not host:
        raise ValueError(f"{url[:_SHOWN]!r} names no service; expected one such as kernel://my-service/nsm-1?app=web")
    broken = [text for text in (parts["user"], parts["path"], parts["fragment"]) if _STRAY_PERCENT.search(text or "")]
    if broken or _CONTROL.search(url.partition("#")[0]):
        raise ValueError(
            f"{url[:_SHOWN]!r} cannot be parsed: it has a control character, or a % without two hexadecimal digits"
        )
    user = unquote((parts["user"] or "").partition(":")[0])
    mechanism = Mechanism(cls=LOCAL, type=parts["scheme"].upper())
    if parts["path"]:
        mechanism.parameters[INTERFACE_NAME] = unquote(parts["path"]).rpartition("/")[2]
    return NsUrl(f"{user}@{host}" if user else host, mechanism, _labels(parts["query"] or ""))


def _host(text: str) -> str:
    """The host without its port, unescaped; empty if it is invalid."""
    host = _HOST.fullmatch(text)
    if host is None or (host["ipv6"] and read_address(host["ipv6"]) is None):
        return ""
    return unquote((host["ipv6"] or "") + (host["zone"] or "") or host["name"] or host["whole"] or "")


def _labels(query: str) -> dict[str, str]:
    """The labels in a query; a pair that has a semicolon or cannot be unescaped is skipped."""
    labels: dict[str, list[str]] = {}
    for pair in query.split("&"):
        if pair and ";" not in pair and not _STRAY_PERCENT.search(pair):
            key, _, value = pair.replace("+", " ").partition("=")
            labels.setdefault(unquote(key), []).append(unquote(value))
    return {key: ",".join(values) for key, values in labels.items()}
