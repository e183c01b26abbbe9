"""Which names are taken, and by whom: what policies in files may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nsm.chains.core import Key, R, RegistryCall
from nsm.chains.policy import documents


class Names(Protocol):
    """Who has which names."""

    def __call__(self, name: str | None) -> Mapping[str, Sequence[str]]:
        """The SPIFFE IDs of a registration's path, its verified owner first, by name: of `name` alone, or of all."""
        ...


class KeptNames(Names):
    """Those of the registrations that passed here, for as long as they last. Needs a begin element."""

    def __init__(self) -> None:
        self._path_ids: dict[str, tuple[str, ...]] = {}
        self._kept: Key[bool] = Key("name kept")

    def __call__(self, name: str | None) -> Mapping[str, Sequence[str]]:
        """Of `name` alone, or of all."""
        if name is None:
            return self._path_ids
        return {name: self._path_ids[name]} if name in self._path_ids else {}

    def keep(self, call: RegistryCall[R], record: R) -> None:
        """Remember a registration that succeeded, by who made it first."""
        if call.live.get(self._kept) is None:
            self._path_ids.setdefault(record.name, (origin_of(call), *documents.path_ids(call.path.tokens)[1:]))
            call.live.put(self._kept, True)
            call.live.on_end(lambda: self._forget(record.name))

    def _forget(self, name: str) -> None:
        self._path_ids.pop(name, None)


def origin_of(call: RegistryCall[R]) -> str:
    """Who a registration comes from: verified, or for one that this process makes itself who its path begins at."""
    return call.origin or "".join(documents.path_ids(call.path.tokens)[:1])
