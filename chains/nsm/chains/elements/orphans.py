"""Connections whose caller is away: kept for a while, since the two ends of the wire may still work.

A component refreshes its part of a connection while its caller vouches for it. Managers and forwarders are killed,
restarted, upgraded and cut off; the wire itself is in the kernels and needs none of them. So a connection whose
previous component *cannot be reached at all* becomes an orphan when that component's token ends: packets go on, and
this component keeps those behind it from ending the connection, by requesting it from them again.

What keeps that safe:

- Only a component that may vouch for others (`Trust`) is waited for: never a client. The first manager on the path of
  a killed client cleans up at its token's end.
- A component that can be reached and no longer vouches ends its connections at the token's end. One that has just
  returned gets `GRACE` for its clients to request again. Its successor may have another identity, and no reason to
  connect to this component: so an orphan's component also looks for signs of life (`Orphans.looks_by`).
- A component that was restarted cannot vouch while one before it is away. So its connections are kept while there is no
  new sign of life of a forwarder further ahead on the path (`Orphans.is_explained`).
- A request for an orphan to the components behind only confirms that the connection still exists: anything else in
  such a request is replaced by the earlier state (`Orphans.accept`).
- Expired tokens are accepted only if they are exactly those that were valid when the connection was last requested,
  from a verified caller that may vouch for others, and not for longer than `lifetime` after that.
- A component that was restarted meanwhile knows neither the connection nor those tokens. It passes such a request on to
  those behind it, which accept it only if they know both; if none of them does, the last one refuses.
- An authority that is no longer trusted ends the orphans of its identities.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nsm.apis import codec
from nsm.apis.connection import Path, PathSegment
from nsm.chains.config import Common, duration, variable
from nsm.chains.core import Call, Key, MeshError, Peer, Presence, Store
from nsm.chains.identity import Identity, trust_domain_of
from nsm.chains.policy import LEEWAY, Trust, claims_of

_LOOK = 4.0
"""Seconds between two searches for the same component."""
GRACE = 20.0
"""Seconds that clients have to request again by a component that has returned: they try at least every five."""


@dataclass(frozen=True, kw_only=True)
class Keeping(Common):
    """The settings of every component that holds connections of others."""

    orphan_lifetime: float = variable(
        "24h", duration, "how long a wire is kept whose manager or forwarder cannot be reached; 0: until its token ends"
    )


@dataclass(frozen=True, slots=True)
class Vouched:
    """The last request for a connection all of whose tokens were valid."""

    tokens: tuple[str, ...]
    """Those of the segments before this component's."""
    peer: Peer
    names: tuple[str, ...]
    """The names of the segments before this component's: the successor of a component has the same."""
    when: float
    """Loop time."""
    bundle: object
    """The authorities of the peer's trust domain at that time."""

    @property
    def name(self) -> str:
        """That of the peer's segment."""
        return self.names[-1] if self.names else ""


Signs = Callable[[str], Awaitable[object]]
"""The latest sign of life of the component with this name, different for each one; None if there is none."""


@dataclass(frozen=True, slots=True)
class _Absence:
    """The last sign of life before its absence, or the first one after it, since when (loop time) there is one."""

    sign: object
    over_since: float | None = None


@dataclass(slots=True)
class _Ahead:
    """The forwarders before the previous component."""

    signs: dict[str, object]
    """Their last signs of life, by name."""
    alive_since: float | None = None
    """Since when (loop time) all of them have newer ones."""


class Orphans:
    """Decides for how long a component keeps connections whose previous component is away."""

    def __init__(self, lifetime: float, identity: Identity, presence: Presence, trust: Trust) -> None:
        self.lifetime, self._identity, self._presence, self._trust = lifetime, identity, presence, trust
        self._vouched: Key[Vouched] = Key("last valid request")
        self._absence: Key[_Absence] = Key("absence of the component that vouched last")
        self._ahead: Key[_Ahead] = Key("forwarders before the component that vouched last")
        self._signs: Signs | None = None
        self._signs_ahead: Signs | None = None
        self._seen: dict[str, tuple[float, object]] = {}
        """Signs by name, and when they were looked up."""
        self._was_cut_off = float("-inf")

    def looks_by(self, signs: Signs, *, ahead: Signs | None = None) -> None:
        """Look for absent components by `signs`, besides channels; an exception counts as no sign.

        Those for forwarders further ahead on the path are `ahead`, if they are others.
        """
        self._signs, self._signs_ahead = signs, ahead or signs

    # --- requests

    def note(self, store: Store, before: Sequence[PathSegment], peer: Peer) -> None:
        """A request of `peer` was valid in every respect, and has succeeded; `before` are the segments before ours."""
        bundle = self._identity.bundles.get(trust_domain_of(peer.spiffe_id))
        tokens, names = tuple(each.token for each in before), tuple(each.name for each in before)
        store.put(self._vouched, Vouched(tokens, peer, names, _now(), bundle))
        store.pop(self._absence)
        store.pop(self._ahead)

    def tokens_stand(self, call: Call, tokens: Sequence[str]) -> bool:
        """Whether a request may keep its connection, with `tokens` before our segment of which some have expired."""
        known, expired = call.live.get(self._vouched), self._last_expired(tokens)
        if known is None or call.standing is None or expired is None or not self.is_young(call.live):
            return False
        for position in range(expired + 1):
            if not _is_valid(tokens[position]) and tokens[position] not in known.tokens[position : position + 1]:
                return False
            if not self._is_same_subject(tokens[position], known.tokens, position):
                return False
        return True

    def may_pass(self, call: Call, tokens: Sequence[str]) -> bool:
        """Whether such a request for a connection that is unknown here may go to the components behind this one."""
        is_unknown = call.standing is None and call.live.get(self._vouched) is None
        return self.lifetime > 0 and is_unknown and bool(call.stood_behind()) and self._last_expired(tokens) is not None

    def _last_expired(self, tokens: Sequence[str]) -> int | None:
        """The place of the last expired token; None if there is none, or those behind may not vouch for the others."""
        expired = max((at for at, token in enumerate(tokens) if not _is_valid(token)), default=-1)
        holders = [claims_of(token) for token in tokens[expired + 1 :]]
        may_vouch = all(holder is not None and self._trust.matches(holder.subject) for holder in holders)
        return expired if expired >= 0 and holders and may_vouch else None

    def accept(self, call: Call) -> None:
        """Replace the request in `call` by the established connection; its path up to here stays.

        One for a connection that is unknown here stays as it is: the components behind replace it.
        """
        call.keeps_orphan = True
        if call.standing is None:
            return
        path, request = call.connection.path, codec.clone(call.standing)
        assert path is not None
        connection = request.connection
        assert connection is not None
        behind = connection.path.path_segments[path.index + 1 :] if connection.path is not None else []
        connection.path = Path(index=path.index, path_segments=[*path.path_segments[: path.index + 1], *behind])
        call.request = request

    def _is_same_subject(self, token: str, known: Sequence[str], position: int) -> bool:
        claims, before = claims_of(token), claims_of(known[position]) if position < len(known) else None
        if claims is None or before is None or claims.subject != before.subject:
            return False
        return bool(self._identity.bundles.get(trust_domain_of(claims.subject)))

    # --- the end

    def is_young(self, store: Store) -> bool:
        """Whether the last valid and successful request is within the lifetime of orphans."""
        known = store.get(self._vouched)
        return known is not None and _now() <= known.when + self.lifetime

    def wait(self, store: Store) -> float | None:
        """At the end of the caller's token: seconds to keep the connection before the next check; None: end it.

        A positive number is for a caller that has returned, and has that long to vouch again; 0 means an orphan.
        """
        known, now = store.get(self._vouched), _now()
        if self._identity.is_cut_off():
            self._was_cut_off = now
        if known is None or not self.is_young(store):
            return None
        if self._was_cut_off == now:
            return 0.0 if self._is_trusted(known) else None
        if (left := self._was_cut_off + GRACE - now) > 0:
            return left
        if not self.may_outlive(known.peer, len(known.tokens)):
            return None
        since = self._presence.since(known.peer.spiffe_id)
        if since is None:
            return 0.0 if self._is_trusted(known) else None
        return left if (left := since + GRACE - now) > 0 else None

    async def is_back(self, store: Store) -> bool:
        """Whether the component that vouched for an orphan, or its successor, lives, and had time to vouch again.

        It takes two new signs of life: with only one, it may have returned for a moment.
        """
        known, now = store.get(self._vouched), _now()
        if known is None or self._signs is None or now - self._was_cut_off < GRACE:
            return False
        sign = await self._sign_of(known.name, self._signs)
        absence = store.setdefault(self._absence, lambda: _Absence(sign))
        if absence.over_since is None:
            if sign is not None and sign != absence.sign:
                store.put(self._absence, _Absence(sign, now))
            return False
        if sign is None:  # it returned, and is away again
            store.put(self._absence, _Absence(None))
            return False
        return sign != absence.sign and now - absence.over_since >= GRACE

    async def look_ahead(self, store: Store) -> None:
        """Note which forwarders ahead of the previous component live at the moment."""
        known = store.get(self._vouched)
        look = self._signs_ahead
        if known is None or look is None:
            return
        before = store.get(self._ahead)
        signs = {name: await self._sign_of(name, look) for name in known.names[1:-1]}
        seen = {name: sign for name, sign in signs.items() if sign is not None or (before and name in before.signs)}
        store.put(self._ahead, _Ahead(seen))

    async def is_explained(self, store: Store) -> bool:
        """Whether the previous component, which answers, cannot vouch because a forwarder further ahead is away.

        One that lives gives a new sign of life; from then on clients have `GRACE` to request again.
        """
        known, ahead, now = store.get(self._vouched), store.get(self._ahead), _now()
        look = self._signs_ahead
        if known is None or look is None or ahead is None or not ahead.signs:
            return False
        if not (self.is_young(store) and self.may_outlive(known.peer, len(known.tokens)) and self._is_trusted(known)):
            return False
        signs = {name: await self._sign_of(name, look) for name in ahead.signs}
        if any(sign is None or sign == ahead.signs[name] for name, sign in signs.items()):
            ahead.alive_since = None
            return True
        ahead.alive_since = now if ahead.alive_since is None else ahead.alive_since
        return now - ahead.alive_since < GRACE

    async def _sign_of(self, name: str, look: Signs) -> object:
        """The current sign of life; many orphans share one component, which is looked up once."""
        looked, sign = self._seen.get(name) or (float("-inf"), None)
        if _now() - looked >= _LOOK:
            self._seen[name] = _now(), sign
            try:
                sign = await look(name)
            except MeshError:
                sign = None
            self._seen = {each: seen for each, seen in self._seen.items() if _now() - seen[0] < GRACE}
            self._seen[name] = _now(), sign
        return sign

    def may_outlive(self, peer: Peer, index: int) -> bool:
        """Whether connections may outlive the tokens of `peer`, which is before place `index` of their paths."""
        return self.lifetime > 0 and index > 1 and self._trust.matches(peer.spiffe_id)

    def is_callers_away(self, store: Store) -> bool:
        """Whether there is no channel to the component that vouched last."""
        known = store.get(self._vouched)
        return known is not None and self._presence.since(known.peer.spiffe_id) is None

    def previous(self, store: Store) -> str:
        """The component that vouched last, as text for logs."""
        known = store.get(self._vouched)
        return known.peer.spiffe_id if known is not None else ""

    def _is_trusted(self, known: Vouched) -> bool:
        """Whether the authorities that verified the caller are still the trusted ones."""
        bundle = self._identity.bundles.get(trust_domain_of(known.peer.spiffe_id))
        if bundle is known.bundle or (bundle is not None and bundle == known.bundle):
            return True
        return bool(bundle) and self._identity.would_verify(known.peer)


def _is_valid(token: str) -> bool:
    claims, now = claims_of(token), time.time()
    return claims is not None and claims.expires > now and claims.not_before <= now + LEEWAY


def _now() -> float:
    return asyncio.get_running_loop().time()
