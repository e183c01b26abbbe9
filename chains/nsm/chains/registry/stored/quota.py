"""Limits how much one client may register, across all replicas of a registry."""

from __future__ import annotations

from nsm.chains.core import Found, R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.record_limits import encoded_size
from nsm.chains.policy import Trust
from nsm.chains.registry.memory import Records
from nsm.chains.registry.quota import Quotas

from .owners import owners_of


class StoredQuota(RegistryElement[R]):
    """Count the `records` of each verified identity, and refuse what exceeds its limits."""

    def __init__(self, quotas: Quotas, records: Records[R], trust: Trust) -> None:
        self._quotas, self._trust = quotas, trust
        self._shares: dict[str, tuple[str, int]] = {}
        records.listen(self._changed)

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Exhausted` if a limit is exceeded."""
        if call.peer is None:
            return await rest.register(call)
        owner = call.origin or call.peer.spiffe_id
        holder, before = self._shares.get(call.record.name, ("", 0))
        mine = holder == owner
        size = call.size or encoded_size(call.record)
        more = int(not mine), max(0, size - (before if mine else 0))
        self._quotas.check(owner, *more, is_peer=owner == call.peer.spiffe_id)
        self._quotas.take(owner, *more)  # until the watch reports it
        try:
            return await rest.register(call)
        finally:
            self._quotas.give_back(owner, *more)

    def _changed(self, found: Found[R]) -> None:
        record = found.record
        if (share := self._shares.pop(record.name, None)) is not None:
            self._quotas.give_back(share[0], 1, share[1])
        if not found.deleted and record.path_ids:
            share = self._shares[record.name] = owners_of(record, self._trust)[-1], encoded_size(record)
            self._quotas.take(share[0], 1, share[1])
