"""Prefixes that no wire of a node may use: those of the cluster's own network, for example."""

from __future__ import annotations

from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.config.watched_file import WatchedFile
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model.addresses import read_interface
from nsm.chains.model.ipcontext import ip_context_of

DEFAULT_PATH = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"


class ExcludedPrefixes(Element):
    """Add the prefixes of a file to those that each request excludes.

    The file is YAML, ``prefixes: [10.96.0.0/12, ..]``, and may change at any time, or not be there. A prefix that was
    taken out of it goes with the connection's next refresh, unless the client itself excludes it.
    """

    def __init__(self, path: str = DEFAULT_PATH) -> None:
        self._file = WatchedFile(path, prefixes_of)
        self._file.value()  # a fault of the file is told when the component starts
        self._added: Key[frozenset[str]] = Key("excluded prefixes")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add what is missing."""
        context = ip_context_of(call.connection)
        added, wanted = call.live.get(self._added) or frozenset(), self._file.value()
        own = [prefix for prefix in dict.fromkeys(context.excluded_prefixes) if prefix not in added]
        there = set(own)
        new = [prefix for prefix in wanted if prefix not in there]
        context.excluded_prefixes = [*own, *new]
        call.live.put(self._added, added.union(new))  # should this fail, the client still has the former ones
        connection = await rest.request(call)
        call.live.put(self._added, frozenset(new))
        return connection


def prefixes_of(document: Any) -> tuple[str, ...]:
    """The prefixes that the file names, each once. Raises ValueError."""
    if document is None:
        return ()
    listed = document.get("prefixes") if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(listed or [], list):
        raise ValueError("expected a list under `prefixes`, such as prefixes: [10.96.0.0/12]")
    return tuple(dict.fromkeys(_prefix(item) for item in listed or []))


def _prefix(item: Any) -> str:
    interface = read_interface(item) if isinstance(item, str) else None
    if interface is None:
        shown = f"a {type(item).__name__}" if isinstance(item, list | dict) else f"{item!r:.80}"  # aliases: without end
        raise ValueError(f"{shown} is no prefix; expected one such as 10.96.0.0/12 or fd00::/64")
    return str(interface.network)
