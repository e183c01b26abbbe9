"""Who may register a name, and take it out again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nsm.apis import codec
from nsm.apis.registry import NetworkService
from nsm.chains.core import Key, R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.policy import (
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    Path,
    PolicySet,
    claims_of,
    refusal_of_answer,
)


@dataclass(frozen=True)
class _Owner:
    """Who registered a name, and as what."""

    spiffe_id: str
    record: object


class Authorize(RegistryElement[R]):
    """Check the caller by the tokens of the path, and that the name is its own or free.

    The owner of a name is kept with the registration, so it ends with it. A network service may be registered by
    others too as long as they say the same of it: several endpoints with identities of their own provide it.
    Find is not checked. Stands behind the chain's begin element; one whose `keeps_owners` is False needs none, and
    leaves names to a store that knows their owners.
    """

    def __init__(self, masks: Iterable[str] = REGISTRY_SERVER_MASKS, *, keeps_owners: bool = True) -> None:
        self._policies = PolicySet.select(masks)
        self._keeps_owners = keeps_owners and self._policies.client_allowed
        self._owner: Key[_Owner] = Key("owner")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` if a policy says no or the name is somebody else's."""
        if call.peer is None:
            return await rest.register(call)
        self._check(call, closing=False)
        asked, owner = codec.clone(call.record), origin(call)
        record = await rest.register(call)
        if self._keeps_owners and call.live.get(self._owner) is None:
            call.live.put(self._owner, _Owner(owner, asked))
        return record

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Raise `Refused` likewise; an expired token does not keep a name."""
        if call.peer is not None:
            self._check(call, closing=True)
        await rest.unregister(call)

    def _check(self, call: RegistryCall[R], *, closing: bool) -> None:
        path = Path(call.path.tokens[: call.path.index + 1], call.path.index, call.peer)
        reason = self._policies.refusal(path, closing=closing) or self._foreign(call, closing=closing)
        if reason is not None:
            raise Refused(f"no sufficient privileges: {reason}")

    def _foreign(self, call: RegistryCall[R], *, closing: bool) -> str | None:
        owner = call.live.get(self._owner) if self._keeps_owners else None
        if owner is None or owner.spiffe_id == origin(call):
            return None
        if not closing and _says_the_same(call.record, owner.record):
            return None
        return f"client_allowed: {call.record.name!r} was registered by {owner.spiffe_id}"


class AuthorizeClient(RegistryElement[R]):
    """Check who answered a Register, by the tokens of the path that came back; a first one is taken back if refused."""

    def __init__(self, masks: Iterable[str] = REGISTRY_CLIENT_MASKS) -> None:
        self._policies = PolicySet.select(masks)
        self._authorized: Key[bool] = Key("authorized")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` if a policy says no."""
        record = await rest.register(call)
        if call.server_peer is None:
            return record
        reason = await refusal_of_answer(self._policies, call, call.path.tokens, call.path.index)
        if reason is not None:
            if not call.live.get(self._authorized):
                call.undo.add(lambda: rest.unregister(call.postponed()))
            raise Refused(f"the answer has no sufficient privileges: {reason}")
        call.live.put(self._authorized, True)
        return record


def origin(call: RegistryCall[R]) -> str:
    """Who the registration comes from: the subject of the path's first token; empty if it has none."""
    claims = claims_of(call.path.tokens[0]) if call.path.tokens else None
    return claims.subject if claims else ""


def _says_the_same(record: object, registered: object) -> bool:
    return (
        isinstance(record, NetworkService)
        and isinstance(registered, NetworkService)
        and (record.payload or "IP") == (registered.payload or "IP")
        and record.matches == registered.matches
    )
