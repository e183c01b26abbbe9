"""Registered names and their owners, from the stored records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

from nsm.chains.core import R
from nsm.chains.policy import Trust
from nsm.chains.registry.memory import Records

from .owners import owners_of


class RecordedNames(Generic[R]):
    """The names in `records`, all of which `everything` matches. A record without owner was applied by a person."""

    def __init__(self, records: Records[R], everything: R, trust: Trust) -> None:
        self._records, self._everything, self._trust = records, everything, trust

    def __call__(self, name: str | None) -> Mapping[str, Sequence[str]]:
        """The SPIFFE IDs of registrations' paths, the verified owner first, by name: for `name` only, or for all."""
        if name is None:
            found = self._records.matching(self._everything)
        else:
            found = [record] if (record := self._records.get(name)) is not None else []
        return {record.name: self._owner_first(record) for record in found if record.path_ids}

    def _owner_first(self, record: R) -> list[str]:
        return [owners_of(record, self._trust)[-1], *record.path_ids[1:]]
