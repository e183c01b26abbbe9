"""What a Register may overwrite, and who may remove a record.

The owner of a record is the identity that registered it: the first of its `path_ids`, or several of them if components
on the path may not vouch for it (`Trust`). They are stored with the record, so that all replicas know them, also after
a restart; the last one is the registry's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nsm.apis import codec
from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Conflict, R, Refused
from nsm.chains.policy import NO_TRUST, Trust, owner_name
from nsm.chains.registry.authorize import difference, how_to_provide, taken_service
from nsm.chains.registry.succession import may_succeed

from .owners import owners_of

Record = NetworkService | NetworkServiceEndpoint


class Rules(Protocol[R]):
    """The rules for one kind of record."""

    def merged(self, record: R, held: R | None) -> R | None:
        """What to write to register `record` over the live record `held`; None if nothing needs to be written.

        Raises `Refused` or `Conflict`.
        """
        ...

    def may_remove(self, record: R, held: R) -> bool:
        """Whether an Unregister of `record` removes `held`; False leaves it there. Raises `Refused`."""
        ...


class EndpointRules(Rules[NetworkServiceEndpoint]):
    """An endpoint belongs to whoever registered it until it expires; with `owned` False, anyone may change it."""

    def __init__(self, *, owned: bool, trust: Trust = NO_TRUST) -> None:
        self._owned, self._trust = owned, trust

    def merged(
        self, record: NetworkServiceEndpoint, held: NetworkServiceEndpoint | None
    ) -> NetworkServiceEndpoint | None:
        """Always written, to renew its lifetime. The initial registration time stays."""
        wanted = codec.clone(record)
        if held is not None:
            if not self._is_successor(record, held):
                self._check(record, held)
            if held.initial_registration_time is not None:
                wanted.initial_registration_time = held.initial_registration_time
        if wanted.initial_registration_time is None:
            wanted.initial_registration_time = Timestamp.now()
        return wanted

    def may_remove(self, record: NetworkServiceEndpoint, held: NetworkServiceEndpoint) -> bool:
        """Its owner may remove it."""
        self._check(record, held)
        return True

    def _is_successor(self, record: NetworkServiceEndpoint, held: NetworkServiceEndpoint) -> bool:
        if not record.path_ids or not held.path_ids:
            return False
        return may_succeed(record, owners_of(record, self._trust), held, owners_of(held, self._trust), self._trust)

    def _check(self, record: NetworkServiceEndpoint, held: NetworkServiceEndpoint) -> None:
        if self._owned and _is_foreign(record, held, self._trust):
            raise _foreign(held, self._trust)


class ServiceRules(Rules[NetworkService]):
    """A service belongs to whoever registered it as long as an endpoint provides it.

    Others may register it too with the same content. With `by_hand`, people may write to the storage as well: a service
    without `path_ids` is theirs and stays. Since they often add matches to a service that a component registered
    (`kubectl edit`), a Register without matches keeps the existing ones.
    """

    def __init__(
        self,
        *,
        owned: bool,
        is_provided: Callable[[str], bool],
        trust: Trust = NO_TRUST,
        by_hand: bool = False,
    ) -> None:
        self._owned, self._is_provided, self._trust, self._by_hand = owned, is_provided, trust, by_hand

    def merged(self, record: NetworkService, held: NetworkService | None) -> NetworkService | None:
        """None if the content is the same."""
        if held is None:
            return record
        wanted = codec.clone(record)
        if self._by_hand:
            wanted.matches = record.matches or held.matches
        if wanted.payload == (held.payload or IP) and wanted.matches == held.matches:
            return None
        if self._by_hand and not held.path_ids:
            raise Conflict(
                f"network service {held.name!r} was applied by hand with payload {held.payload or IP} "
                f"and {len(held.matches)} matches; change it there, or register the same values"
            )
        keeps = wanted.matches == held.matches
        if self._is_taken(record, held, keeps_matches=keeps):
            says = f"{owner_name(owners_of(record, self._trust))} registers it with {difference(wanted, held)}"
            reason = taken_service(held.name, owner_name(owners_of(held, self._trust)), says)
            raise Refused(f"no sufficient privileges: {reason}{how_to_provide(held)}")
        if held.matches and _is_foreign(record, held, self._trust):
            wanted.path_ids = list(held.path_ids)  # the author of the matches stays their owner
        return wanted

    def may_remove(self, record: NetworkService, held: NetworkService) -> bool:
        """The owner may remove it; a service that a person applied stays."""
        if self._by_hand and not held.path_ids:
            return False
        if self._is_taken(record, held, keeps_matches=False):
            raise _foreign(held, self._trust)
        return True

    def _is_taken(self, record: NetworkService, held: NetworkService, *, keeps_matches: bool) -> bool:
        """Whether it belongs to another identity: while it is provided or, as matches direct clients, if it has any."""
        if not self._owned or not _is_foreign(record, held, self._trust):
            return False
        return bool(held.matches and not keeps_matches) or self._is_provided(held.name)


def _is_foreign(record: Record, held: Record, trust: Trust) -> bool:
    return bool(held.path_ids) and owners_of(record, trust) != owners_of(held, trust)


def _foreign(held: Record, trust: Trust) -> Refused:
    owner = owner_name(owners_of(held, trust))
    return Refused(f"no sufficient privileges: client_allowed: {held.name!r} was registered by {owner}")
