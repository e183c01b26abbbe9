"""Prefixes that no wire of a node may use: those of the cluster's own network, for example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.config.watched_file import PartlyRead, WatchedFile
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model.addresses import read_interface
from nsm.chains.model.ipcontext import ip_context_of
from nsm.chains.reading import Field

DEFAULT_PATH = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"
_KEYS = frozenset({"prefixes"})
_EXPECTED = "a list under `prefixes`, such as prefixes: [10.96.0.0/12]"
_SHOWN = 8


class ExcludedPrefixes(Element):
    """Add the prefixes of a file to those that each request excludes.

    The file is YAML, ``prefixes: [10.96.0.0/12, ..]``, and may change at any time, or not exist. A prefix that is
    removed from it is removed with the connection's next refresh, unless the client itself excludes it. While a part of
    the file is invalid, the valid rest of it is excluded, as well as the earlier prefixes.
    """

    def __init__(self, path: str = DEFAULT_PATH) -> None:
        self._file = WatchedFile(path, prefixes_of, usual=DEFAULT_PATH, joined=_joined)
        self._file.value()  # a fault of the file is reported when the component starts
        self._added: Key[frozenset[str]] = Key("excluded prefixes")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the missing ones."""
        context = ip_context_of(call.connection)
        added, wanted = call.live.get(self._added) or frozenset(), self._file.value()
        own = [prefix for prefix in dict.fromkeys(context.excluded_prefixes) if prefix not in added]
        there = set(own)
        new = [prefix for prefix in wanted if prefix not in there]
        context.excluded_prefixes = [*own, *new]
        call.live.put(self._added, added.union(new))  # if this fails, the client still has the former ones
        connection = await rest.request(call)
        call.live.put(self._added, frozenset(new))
        return connection


def prefixes_of(document: Any) -> tuple[str, ...]:
    """The prefixes in the file, each once.

    Raises ValueError, and `PartlyRead` with the valid prefixes if only some entries are invalid.
    """
    if document is None:
        return ()
    root = Field(document, "")
    if not isinstance(document, dict):
        raise ValueError(f"expected {_EXPECTED}")
    faults: list[str] = []
    try:
        root.fields(_KEYS, "the file", is_root=True)
    except ValueError as error:
        if "prefixes" not in document:
            raise
        faults.append(str(error))
    listed = Field(document["prefixes"], "prefixes") if "prefixes" in document else Field(None, "prefixes")
    if listed and not isinstance(listed.value, list):
        raise ValueError(f"expected {_EXPECTED}")
    found: dict[str, None] = {}
    for item in listed.each():
        interface = read_interface(item.value) if isinstance(item.value, str) else None
        if interface is not None:
            found[str(interface.network)] = None
        else:
            faults.append(_no_prefix(item))
    if faults:
        raise PartlyRead(told(faults, list(found)), tuple(found))
    return tuple(found)


def _no_prefix(item: Field) -> str:
    value = item.value
    what = f"a {type(value).__name__}" if isinstance(value, list | dict) else f"{value!r:.80}"  # aliases: without end
    return f"{item.path}: {what} is not a prefix; expected one such as 10.96.0.0/12 or fd00::/64"


def told(faults: Sequence[str], found: Sequence[str]) -> str:
    """The invalid entries, and the valid ones that are in force: the first of both."""
    unread, read = "; ".join(faults[:_SHOWN]), ", ".join(found[:_SHOWN]) or "none"
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    others = f" and {len(found) - _SHOWN} others" if len(found) > _SHOWN else ""
    return f"{unread}{more}; in force: {read}{others}"


def _joined(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*now, *before]))
