"""The state of one call: the message, the caller, the deadline, and the steps to undo if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nsm.apis import codec
from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp

from .descriptors import Inbox
from .peer import Peer
from .store import Cleanup, Store, run_cleanup
from .tasks import shielded

DEFAULT_TIMEOUT = 15.0
"""Seconds that a call may take if its caller set no deadline."""


@dataclass(frozen=True, slots=True)
class ClientToken:
    """The token that a caller sends with its call, and when it expires."""

    token: str
    expires: Timestamp


class Undo:
    """The steps taken so far on behalf of a call, and how to undo them."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[Cleanup] = []

    def add(self, step: Cleanup) -> None:
        """Register how to undo a step that was just taken (or is about to be)."""
        self._steps.append(step)

    def forget(self) -> None:
        """Keep all steps: none of them will be undone."""
        self._steps.clear()

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Undo all steps taken inside, last first and shielded, if the body raises or is cancelled."""
        mark = len(self._steps)
        try:
            yield
        except BaseException:
            await shielded(self._take_back(mark), name="undo")
            raise

    async def _take_back(self, mark: int) -> None:
        while len(self._steps) > mark:
            await run_cleanup(self._steps.pop(), "a call that failed")


@dataclass(slots=True, kw_only=True)
class Hop:
    """The state that calls of all APIs share: the caller, the deadline, the next hop, the steps to undo.

    A server's chain and the client chain that continues it have a call each: `target`, `server_peer`, `outgoing`
    and `inbox` belong to one hop.
    """

    deadline: float | None = None
    """Loop time (seconds, `loop.time()`) by which the caller needs the answer; None: it set no deadline."""
    peer: Peer | None = None
    """The previous hop, verified by TLS: at an endpoint, its node's forwarder. None for a call that this process makes.

    To limit or count clients use `origin`: all clients of a node share one `peer`.
    """
    origin: str = ""
    """SPIFFE ID of the client at the beginning of the path, as far back as those on the path may vouch for it.

    Set by the authorize element of a server's chain; empty for a call that this process makes. If a component on the
    path may not vouch for those before it, `origin` is that component, and `owner` has more than one identity.
    """
    owner: tuple[str, ...] = ()
    """The owner of whatever this call makes: `origin` last, behind those that it names and may not vouch for."""
    token: ClientToken | None = None
    """The token that the caller sent with this call."""
    size: int = 0
    """Bytes of the message as received; 0 for a call that this process itself makes."""
    target: str | None = None
    """URL of the next hop, for a client chain."""
    server_peer: Peer | None = None
    """The peer that answered, set by the transport when a client chain's call returns."""
    renew_peer: Callable[[], Awaitable[Peer]] | None = None
    """Finds out over a new connection who answered: its identity may have changed since the connection was made."""
    store: Store | None = None
    """The store of the connection (or registration), set by the chain's begin element."""
    undo: Undo = field(default_factory=Undo)
    outgoing: list[str] = field(default_factory=list)
    """Paths of files whose descriptors travel with what this hop sends: a client's request, a server's response."""
    inbox: Inbox | None = None
    """Where descriptors from the other side of this hop arrive; None if the transport carries none."""
    keeps_files: bool = False
    """A client element takes the descriptors of the answer; it settles those in `named`."""
    named: list[tuple[int, int]] = field(default_factory=list)
    """Device and inode of each file that the answer named, set by the transport for elements that keep files."""

    @property
    def live(self) -> Store:
        """The store. Raises RuntimeError in a chain that has no begin element before this one."""
        if self.store is None:
            raise RuntimeError("this element needs a begin element before it in the chain")
        return self.store

    def remaining(self) -> float | None:
        """Seconds until the deadline (0 if it has passed), or None if the caller set none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True)
class Stood:
    """Where a connection existed before, according to its caller: this process may have started since, and not know.

    A failed request does not end an existing connection. True if it existed anywhere: neither a new connection, nor one
    that is to be created again.
    """

    index: int
    """The id of the next component's segment in the path."""
    segment_id: str

    def __bool__(self) -> bool:
        return bool(self.segment_id)

    def goes_on(self, answer: Connection) -> bool:
        """Whether `answer` is from the component that had it before."""
        segments = answer.path.path_segments if answer.path is not None else ()
        return bool(self) and self.index < len(segments) and segments[self.index].id == self.segment_id


_NOWHERE = Stood(0, "")


@dataclass(slots=True)
class Call(Hop):
    """One Request or Close on its way through a chain; for a Close, `request` holds nothing but the connection.

    Elements change the message in place.
    """

    request: NetworkServiceRequest
    standing: NetworkServiceRequest | None = None
    """For a Request: the last answer for a connection that is already established. Must not be changed."""
    not_delivered: Callable[[], None] | None = None
    """To be called if the caller did not receive the answer: undoes the call, unless a later one repeated the request.

    Set by the begin element for the answer that establishes a connection.
    """
    is_unknown: bool = False
    """For a Close: the connection is unknown here. Whatever the call names is cleaned up, and passed on."""
    keeps_orphan: bool = False
    """For a Request: it only confirms a connection, and tokens before ours may have expired (see `Orphans`)."""
    continued: bool = False
    """A client chain continued from here: this component is not the last one of the path."""
    has_others: bool = False
    """For a Request: the target is one of several, and is not waited for if it was unreachable a moment ago."""
    candidates: Sequence[NetworkServiceEndpoint] = ()
    """Endpoints that may serve the call, best first."""
    weights: Sequence[int] = ()
    """The share of a service's calls that each of the candidates gets; empty: equal shares."""

    @property
    def connection(self) -> Connection:
        """The message's connection; created if the caller left it out."""
        if self.request.connection is None:
            self.request.connection = Connection()
        return self.request.connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self.request.connection = connection

    def stood_behind(self) -> Stood:
        """Where the connection existed before behind this component, according to its caller."""
        connection = self.request.connection
        if connection is None or connection.path is None or connection.state == State.RESELECT_REQUESTED:
            return _NOWHERE
        index = connection.path.index + 1
        behind = connection.path.path_segments[index : index + 1]
        return Stood(index, behind[0].id) if behind and behind[0].name else _NOWHERE

    def onward(self) -> Call:
        """The call that a client chain makes on behalf of this one: a copy of the message, the same store and undo."""
        return Call(
            codec.clone(self.request),
            deadline=self.deadline,
            target=self.target,
            store=self.store,
            undo=self.undo,
            is_unknown=self.is_unknown,
            keeps_orphan=self.keeps_orphan,
            has_others=self.has_others,
        )

    def postponed(self) -> Call:
        """A copy with a fresh deadline of the usual length: for cleaning up after this call has failed."""
        deadline = asyncio.get_running_loop().time() + DEFAULT_TIMEOUT
        return Call(codec.clone(self.request), deadline=deadline, target=self.target, store=self.store)
