"""Network namespaces travel as descriptors: a path means nothing to another process, an open file does.

In a message a namespace is ``file:///proc/..`` where it can be opened, and ``inode://device/inode`` while it travels,
with the descriptor itself beside the message. A name from a peer is never a path (the transport refuses those), and
a descriptor has to arrive over the same connection of the transport: those of other connections are out of reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INODE_URL, KERNEL
from nsm.chains.core import (
    Call,
    Element,
    FileKey,
    Handler,
    Inbox,
    InvalidRequest,
    Key,
    Limits,
    Peer,
    Received,
    Refused,
    Store,
    file_key,
    inode_url,
    shown_url,
)
from nsm.chains.core.named_files import mechanisms_of, refuse_paths

from .idle import hold
from .mechanism_translation import MechanismTranslation

ARRIVAL_TIMEOUT = 2.0
"""Seconds to wait for a descriptor; it is sent before the message that names it."""

PassesOn = Callable[[Peer], Awaitable[bool]]
"""Whether a peer passes on namespaces of others and has checked their senders itself: a node's manager."""


class SendDescriptors(Element):
    """For a client chain: send the namespaces that the request names, and restore the caller's names for them."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``file:`` to ``inode:`` on the way out, and back in the answer."""
        outgoing = len(call.outgoing)
        sent = _send(call, mechanisms_of(call.request))
        back = {inode: file for file, inode in sent.items()}
        try:
            connection = await rest.request(call)
        except BaseException:  # the call may go to another component next
            for mechanism in mechanisms_of(call.request):
                _rename(mechanism, back)
            del call.outgoing[outgoing:]
            raise
        _rename(connection.mechanism, back)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate on the way out; a namespace that is not open any more is not named.

        The peer counts on a descriptor for each name, and would take the one of another request that was just sent.
        """
        mechanisms = mechanisms_of(call.request)
        sent = set(_send(call, mechanisms).values())
        for mechanism in mechanisms:
            if mechanism.parameters.get(INODE_URL) not in sent:
                mechanism.parameters.pop(INODE_URL, None)
        await rest.close(call)


class ReturnDescriptors(Element):
    """For a server chain: send the namespace that the answer names."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``file:`` to ``inode:`` in the answer."""
        connection = await rest.request(call)
        if connection.mechanism is not None:
            _send(call, [connection.mechanism])
        return connection


class ReceiveDescriptors(Element):
    """For a server chain: take the namespaces that a request names; they are closed while the connection is idle.

    A caller names a namespace by a descriptor that it sends, and may send those that it is entitled to: see
    `Received.check_namespace`, which also explains `unchecked`. A peer that `passes_on` has checked that itself.
    """

    def __init__(
        self, *, unchecked: bool = False, passes_on: PassesOn | None = None, limits: Limits | None = None
    ) -> None:
        self._taken = _Taken("received descriptors", unchecked=unchecked)
        self._passes_on, self._most = passes_on, (limits or Limits()).namespaces

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``inode:`` to ``file:`` on the way in, and back in the answer and in the request."""
        mechanisms = mechanisms_of(call.request)
        self._count(mechanisms)
        if call.peer is not None:
            refuse_paths(call.request, "the caller's")
        try:
            await self._taken.take(call, mechanisms, call.peer, self._passes_on)
            try:
                connection = await rest.request(call)
            except BaseException:  # the call may go to another component next
                self._taken.name_as_peer(call.live, mechanisms_of(call.request))
                raise
            self._taken.name_as_peer(call.live, [connection.mechanism, *mechanisms_of(call.request)])
            self._taken.keep(call.live, [connection.mechanism])
        finally:  # a request that fails may be the last one of a workload that ends
            hold(call.live, self, partial(self._let_go, call.live))
        return connection

    async def _let_go(self, store: Store) -> None:
        self._taken.release(store)

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate, and release the files at the end."""
        self._taken.name_as_file(call.live, mechanisms_of(call.request))
        try:
            await rest.close(call)
        finally:
            self._taken.release(call.live)

    def _count(self, mechanisms: Iterable[Mechanism]) -> None:
        named = {url for mechanism in mechanisms if (url := mechanism.parameters.get(INODE_URL))}
        if len(named) > self._most:
            raise InvalidRequest(f"the request names {len(named)} namespaces; the limit 'namespaces' is {self._most}")


class ReceiveReturned(Element):
    """For a client chain: take the namespace that the answer names.

    The answering process has to be entitled to it, unless the chain only `passes_on` its answers. It stays open as
    long as the connection lives, unless the chain is known to need its name only until the answer is given: then it is
    closed while the connection is idle. That is so if no element of the chain remembers the name (`forgets`), or if
    only `far_side` does.
    """

    def __init__(
        self,
        *,
        unchecked: bool = False,
        passes_on: bool = False,
        far_side: MechanismTranslation | None = None,
        forgets: bool = False,
    ) -> None:
        self._lets_go = forgets or far_side is not None
        self._taken = _Taken("returned descriptors", unchecked=unchecked)
        self._passes_on = _always if passes_on else None
        self._far_side = far_side

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``file:`` back to the peer's name on the way out, ``inode:`` to ``file:`` in the answer."""
        self._taken.name_as_peer(call.live, [call.connection.mechanism])
        call.keeps_files = True
        connection = await rest.request(call)
        try:
            if connection.mechanism is not None:
                await self._taken.take(call, [connection.mechanism], call.server_peer, self._passes_on)
                self._taken.keep(call.live, [connection.mechanism])
        finally:
            if call.inbox is not None:
                for key in call.named:
                    call.inbox.settle(*key)
            if self._lets_go:
                hold(call.live, self, partial(self._let_go, call.live))
        return connection

    async def _let_go(self, store: Store) -> None:
        if self._far_side is not None:
            self._taken.name_as_peer(store, [self._far_side.kept(store)])
        self._taken.release(store)

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate back, and release the files."""
        self._taken.name_as_peer(call.live, [call.connection.mechanism])
        try:
            await rest.close(call)
        finally:
            self._taken.release(call.live)


@dataclass(slots=True)
class _File:
    """A descriptor that a connection of the mesh holds, and the connection of the transport that it arrived by."""

    received: Received
    inbox: Inbox
    is_kept: bool = False

    @property
    def url(self) -> str:
        return f"file://{self.received.path}"


class _Taken:
    """The descriptors that peers sent for a connection, by the URLs that they named them by."""

    def __init__(self, name: str, *, unchecked: bool) -> None:
        self._files: Key[dict[str, _File]] = Key(name)
        self._unchecked = unchecked

    async def take(
        self, call: Call, mechanisms: Iterable[Mechanism], peer: Peer | None, passes_on: PassesOn | None
    ) -> None:
        """Replace each ``inode:`` URL by a path of the received file; one that the connection has is used again.

        Raises `Refused` if its sender is not entitled to a namespace, `InvalidRequest` if it did not arrive.
        """
        store = call.live
        if (files := store.get(self._files)) is None:
            files = store.put(self._files, {})
            store.on_end(lambda: self.release(store))
        named = {mechanism.parameters.get(INODE_URL) for mechanism in mechanisms}
        _drop(files, [url for url, file in files.items() if not file.is_kept and url not in named])
        try:
            await self._take_all(files, mechanisms, call, peer, passes_on)
        except BaseException:
            _drop(files, [url for url, file in files.items() if not file.is_kept])
            raise

    async def _take_all(
        self,
        files: dict[str, _File],
        mechanisms: Iterable[Mechanism],
        call: Call,
        peer: Peer | None,
        passes_on: PassesOn | None,
    ) -> None:
        taken: set[str] = set()
        for mechanism in mechanisms:
            url = mechanism.parameters.get(INODE_URL, "")
            if (key := file_key(url)) is None or (peer is None and call.inbox is None and url not in files):
                continue
            if url not in taken:  # a client that resumes a connection names it twice and sends it once
                await self._take_one(files, url, key, call, peer)
                taken.add(url)
            file = files[url]
            if not file.received.is_socket and peer is not None and not (passes_on and await passes_on(peer)):
                file.received.check_namespace(unchecked=self._unchecked)
            elif mechanism.type == KERNEL and file.received.is_socket:
                raise InvalidRequest(f"{shown_url(url)} is a socket; a kernel interface needs a network namespace")
            mechanism.parameters[INODE_URL] = file.url

    async def _take_one(self, files: dict[str, _File], url: str, key: FileKey, call: Call, peer: Peer | None) -> None:
        """Take the file; a peer that returns over another connection has to send it there too."""
        held = files.get(url)
        if (peer is None and held is not None) or (held is not None and held.inbox is call.inbox):
            return
        if call.inbox is None:
            raise Refused(f"{shown_url(url)} names a descriptor, which only unix sockets carry; this is none")
        received = await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
        if held is None:
            files[url] = _File(received, call.inbox)
        else:
            received.release()

    def name_as_peer(self, store: Store, mechanisms: Iterable[Mechanism | None]) -> None:
        """Translate ``file:`` to the peer's name for it."""
        names = {file.url: url for url, file in (store.get(self._files) or {}).items()}
        for mechanism in mechanisms:
            _rename(mechanism, names)

    def name_as_file(self, store: Store, mechanisms: Iterable[Mechanism | None]) -> None:
        """Translate the peer's name for it to ``file:``."""
        names = {url: file.url for url, file in (store.get(self._files) or {}).items()}
        for mechanism in mechanisms:
            _rename(mechanism, names)

    def keep(self, store: Store, mechanisms: Iterable[Mechanism | None]) -> None:
        """Keep the file that the connection chose, close the rest."""
        files = store.get(self._files) or {}
        used = {mechanism.parameters.get(INODE_URL) for mechanism in mechanisms if mechanism is not None}
        for url, file in files.items():
            file.is_kept = url in used or file.url in used
        _drop(files, [url for url, file in files.items() if not file.is_kept])

    def release(self, store: Store) -> None:
        """Release all files."""
        files = store.pop(self._files) or {}
        _drop(files, [*files])


def _drop(files: dict[str, _File], urls: Iterable[str]) -> None:
    for url in urls:
        files.pop(url).received.release()


async def _always(_peer: Peer) -> bool:
    return True


def _send(call: Call, mechanisms: Iterable[Mechanism]) -> dict[str, str]:
    """Queue the descriptor of each ``file:`` URL: a file of this component's own, or one that it received.

    Returns the URL that names it in the message.
    """
    sent = {}
    for mechanism in mechanisms:
        url = mechanism.parameters.get(INODE_URL, "")
        if url.startswith("file://"):
            path = url.removeprefix("file://")
            sent[url] = mechanism.parameters[INODE_URL] = inode_url(path)
            call.outgoing.append(path)
    return sent


def _rename(mechanism: Mechanism | None, names: dict[str, str]) -> None:
    if mechanism is not None and (url := mechanism.parameters.get(INODE_URL)) in names:
        mechanism.parameters[INODE_URL] = names[url]
