"""Removes wires: that takes the kernel tens of milliseconds, so there is a thread for it, and many go at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from nsm.chains.netlink import Message, Namespace, Socket, delete_group, delete_link, delete_link_there, set_group
from nsm.chains.netlink.namespaces import entered

from .kernel_thread import KernelThread
from .live_wire import LiveEnd, LiveWire
from .owned import OwnedLink
from .wireguard_go import Process

GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
"""The kernel's answers for objects that no longer exist."""
_FIRST_GROUP, _GROUPS = 1 << 20, 1 << 29


class Removal:
    """Wires that are being removed. `end_processes` ends the processes of wires."""

    def __init__(self, kernel: KernelThread, end_processes: Callable[[Sequence[Process]], Awaitable[None]]) -> None:
        self._kernel, self._end_processes = kernel, end_processes
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="netlink-remove")
        self._waiting: list[tuple[LiveWire, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def remove(self, live: LiveWire) -> None:
        """Remove a wire, together with all others whose removal is requested meanwhile; gone already is fine."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((live, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._remove_all(), name="remove wires")
        await asyncio.shield(done)

    async def remove_former(self, links: Sequence[OwnedLink]) -> None:
        """Remove wires of an earlier process."""
        messages = [removal_of(link) for link in links]
        own = self._kernel.namespaces.own
        if messages:
            await asyncio.get_running_loop().run_in_executor(self._executor, _apply_in, own, messages)

    async def aclose(self) -> None:
        """Finish the removals that have begun, and stop."""
        if self._task is not None:
            await asyncio.wait([self._task])
        self._executor.shutdown()

    async def _remove_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            ends = [end for live, _ in batch if live.device.process is None for end in _to_remove(live)]
            in_node = [index for live, _ in batch for index in live.device.in_node]
            processes = [process for live, _ in batch if (process := live.device.process) is not None]
            own = self._kernel.namespaces.own
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, _remove_links, ends, own, in_node)
                await self._end_processes(processes)
            except Exception as error:
                for _, done in batch:
                    done.set_exception(error)
                    done.exception()
            else:
                for _, done in batch:
                    done.set_result(None)
        self._task = None


def removal_of(link: OwnedLink) -> Message:
    """What removes a link that an earlier process left."""
    return delete_link(link.index) if link.namespace is None else delete_link_there(link.index, link.namespace)


def _to_remove(live: LiveWire) -> Sequence[LiveEnd]:
    """The end by which a wire is removed: the last one whose namespace is open, if there is one; or all, or none."""
    if live.device.in_node or not live.device.ends_together:
        return () if live.device.in_node else live.ends
    return [next((end for end in reversed(live.ends) if not end.is_loose), live.ends[-1])]


def _remove_links(ends: Sequence[LiveEnd], own: Namespace, in_node: Sequence[int]) -> None:
    """Remove links, those of one namespace in one message; released ones by the numbers that `own` knows."""
    if in_node:
        _apply_in(own, _removal(in_node))
    by_namespace: dict[int, list[LiveEnd]] = {}
    for end in ends:
        if not end.is_loose:
            by_namespace.setdefault(id(end.namespace), []).append(end)
    for group in by_namespace.values():
        _apply_in(group[0].namespace, _removal([end.index for end in group]))
    numbers = [(end.index, end.number) for end in ends if end.is_loose]
    if loose := [delete_link_there(index, number) for index, number in numbers if number is not None]:
        _apply_in(own, loose)


def _apply_in(namespace: Namespace, messages: Sequence[Message]) -> None:
    """By a socket of its own, since the kernel's thread uses the other one."""
    with entered(namespace.descriptor):
        socket = Socket(namespace.where)
    with contextlib.closing(socket):
        socket.apply(messages, ignore=GONE)


def _removal(indexes: Sequence[int]) -> list[Message]:
    if len(indexes) == 1:
        return [delete_link(indexes[0])]
    number = _FIRST_GROUP + secrets.randbelow(_GROUPS)
    return [*(set_group(index, number) for index in indexes), delete_group(number)]
