"""Network namespaces travel as descriptors: a path means nothing to another process, an open file does.

In a message a namespace is ``file:///proc/..`` where it can be opened, and ``inode://device/inode`` while it travels,
with the descriptor itself beside the message. Where the transport carries no descriptors, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INODE_URL
from nsm.chains.core import Call, Element, Handler, Key, Received, Refused, Store, file_key, inode_url

ARRIVAL_TIMEOUT = 2.0
"""Seconds to wait for a descriptor; it is sent ahead of the message that names it."""


class SendDescriptors(Element):
    """For a client chain: send the namespaces that the request names, and give back the caller's own names for them."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``file:`` to ``inode:`` on the way out, and back in the answer."""
        outgoing = len(call.outgoing)
        sent = _send(call, _mechanisms(call))
        back = {inode: file for file, inode in sent.items()}
        try:
            connection = await rest.request(call)
        except BaseException:  # the call may go to somebody else next
            for mechanism in _mechanisms(call):
                _rename(mechanism, back)
            del call.outgoing[outgoing:]
            raise
        _rename(connection.mechanism, back)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate on the way out."""
        _send(call, _mechanisms(call))
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
    """For a server chain: take the namespaces that a request names; they stay open as long as the connection lives.

    A caller names a namespace by a descriptor that it holds. A path would be opened with this component's rights, so
    one is refused with `Refused`.
    """

    def __init__(self) -> None:
        self._files: Key[dict[str, Received]] = Key("received descriptors")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``inode:`` to ``file:`` on the way in, and back in the answer."""
        if call.peer is not None:
            _refuse_paths(_mechanisms(call))
        known = await _take(self._files, call, _mechanisms(call))
        connection = await rest.request(call)
        _rename(connection.mechanism, {_url(file): inode for inode, file in known.items()})
        _release_unused(known, [connection.mechanism])
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate, and let go of the files in the end."""
        known = call.live.get(self._files) or {}
        for mechanism in _mechanisms(call):
            _rename(mechanism, {inode: _url(file) for inode, file in known.items()})
        try:
            await rest.close(call)
        finally:
            _release_all(call.live, self._files)


class ReceiveReturned(Element):
    """For a client chain: take the namespace that the answer names."""

    def __init__(self) -> None:
        self._files: Key[dict[str, Received]] = Key("returned descriptors")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate ``file:`` back to the peer's name on the way out, ``inode:`` to ``file:`` in the answer."""
        known = call.live.get(self._files) or {}
        _rename(call.connection.mechanism, {_url(file): inode for inode, file in known.items()})
        call.keeps_files = True
        connection = await rest.request(call)
        if connection.mechanism is not None:
            known = await _take(self._files, call, [connection.mechanism])
            _release_unused(known, [connection.mechanism])
        if call.inbox is not None:
            for key in call.named:
                call.inbox.settle(*key)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate back, and let go of the files."""
        known = call.live.get(self._files) or {}
        _rename(call.connection.mechanism, {_url(file): inode for inode, file in known.items()})
        try:
            await rest.close(call)
        finally:
            _release_all(call.live, self._files)


def _refuse_paths(mechanisms: Iterable[Mechanism]) -> None:
    for mechanism in mechanisms:
        url = mechanism.parameters.get(INODE_URL, "")
        if url.startswith("file:"):
            raise Refused(f"{url} is a path of the caller's; a namespace is passed as a descriptor, on a unix socket")


def _mechanisms(call: Call) -> list[Mechanism]:
    selected = call.connection.mechanism
    return [*call.request.mechanism_preferences, *([selected] if selected is not None else [])]


def _send(call: Call, mechanisms: Iterable[Mechanism]) -> dict[str, str]:
    """Queue the descriptor of each ``file:`` URL; returns what it became."""
    sent = {}
    for mechanism in mechanisms:
        url = mechanism.parameters.get(INODE_URL, "")
        if url.startswith("file://"):
            path = url.removeprefix("file://")
            sent[url] = mechanism.parameters[INODE_URL] = inode_url(path)
            call.outgoing.append(path)
    return sent


async def _take(slot: Key[dict[str, Received]], call: Call, mechanisms: Iterable[Mechanism]) -> dict[str, Received]:
    """Replace each ``inode:`` URL by a path of the file that came; what the connection has already is used again."""
    store = call.live
    if store.get(slot) is None:
        store.on_end(lambda: _release_all(store, slot))
    known = store.setdefault(slot, dict)
    for mechanism in mechanisms:
        url = mechanism.parameters.get(INODE_URL, "")
        key = file_key(url)
        if key is None or call.inbox is None:
            continue
        if url not in known:
            known[url] = await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
        mechanism.parameters[INODE_URL] = _url(known[url])
    return known


def _url(file: Received) -> str:
    return f"file://{file.path}"


def _rename(mechanism: Mechanism | None, names: dict[str, str]) -> None:
    if mechanism is not None and (url := mechanism.parameters.get(INODE_URL)) in names:
        mechanism.parameters[INODE_URL] = names[url]


def _release_unused(known: dict[str, Received], mechanisms: Iterable[Mechanism | None]) -> None:
    """Close what the connection did not choose."""
    used = {mechanism.parameters.get(INODE_URL) for mechanism in mechanisms if mechanism is not None}
    for url in [url for url, file in known.items() if url not in used and _url(file) not in used]:
        known.pop(url).release()


def _release_all(store: Store, key: Key[dict[str, Received]]) -> None:
    for file in (store.pop(key) or {}).values():
        file.release()
