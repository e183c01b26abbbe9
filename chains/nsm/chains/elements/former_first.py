"""After a restart of an endpoint, the clients that it had request their addresses again before new ones get any."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key, TimedOut, Unavailable
from nsm.chains.logs import log
from nsm.chains.model.ipcontext import interfaces, ip_context_of
from nsm.chains.model.networks import Networks

from .own_addresses import GivesAddresses

SECONDS = 8.0
"""Clients that heal request again after pauses of at most six."""


class FormerFirst(Element):
    """Hold back requests of new clients for `SECONDS`, if an endpoint of this name was registered before.

    For endpoints whose wires end elsewhere: nothing in their own network namespace shows what they gave before they
    were started again (see `FormerWires`). A request that names an address of `elements` is not held back, and neither
    is a refresh. Raises `Unavailable` if the caller's time would be over before: another endpoint may have its turn.
    """

    def __init__(self, elements: Sequence[Element]) -> None:
        self._networks = Networks.of_all(each.networks for each in elements if isinstance(each, GivesAddresses))
        self._known: Key[bool] = Key("known here")
        self._is_decided = asyncio.Event()
        self._holds, self._until = False, 0.0

    def start(self) -> None:
        """Have requests of new clients wait until it is decided whether they are held back."""
        self._holds = True

    def decide(self, *, was_registered: bool) -> None:
        """An endpoint of this name was registered before, or not."""
        self._holds = was_registered
        self._is_decided.set()
        if was_registered:
            log.info("an endpoint of this name was there before: its clients come first", seconds=SECONDS)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Hold it back if it is a new client's."""
        if self._holds and call.live.get(self._known) is None and not self._names_an_address(call):
            await self._wait(call)
        connection = await rest.request(call)
        call.live.put(self._known, True)
        return connection

    def _names_an_address(self, call: Call) -> bool:
        return any(each.ip in self._networks for each in interfaces(ip_context_of(call.connection).src_ip_addrs))

    async def _wait(self, call: Call) -> None:
        await self._until_decided(call)
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + SECONDS  # the first one shows that this endpoint can be reached again
        left, remaining = self._until - now, call.remaining()
        if not self._holds or left <= 0:
            self._holds = False
            return
        if remaining is not None and left >= remaining:
            raise Unavailable(f"this endpoint has just started again, and assigns new addresses in {left:.1f} s")
        await asyncio.sleep(left)

    async def _until_decided(self, call: Call) -> None:
        try:
            async with asyncio.timeout(call.remaining()):
                await self._is_decided.wait()
        except TimeoutError:
            raise TimedOut("this endpoint has just started, and is not registered yet") from None
