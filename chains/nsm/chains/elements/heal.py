"""Restores a client's connection when something on its path fails, with as little change as possible.

| control plane | data plane | what is done |
| --- | --- | --- |
| up | up | nothing |
| down | up | a Request for the same connection: same endpoint, same interface, no packet lost |
| up or down | down | a Request with reselection: endpoint and mechanism are chosen again |

The control plane is down when the peer reports the connection as DOWN or deleted, or when its monitor stream breaks.
The data plane is down when a check of the wire fails or the client's end of it goes down. Without checks it is unknown
whether packets pass, and a control plane that is down means reselection.
A check that cannot find out (see `Liveness`) means reselection only if the endpoint cannot be found or reached.
A forwarder may report that the namespace at the other end no longer exists: then nothing needs to be checked.

While a component on the path reports that it repairs the wire (see `LiveWire.begin_repair`), lost packets mean nothing
for `REPAIR` seconds. There is one such wait until a check succeeds again: no one can hold a client up by reports.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from nsm.apis import codec
from nsm.apis.connection import Connection, ConnectionEventType, PathSegment, State
from nsm.chains.core import Backoff, Call, Element, Handler, Key, MeshError, NotFound, Store, Unavailable, counts
from nsm.chains.logs import log
from nsm.chains.model.causes import HEALING as HEALING_CODE
from nsm.chains.model.causes import Cause, cause_in, remove_cause
from nsm.chains.transport import Monitors, Subscription

from .liveness import Liveness
from .monitor import DOWNSTREAM, UNHEARD, ended_in, fault_in
from .refresh import HEALING, choose_anew

HEALS = counts.Count("nsm_heals", "Connections that the client began to restore", "cause")
HEAL_SECONDS = counts.Spread("nsm_heal_duration_seconds", "From noticing that a connection broke until it was restored")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two attempts: after the first failure, and at most."""
SPREAD = 0.1
"""Seconds within which clients that lost the same endpoint send their requests, each at a random moment."""
SUSPICION = 1.0
"""Seconds after a report of DOWN for which the `quick` check is used: a workload ends in several steps."""
HEAD_START = (0.1, 0.3)
"""Seconds, at least and at most, before the first check after such a report: links may vanish with an endpoint, and a
forwarder reports the end of its namespace."""
REPAIR = 10.0
"""Seconds at most for which packets may be lost while a component on the path repairs the wire."""
STEADY = 1.0
"""Seconds for which a healed connection has to stay up before pauses start again at the first one.

One that has moved to another endpoint, and passed packets to that, breaks for a reason of its own.
"""

_NAME, _REMEDY = "heal", "nothing, if it comes up again; `nsm ping` and `nsm capture` show where packets are lost"


class Heal(Element):
    """Restore a connection whose control plane or data plane failed, until that succeeds or the connection is closed.

    `liveness` checks the wire every `interval` seconds; `quick` waits for a shorter time, and is used just after the
    peer reported that a component behind it is gone. A new wire has `first` seconds for its first answer: a handshake
    or a neighbor's address that a bad line loses is asked for again. Attempts follow one another with growing pauses.
    With `timeout` they end after that many seconds; the first later success of a refresh is watched again.

    A connection that the mesh reports as REFRESH_REQUESTED or RESELECT_REQUESTED is requested at once.
    """

    def __init__(
        self,
        monitors: Monitors,
        liveness: Liveness | None = None,
        *,
        quick: Liveness | None = None,
        interval: float = 0.2,
        timeout: float | None = None,
        first: float = 0.0,
    ) -> None:
        self.monitors, self.liveness, self.quick = monitors, liveness, quick or liveness
        self.interval, self.timeout, self.first = interval, timeout, first
        self._watched: Key[_Watched] = Key("healing")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Watch the connection in the answer. A failed Request does not end the watching."""
        store = call.live
        if (watched := store.get(self._watched)) is not None:
            watched.tell_why(call.connection)
        connection = await rest.request(call)
        _forget_why(connection)
        store.setdefault(self._watched, lambda: _Watched(self, store)).stands(connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Stop watching. A connection that was closed for reselection is not closed again before the next success."""
        watched = call.live.get(self._watched)
        if watched is not None and watched.is_let_go:
            return
        if watched is not None:
            watched.rests()
        await rest.close(call)
        if watched is not None:
            watched.is_let_go = True

    async def aclose(self) -> None:
        """End the monitor streams."""
        await self.monitors.aclose()


class _Watched:
    """One connection: how it is watched, and the healing that is under way."""

    def __init__(self, heal: Heal, store: Store) -> None:
        self._heal, self._store = heal, store
        self._connection = Connection()
        self._is_watched = False
        self._subscription: Subscription | None = None
        self._unwatch: Callable[[], None] | None = None
        self._poll: Key[None] = Key("check of the wire")
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._healed_at, self._has_moved, self._has_passed = -STEADY, False, False
        """When it was healed last, whether by another endpoint, and whether packets have passed on this wire."""
        self._first_until = 0.0
        """When this wire has to have answered for the first time; 0 once it has."""
        self._fault = ""
        """What is being repaired by a component on the path."""
        self._repaired_by, self._may_wait = 0.0, True
        """Until when lost packets mean nothing; and whether a repair that begins now is waited for."""
        self._healing: _Healing | None = None
        self._next: _Healing | None = None
        """What failed after the current healing received its answer."""
        self.is_let_go = False
        """It was closed, and no Request has succeeded since: there is nothing to close."""
        store.on_end(self.rests)

    def tell_why(self, asked: Connection) -> None:
        """Put into our segment of a request that heals why it is made: only a client knows about the data plane."""
        if (healing := self._healing) is not None and (own := _own_segment(asked)) is not None:
            own.metrics.update(Cause(HEALING_CODE, healing.cause, _REMEDY, _NAME, is_healing=True).metrics())

    # --- watching

    def stands(self, connection: Connection) -> None:
        """A Request succeeded: watch the connection as it is now."""
        if _wire(connection) != _wire(self._connection):
            self._first_until, self._has_passed = _now() + self._heal.first, False
        self._connection, self._is_watched, self.is_let_go = codec.clone(connection), True, False
        self._next = None
        self._repairing(fault_in(connection))
        if self._healing is not None:
            self._healing.is_answered = True
        self._listen(self._store.get(DOWNSTREAM))
        if (liveness := self._heal.liveness) is not None:
            self._stop_watching_link()
            self._check_later()
            self._unwatch = liveness.watch(self._connection, self._link_down)

    def rests(self) -> None:
        """The connection is closed: stop watching it."""
        self._is_watched = False
        self._store.unschedule(self._poll)
        self._stop_watching_link()
        self._listen(None)

    def heard(self, kind: ConnectionEventType, theirs: Connection) -> None:
        """The peer reported a state of the connection."""
        self._repairing(fault_in(theirs))
        if theirs.state == State.RESELECT_REQUESTED:
            self._begin(_Healing("reselect requested", "the mesh requests another endpoint", reselects=True))
        elif theirs.state == State.REFRESH_REQUESTED:
            self._begin(_Healing("refresh requested", "the mesh requests a refresh"))
        elif ended := ended_in(theirs):
            self._begin(_Healing("namespace gone", ended, reselects=True))
        elif kind == ConnectionEventType.DELETE or theirs.state == State.DOWN:
            wait = random.uniform(*HEAD_START)  # noqa: S311 - no secret
            self._control_down("reported down", _reported(theirs), self._heal.quick, head_start=wait)

    def lost(self, reason: str) -> None:
        """The monitor stream broke, or the peer no longer has the connection."""
        self._store.put(UNHEARD, self._subscription.target if self._subscription is not None else "")
        self._control_down("not heard from", reason, self._heal.liveness)

    def _listen(self, target: str | None) -> None:
        former = self._subscription
        if former is not None and not (former.is_live and former.target == target):
            former.end()
            former = self._subscription = None
        if former is None and target is not None:
            self._store.pop(UNHEARD)
            self._subscription = self._heal.monitors.listen(target, self._connection, self)

    def _stop_watching_link(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def _check_later(self) -> None:
        self._store.schedule(self._poll, _now() + self._heal.interval, self._check)

    def _repairing(self, fault: str) -> None:
        """A component on the path repairs the wire, or no longer does."""
        if fault and not self._fault and self._may_wait:
            self._may_wait, self._repaired_by = False, _now() + REPAIR
            log.info("a wire is being repaired", reason=fault, **self._about())
        elif not fault:
            self._repaired_by = min(self._repaired_by, _now())  # checks that have begun before that mean nothing
        self._fault = fault

    async def _check(self) -> None:
        liveness, checked, begun = self._heal.liveness, self._connection, _now()
        assert liveness is not None
        if self._unwatch is None and begun >= self._repaired_by:
            self._unwatch = liveness.watch(checked, self._link_down)
        is_alive = await liveness.is_alive(checked)
        if not self._is_watched or checked is not self._connection:
            return  # it was closed, or answered anew, meanwhile
        if is_alive:
            self._first_until, self._has_passed, self._may_wait = 0.0, True, True
        if is_alive is not False or _now() < self._first_until or begun < self._repaired_by:
            self._check_later()
        else:
            self._data_down("packets lost", "no packets come back")

    def _control_down(self, kind: str, cause: str, check: Liveness | None, *, head_start: float = 0.0) -> None:
        reselects = self._heal.liveness is None
        head_start = 0.0 if reselects else head_start
        self._begin(_Healing(kind, cause, reselects=reselects, check=check, head_start=head_start))

    def _link_down(self, cause: str) -> None:
        if _now() < self._repaired_by:
            self._stop_watching_link()  # it is watched again after the repair, see `_check`
        else:
            self._data_down("link down", cause)

    def _data_down(self, kind: str, cause: str) -> None:
        self._begin(_Healing(kind, cause, reselects=True))

    # --- healing

    def _begin(self, healing: _Healing) -> None:
        """Start to heal. If a healing runs, only the loss of packets changes anything: then it reselects."""
        if not self._is_watched and self._healing is None:
            return
        if self._healing is None:
            self._healing = healing
            self._store.spawn(self._heal_it(healing), name="healing")
        elif self._healing.is_answered:
            self._next = healing
        elif healing.reselects:
            self._healing.reselect()

    async def _heal_it(self, healing: _Healing) -> None:
        self._store.put(HEALING, True)
        try:
            if not await self._is_answered_meanwhile():
                await self._in_rounds(healing)
        finally:
            self._healing = None
            self._store.pop(HEALING)
        if (following := self._next) is not None:
            self._next = None
            self._begin(following)

    async def _is_answered_meanwhile(self) -> bool:
        """Wait for the current call; if it succeeds, earlier observations are out of date."""
        connection = self._connection
        await self._store.events.run(_nothing)
        return connection is not self._connection

    async def _in_rounds(self, healing: _Healing) -> None:
        begun, endpoint = _now(), self._connection.network_service_endpoint_name
        HEALS.add(healing.kind)
        log.warning("a connection broke and is being healed", cause=healing.cause, **self._about())
        if begun - self._healed_at < STEADY and not (self._has_moved and self._has_passed):
            await healing.pause(self._backoff.next())
        else:
            self._backoff.reset()
            await healing.pause(healing.head_start)
        while not await self._succeeds(healing):
            pause = self._backoff.next()
            if self._heal.timeout is not None and _now() + pause >= begun + self._heal.timeout:
                log.warning("healing ends: it takes too long", timeout_s=self._heal.timeout, **self._about())
                return
            await healing.pause(pause)
        self._healed_at = _now()
        HEAL_SECONDS.observe(self._healed_at - begun)
        self._has_moved = self._connection.network_service_endpoint_name != endpoint
        log.info("a connection is healed", seconds=round(_now() - begun, 3), **self._about())

    async def _succeeds(self, healing: _Healing) -> bool:
        """One attempt."""
        if not healing.reselects and healing.check is not None:
            is_alive = await healing.check.is_alive(self._connection)
            is_cut = is_alive is False and _now() >= self._repaired_by
            healing.reselects, healing.is_blind = is_cut, is_alive is None
        if _now() - healing.begun >= SUSPICION:
            healing.check = self._heal.liveness
        if healing.reselects:
            await asyncio.sleep(random.uniform(0.0, SPREAD))  # noqa: S311 - no secret
        try:
            await self._store.events.request(reselect=choose_anew if healing.reselects else None)
        except MeshError as error:
            healing.is_answered = False
            if self._next is not None and self._next.reselects:
                healing.reselects = True
            if healing.is_blind and self._lacks_endpoint(error):
                healing.reselects = True
            self._next = None
            if str(error) != healing.told:
                healing.told = str(error)
                log.warning("a connection is not healed yet", error=str(error), **self._about())
            return False
        return True

    def _lacks_endpoint(self, error: MeshError) -> bool:
        """Whether a Request came as far as the component before the endpoint, which could not find or reach it."""
        segments = self._connection.path.path_segments if self._connection.path is not None else []
        before = [segment.name for segment in segments[-2:-1]]
        return isinstance(error, NotFound | Unavailable) and bool(before) and list(error.hops[-1:]) == before

    def _about(self) -> dict[str, str]:
        known = self._connection
        endpoint = known.network_service_endpoint_name
        return {"connection": self._store.connection_id, "service": known.network_service, "endpoint": endpoint}


class _Healing:
    """Why a connection is healed, as a kind for figures and as a sentence, and how.

    `check` finds out before an attempt without reselection if packets pass. The first attempt starts after `head_start`
    seconds.
    """

    def __init__(
        self, kind: str, cause: str, *, reselects: bool = False, check: Liveness | None = None, head_start: float = 0.0
    ) -> None:
        self.kind, self.cause = kind, cause
        self.reselects, self.check, self.head_start = reselects, check, head_start
        self.begun, self.told, self.is_answered = _now(), "", False
        self.is_blind = False
        """The last check could not find out whether packets pass."""
        self._wake = asyncio.Event()

    def reselect(self) -> None:
        """Packets do not pass: reselect from now on, without waiting."""
        if not self.reselects:
            self.reselects = True
            self._wake.set()

    async def pause(self, seconds: float) -> None:
        """Wait before an attempt."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()


def _reported(theirs: Connection) -> str:
    """Why a connection is down, as the component reports it that is furthest away and gives a reason."""
    segments = theirs.path.path_segments if theirs.path is not None else []
    for segment in reversed(segments):
        if (cause := cause_in(segment.metrics)) is not None:
            return f"{cause.component or segment.name} reports the connection as down: {cause.sentence}"
    return "a component on the path reports the connection as down"


def _own_segment(connection: Connection) -> PathSegment | None:
    path = connection.path
    return path.path_segments[path.index] if path is not None and path.index < len(path.path_segments) else None


def _forget_why(connection: Connection) -> None:
    """Remove from an answer why it was requested."""
    if (own := _own_segment(connection)) is not None and own.metrics:
        remove_cause(own.metrics)


async def _nothing() -> None:
    """Do nothing."""


def _wire(connection: Connection) -> tuple[str, object]:
    """What another wire differs in: where it leads to, and its addresses."""
    ip = connection.context.ip_context if connection.context is not None else None
    return connection.network_service_endpoint_name, ip and (ip.src_ip_addrs, ip.dst_ip_addrs)


def _now() -> float:
    return asyncio.get_running_loop().time()
