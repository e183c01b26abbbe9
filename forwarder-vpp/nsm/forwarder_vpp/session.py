"""A connection to VPP that is made again whenever it ends, with what has to be done then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from nsm.chains.core import Backoff, MeshError, Tasks, Unavailable
from nsm.chains.logs import log

from .api import VPP, Unreachable
from .api.stats import Counters, Stats
from .grace import GracePeriods
from .process import ExternalVPP, OwnVPP

NEEDED = (
    *("sw_interface_dump", "sw_interface_set_flags", "sw_interface_set_mtu", "sw_interface_tag_add_del"),
    *("af_packet_create_v3", "af_packet_delete", "l3xc_update", "l3xc_del", "sw_interface_set_l2_xconnect"),
    *("memif_create_v2", "memif_socket_filename_add_del_v2", "ip_neighbor_add_del"),
)
"""Messages without which there are no wires: VPP is refused if it is too old, or lacks a plugin."""


_AT_ONCE = 4
"""Users of `Session.making`: VPP does nothing else while it makes an interface of the kernel."""


class Session:
    """The running VPP. An async context manager: entering raises `MeshError` if VPP cannot be reached.

    Each call has `timeout` seconds, whatever is left of its request; `grace` shortens what VPP waits for.
    """

    def __init__(
        self, process: ExternalVPP | OwnVPP, *, timeout: float = 2.0, grace: GracePeriods | None = None
    ) -> None:
        self._process, self._timeout, self._grace = process, timeout, grace or GracePeriods()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._works: list[Callable[[VPP], Awaitable[None]]] = []
        self._when_ended: list[Callable[[str], None]] = []
        self._vpp: VPP | None = None
        self._stats: Stats | None = None
        self._is_ready = asyncio.Event()
        self._tasks = Tasks("VPP")

    @property
    def is_own(self) -> bool:
        """Whether VPP has no other users."""
        return self._process.is_own

    def when_started(self, work: Callable[[VPP], Awaitable[None]]) -> None:
        """Call `work` for each VPP that is there, in the order of these calls, before anybody else uses it."""
        self._works.append(work)

    def when_ended(self, work: Callable[[str], None]) -> None:
        """Call `work`, with what has happened, whenever VPP is gone."""
        self._when_ended.append(work)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except Unreachable:
            if not self.is_own:
                raise
            await self._open()  # what an earlier process left did not answer, and has ended
        self._tasks.spawn(self._watch(), name="watch VPP")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()
        if self._vpp is not None:
            await self._vpp.close()
        if self._stats is not None:
            self._stats.close()

    @property
    def now(self) -> VPP | None:
        """VPP, unless it is gone at the moment."""
        return self._vpp if self._vpp is not None and self._is_ready.is_set() and self._vpp.is_open else None

    async def vpp(self) -> VPP:
        """VPP; one that is being started is waited for. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(max(self._timeout, 5.0)):
                while (vpp := self.now) is None:
                    self._is_ready.clear()
                    await self._is_ready.wait()
        except TimeoutError:
            raise Unavailable("VPP is gone, and is not back yet; try again") from None
        return vpp

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """For calls that make or delete interfaces: few at once, since the time of a call begins when it is sent."""
        async with self._turns:
            with self._grace.short():
                yield

    def counters(self, indexes: Iterable[int]) -> Mapping[int, Counters]:
        """What passed interfaces; nothing if VPP does not tell."""
        try:
            return self._stats.interfaces(indexes) if self._stats is not None else {}
        except MeshError as error:
            log.warning("VPP's counters cannot be read", error=str(error))
            return {}

    async def _open(self) -> None:
        await self._process.provide()
        try:
            vpp = await VPP.connect(self._process.api, timeout=self._timeout)
        except Unreachable:
            self._process.abandon()
            raise
        try:
            vpp.require(*NEEDED)
            await self._open_stats()
            for work in self._works:
                await work(vpp)
        except BaseException:
            await vpp.close()
            raise
        self._vpp = vpp
        self._is_ready.set()
        log.info("connected to VPP", version=vpp.version, socket=self._process.api)

    async def _open_stats(self) -> None:
        if self._stats is not None:
            self._stats.close()
            self._stats = None
        try:
            self._stats = await Stats.open(self._process.stats)
        except MeshError as error:
            log.warning("VPP's counters cannot be read", error=str(error))

    async def _watch(self) -> None:
        while True:
            assert self._vpp is not None
            process = self._tasks.spawn(self._hang_up(self._vpp), name="process of VPP")
            error = await self._vpp.ended()
            process.cancel()
            self._is_ready.clear()
            fault = "VPP has ended, and is started again" if self.is_own else "VPP has ended, and is waited for"
            log.warning(fault, error=str(error))
            for work in self._when_ended:
                work(fault)
            with self._grace.short():  # the kernel closes the sockets of the former one
                await self._process.has_ended(self._vpp.process_id)
                await self._reopen()

    async def _hang_up(self, vpp: VPP) -> None:
        """End the connection as soon as VPP's process begins to end."""
        await self._process.is_ending(vpp.process_id)
        await vpp.close("the process of VPP ends")

    async def _reopen(self) -> None:
        pace = Backoff(0.02, 2.0)
        while self._vpp is None or not self._vpp.is_open:
            try:
                await self._open()
            except (MeshError, OSError) as fault:
                log.warning("VPP is not back", error=str(fault))
                await asyncio.sleep(pace.next())
