"""Registered names and their owners, for policies in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nsm.chains.core import Key, R, RegistryCall
from nsm.chains.policy import documents


class Names(Protocol):
    """Returns the owners of names."""

    def __call__(self, name: str | None) -> Mapping[str, Sequence[str]]:
        """The SPIFFE IDs of registrations' paths, the verified owner first, by name: for `name` only, or for all."""
        ...


class KeptNames(Names):
    """The names of registrations that passed here, until they end. Needs a begin element."""

    def __init__(self) -> None:
        self._path_ids: dict[str, tuple[str, ...]] = {}
        self._kept: Key[bool] = Key("name kept")

    def __call__(self, name: str | None) -> Mapping[str, Sequence[str]]:
        """The owners of `name`, or of all names."""
        if name is None:
            return self._path_ids
        return {name: self._path_ids[name]} if name in self._path_ids else {}

    def keep(self, call: RegistryCall[R], record: R) -> None:
        """Remember a successful registration and its owner."""
        if call.live.get(self._kept) is None:
            self._path_ids.setdefault(record.name, (origin_of(call), *documents.path_ids(call.path.tokens)[1:]))
            call.live.put(self._kept, True)
            call.live.on_end(lambda: self._forget(record.name))

    def _forget(self, name: str) -> None:
        self._path_ids.pop(name, None)


def origin_of(call: RegistryCall[R]) -> str:
    """The origin of a registration: verified, or, if this process made it, the beginning of its path."""
    return call.origin or "".join(documents.path_ids(call.path.tokens)[:1])
