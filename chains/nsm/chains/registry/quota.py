"""Limits how much one client may register."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.core import Exhausted, Key, Limits, R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.record_limits import encoded_size
from nsm.chains.policy import NO_TRUST, Trust


@dataclass(slots=True)
class Held:
    """The number of records that one identity has registered, and their size in bytes."""

    records: int = 0
    size: int = 0


class Quotas:
    """What each identity has registered in one registry: services and endpoints together.

    At a registry, a direct caller may be a manager; if `trust` has any vouchers, it lists all managers.
    """

    def __init__(self, limits: Limits, *, is_registry: bool = False, trust: Trust = NO_TRUST) -> None:
        self._limits, self._is_registry, self._trust = limits, is_registry, trust
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        """The number of identities with registrations."""
        return len(self._held)

    def check(self, spiffe_id: str, records: int, size: int, *, is_peer: bool) -> None:
        """Raise `Exhausted` if the additional records exceed a limit.

        `is_peer`: it is a direct caller. At a registry that may be a manager, which registers for a whole node.
        """
        is_peer = is_peer and (not self._trust.has_vouchers() or self._trust.matches(spiffe_id))
        held = self._held.get(spiffe_id, _NOTHING)
        limits = _OF_PEERS if is_peer and self._is_registry else _OF_CLIENTS
        for limit, more, would in zip(limits, (records, size), (held.records + records, held.size + size), strict=True):
            if more > 0 and would > getattr(self._limits, limit):
                raise Exhausted(
                    f"{spiffe_id} has already registered {held.records} records of {held.size} bytes, and {limit} is "
                    f"{getattr(self._limits, limit)} (NSM_LIMITS={limit}:..)",
                    limit=limit,
                )

    def take(self, spiffe_id: str, records: int, size: int) -> None:
        """Add to the identity's account."""
        held = self._held.setdefault(spiffe_id, Held())
        held.records += records
        held.size += size

    def give_back(self, spiffe_id: str, records: int, size: int) -> None:
        """Subtract from the identity's account."""
        held = self._held.get(spiffe_id)
        if held is None:
            return
        held.records -= records
        held.size -= size
        if held.records <= 0 and held.size <= 0:
            del self._held[spiffe_id]


_NOTHING = Held()
_OF_CLIENTS, _OF_PEERS = ("registrations", "registered_bytes"), ("peer_registrations", "peer_registered_bytes")


class Quota(RegistryElement[R]):
    """Count what each client has registered, and refuse what exceeds its limits.

    A registration counts for its first owner until it ends. Place it behind authorize and behind begin.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._share: Key[tuple[str, int]] = Key("share of a quota")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Exhausted` if a limit is exceeded."""
        if call.peer is None:
            return await rest.register(call)
        share = call.live.get(self._share)
        owner, before = share or (call.origin or call.peer.spiffe_id, 0)
        size, new = call.size or encoded_size(call.record), int(share is None)
        self._quotas.check(owner, new, size - before, is_peer=owner == call.peer.spiffe_id)
        self._quotas.take(owner, new, size - before)
        try:
            record = await rest.register(call)
        except BaseException:
            self._quotas.give_back(owner, new, size - before)
            raise
        call.live.put(self._share, (owner, size))
        if new:
            store = call.live
            store.on_end(lambda: self._end(store.pop(self._share)))
        return record

    def _end(self, share: tuple[str, int] | None) -> None:
        if share is not None:
            owner, size = share
            self._quotas.give_back(owner, 1, size)
