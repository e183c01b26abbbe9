"""Who may register a name, and remove it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nsm.apis import codec
from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Key, Peer, R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.logs import log
from nsm.chains.policy import (
    NO_TRUST,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    Path,
    PolicySet,
    Trust,
    documents,
    owner_name,
    owner_of,
    refusal_of_answer,
)

from .provided import is_provided
from .succession import may_succeed
from .taken_names import KeptNames, Names, origin_of


@dataclass(frozen=True)
class _Owner:
    """The owner of a name, and the record as registered."""

    identities: tuple[str, ...]
    record: object


class RegistryAuthorize(RegistryElement[R]):
    """Check the tokens of the path, and that the name is free or belongs to the caller.

    A name belongs to the first identity that registered it: `call.owner`, as far back in the path as components on it
    may vouch for others by `trust`. Ownership ends with the registration. Others may register the same network service
    with equal content, because several endpoints with different identities provide it. While none of `endpoints` does,
    anyone may change its payload and becomes its owner, unless it has matches: only the owner changes those.

    A forwarder's successor takes over its name (see `succession`).

    Find is not checked. Place it behind the chain's begin element. With `keeps_owners` False, ownership is left to the
    store of the records: kept in two components, a name could be freed in one and still taken in the other.
    """

    def __init__(
        self,
        masks: Iterable[str] = REGISTRY_SERVER_MASKS,
        trust: Trust = NO_TRUST,
        *,
        keeps_owners: bool = True,
        endpoints: RegistryHandler[NetworkServiceEndpoint] | None = None,
        names: Names | None = None,
    ) -> None:
        """`names` returns registered names if a store knows them; policies in files may read them."""
        self._policies = PolicySet.select(masks, "NSM_REGISTRY_SERVER_POLICIES")
        self._trust = trust
        self._keeps_owners = keeps_owners and self._policies.client_allowed
        self._owner: Key[_Owner] = Key("owner")
        self._endpoints = endpoints
        self._names = names or (KeptNames() if self._policies.files else None)

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` if a policy refuses the call or the name belongs to another identity."""
        if call.peer is None:
            return await rest.register(call)
        await self._check(call, call.peer, closing=False)
        asked = codec.clone(call.record)
        record = await rest.register(call)
        if self._keeps_owners:
            self._own(call, asked)
        if isinstance(self._names, KeptNames):
            self._names.keep(call, record)
        return record

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Raise `Refused` likewise, but accept expired tokens."""
        if call.peer is not None:
            await self._check(call, call.peer, closing=True)
        await rest.unregister(call)

    def _own(self, call: RegistryCall[R], asked: R) -> None:
        """Make the caller the owner, unless it only repeats a registered service, or the service has matches."""
        owner = call.live.get(self._owner)
        if owner is not None and owner.identities != call.owner and isinstance(asked, NetworkService):
            if not difference(asked, owner.record):
                return
            if _has_matches(owner.record):
                call.live.put(self._owner, _Owner(owner.identities, asked))
                return
        call.live.put(self._owner, _Owner(call.owner, asked))

    async def _check(self, call: RegistryCall[R], peer: Peer, *, closing: bool) -> None:
        tokens = call.path.tokens[: call.path.index + 1]
        call.owner = await owner_of(tokens, call.path.index, peer, self._trust)
        call.origin = call.owner[-1]
        reason = await self._refusal(call, Path(tokens, call.path.index, peer), closing=closing)
        if reason is None and self._policies.files:
            document = self._document(call, tokens, peer)
            reason = await self._policies.refusal_by_files(document, peer, origin=call.origin, closing=closing)
        if reason is not None:
            raise Refused(f"no sufficient privileges: {reason}")

    def _document(self, call: RegistryCall[R], tokens: Sequence[str], peer: Peer) -> documents.Document:
        name = None if any(file.source.wants_all_names for file in self._policies.files) else call.record.name
        owners = self._names(name) if self._names is not None else {}
        return documents.of_registration(
            call.record.name, tokens, call.path.index, peer, owner=call.origin, owners=owners
        )

    async def _refusal(self, call: RegistryCall[R], path: Path, *, closing: bool) -> str | None:
        if not self._policies:
            return None
        return self._policies.refusal_of_caller(path, closing=closing) or await self._foreign(call, closing=closing)

    async def _foreign(self, call: RegistryCall[R], *, closing: bool) -> str | None:
        owner = call.live.get(self._owner) if self._keeps_owners else None
        if owner is None or owner.identities == call.owner:
            return None
        other = "" if closing else difference(call.record, owner.record)
        if isinstance(call.record, NetworkService):
            if not closing and not other:
                return None
            is_bound = _has_matches(owner.record) and (closing or not _has_same_matches(call.record, owner.record))
            if not is_bound and not await self._is_provided(call.record.name):
                return None
        if not closing and may_succeed(call.record, call.owner, owner.record, owner.identities, self._trust):
            log.info(
                "a successor takes over",
                name=call.record.name,
                of=owner_name(owner.identities),
                by=owner_name(call.owner),
            )
            return None
        if other:
            taken = taken_service(
                call.record.name, owner_name(owner.identities), f"{owner_name(call.owner)} registers it with {other}"
            )
            return taken + how_to_provide(owner.record)
        return (
            f"client_allowed: {call.record.name!r} was registered by {owner_name(owner.identities)}; "
            f"this call is of {owner_name(call.owner)}{'' if closing else how_to_provide(owner.record)}"
        )

    async def _is_provided(self, service: str) -> bool:
        return self._endpoints is None or await is_provided(self._endpoints, service)


class RegistryAuthorizeClient(RegistryElement[R]):
    """Check the peer that answered a Register, by the returned tokens; if refused, a first Register is undone."""

    def __init__(self, masks: Iterable[str] = REGISTRY_CLIENT_MASKS) -> None:
        self._policies = PolicySet.select(masks, "NSM_REGISTRY_CLIENT_POLICIES")
        self._authorized: Key[bool] = Key("authorized")
        self._names = KeptNames() if self._policies.files else None

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` if a policy refuses the answer."""
        record = await rest.register(call)
        if call.server_peer is None:
            return record
        document = partial(self._document, call, record)
        reason = await refusal_of_answer(self._policies, call, call.path.tokens, call.path.index, document)
        if reason is not None:
            if not call.live.get(self._authorized):
                call.undo.add(lambda: rest.unregister(call.postponed()))
            raise Refused(f"the answer has no sufficient privileges: {reason}")
        call.live.put(self._authorized, True)
        if isinstance(self._names, KeptNames):
            self._names.keep(call, record)
        return record

    def _document(self, call: RegistryCall[R], record: R, peer: Peer) -> documents.Document:
        owners = self._names(None) if self._names is not None else {}
        return documents.of_registration(
            record.name, call.path.tokens, call.path.index, peer, owner=origin_of(call), owners=owners
        )


def how_to_provide(registered: object) -> str:
    """How an endpoint can provide a service that another identity registered; the end of a refusal."""
    if not isinstance(registered, NetworkService):
        return ""
    what = f"payload {registered.payload or 'IP'} and {len(registered.matches)} matches"
    return (
        "; an endpoint may provide this service without registering it (NSM_REGISTER_SERVICE=false), "
        f"or register it as it is, with {what}"
    )


def difference(record: Any, registered: Any) -> str:
    """How `record` differs from a registered network service; empty if it does not."""
    if not isinstance(record, NetworkService) or not isinstance(registered, NetworkService):
        return ""
    says, was = record.payload or IP, registered.payload or IP
    if says != was:
        return f"payload {says}, but it has payload {was}"
    return "" if _has_same_matches(record, registered) else "other matches"


def taken_service(name: str, owner: str, other: str) -> str:
    """The refusal of a Register that contradicts a registered service."""
    return f"client_allowed: network service {name!r} was registered by {owner}; {other}"


def _has_matches(registered: object) -> bool:
    return isinstance(registered, NetworkService) and bool(registered.matches)


def _has_same_matches(record: Any, registered: Any) -> bool:
    return bool(record.matches == registered.matches)
