"""Checks whether packets pass on kernel interfaces of this process's network namespace, by echoes and kernel events."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
from collections.abc import Callable

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL
from nsm.chains.core import InvalidRequest
from nsm.chains.logs import log
from nsm.chains.model.addresses import Interface
from nsm.chains.model.ipcontext import interfaces

from .link_events import LinkEvents, index_with
from .ping import answers

_SOON = 0.1
"""Seconds in which the kernel reports the state of a link."""
_MOST_PAIRS = 64
"""Pairs of addresses that one check covers, each with a socket: the endpoint chooses how many addresses there are."""


class KernelLiveness:
    """A `Liveness`: each of a wire's addresses has to get an echo from each of the other side's of its family.

    One check takes at most `timeout` seconds, usually one round trip. If this process may not send echoes, which is
    one warning, only links that go down are noticed. With `patience`, a wire that is cut at the first check is checked
    again after that many seconds: forwarders repair what others change.
    """

    def __init__(self, timeout: float = 1.0, *, patience: float = 0.0) -> None:
        self._timeout, self._links, self._is_warned, self._patience = timeout, LinkEvents(), False, patience
        self._watched: dict[str, int] = {}
        """The interfaces of connections whose links are watched."""

    async def is_alive(self, connection: Connection) -> bool | None:
        """Send the echoes, all at once; see `Liveness`. Only interfaces of the kernel can be checked here."""
        if connection.mechanism is not None and connection.mechanism.type != KERNEL:
            return None
        clock = asyncio.get_running_loop().time
        end = clock() + self._patience
        if (found := await self._answers(connection)) is not False:
            return found
        if (left := end - clock()) <= 0:
            return False
        await asyncio.sleep(left)
        return await self._answers(connection)

    async def _answers(self, connection: Connection) -> bool | None:
        if (index := self._watched.get(connection.id)) is not None:
            self._links.look_at(index)
        sources, targets = _ends(connection)
        pairs = [each for each in itertools.product(sources, targets) if each[0].version == each[1].version]
        if not pairs:
            return None
        checked = pairs[:_MOST_PAIRS]
        echoes = (answers(source.ip, target.ip, _name(connection), self._timeout) for source, target in checked)
        found = await asyncio.gather(*echoes, return_exceptions=True)
        for each in found:
            if isinstance(each, OSError):
                self._warn(each)
                return None
            if isinstance(each, BaseException):
                raise each
        self._is_warned = False
        return all(found)

    def watch(self, connection: Connection, on_down: Callable[[str], None]) -> Callable[[], None]:
        """Listen to the kernel; see `Liveness`."""
        if connection.mechanism is None or connection.mechanism.type != KERNEL:
            return _nothing
        try:
            if (index := _index(connection)) is None:
                why = f"there is no interface {_name(connection)!r}"
                return asyncio.get_running_loop().call_soon(on_down, why).cancel
            stop = _Patient(self._links, index, on_down, self._patience).stop
        except OSError as error:
            log.warning("links that go down are not noticed", reason=error.strerror or str(error))
            return _nothing
        self._watched[connection.id] = index

        def forget() -> None:
            self._watched.pop(connection.id, None)
            stop()

        return forget

    def _warn(self, error: OSError) -> None:
        if not self._is_warned:
            log.warning("wires are not checked by pings, which this process may not send", missing=_missing(error))
        self._is_warned = True


class _Patient:
    """Watches one link, and reports that it is down if it still is after `patience` seconds. Raises OSError."""

    def __init__(self, links: LinkEvents, index: int, on_down: Callable[[str], None], patience: float) -> None:
        self._links, self._index, self._on_down, self._patience = links, index, on_down, patience
        self._looked_again = -_SOON
        self._stop = links.watch(index, self._down)

    def stop(self) -> None:
        """Stop reporting."""
        self._stop()

    def _down(self, why: str) -> None:
        loop = asyncio.get_running_loop()
        if not self._patience or loop.time() - self._looked_again < _SOON:
            self._on_down(why)
        else:
            self._stop = loop.call_later(self._patience, self._look_again, why).cancel

    def _look_again(self, why: str) -> None:
        self._looked_again = asyncio.get_running_loop().time()
        try:
            self._stop = self._links.watch(self._index, self._down)
        except OSError:
            self._on_down(why)


def _missing(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "a packet filter in this network namespace does not let them out"
    if error.errno == errno.EACCES:
        return (
            "the sysctl net.ipv4.ping_group_range of this network namespace, which forwarders set, has no group of ours"
        )
    return error.strerror or str(error)


def _nothing() -> None: ...


def _ends(connection: Connection) -> tuple[list[Interface], list[Interface]]:
    """The addresses of both sides; none for another mechanism."""
    context = connection.context.ip_context if connection.context is not None else None
    if context is None or connection.mechanism is None or connection.mechanism.type != KERNEL:
        return [], []
    try:
        return interfaces(context.src_ip_addrs), interfaces(context.dst_ip_addrs)
    except InvalidRequest:
        return [], []


def _name(connection: Connection) -> str:
    return connection.mechanism.parameters.get(INTERFACE_NAME, "") if connection.mechanism is not None else ""


def _index(connection: Connection) -> int | None:
    """The index of the wire's interface: by its name, else by an address, since it may have been renamed."""
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(_name(connection))
    found = (index_with(source.ip.packed) for source in _ends(connection)[0])
    return next((index for index in found if index is not None), None)
