"""Wires of a forwarder's earlier process: claimed by their connections, or removed.

A connection claims its wire with its next request, which finds it unchanged. A wire that is still unclaimed when all
clients have had the time to request is removed if one of its ends has no process any longer. If both ends live its
packets go on, until the lifetime of orphans is over too.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from nsm.chains.core import MeshError, Tasks
from nsm.chains.logs import log

from .dataplane import Dataplane

_PAUSE = 60.0
"""Seconds between two checks of the unclaimed wires."""


class Reconcile:
    """An async context manager: handles the wires that exist when it starts. Times are in seconds."""

    def __init__(self, dataplane: Dataplane[Any], *, claim_within: float, orphan_lifetime: float) -> None:
        self._dataplane = dataplane
        self._claim_within, self._orphan_lifetime = claim_within, orphan_lifetime
        self._tasks = Tasks("reconcile")

    async def __aenter__(self) -> Reconcile:
        self._tasks.spawn(self._run(), name="remove what nobody claims")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        begin = clock()
        left = [each.connection_id for each in await self._dataplane.owned() if not each.is_live]
        if left:
            log.info("wires of an earlier process are there", connections=len(left))
            await asyncio.sleep(self._claim_within)
        while left:
            try:
                left = await self._round(keep=clock() - begin < self._orphan_lifetime)
            except MeshError as error:
                log.warning("could not remove unclaimed wires", error=str(error))
            await asyncio.sleep(_PAUSE if left else 0)

    async def _round(self, *, keep: bool) -> list[str]:
        """Remove those that are not used, or with `keep` False all; returns those that are still unclaimed."""
        former = [each for each in await self._dataplane.owned() if not each.is_live]
        unwanted = [each.connection_id for each in former if not (keep and each.is_used)]
        if unwanted:
            await self._dataplane.remove_former(unwanted)
        for connection_id in unwanted:
            why = "a workload of it is gone" if keep else "it was not claimed"
            log.info("wire of an earlier process removed", connection=connection_id, because=why)
        return [each.connection_id for each in await self._dataplane.owned() if not each.is_live]
