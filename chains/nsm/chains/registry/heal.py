"""Restores registrations after the registry was restarted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from nsm.chains.core import Backoff, Key, Kind, MeshError, R, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class RegistryHeal(RegistryElement[R]):
    """Watch the registration; register again when the watch breaks, or when the record was removed."""

    def __init__(self, kind: Kind[R]) -> None:
        self._kind = kind
        self._watching: Key[asyncio.Task[None]] = Key("watch")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Start the watch after the first success."""
        record = await rest.register(call)
        store, name, target = call.live, record.name, call.target
        if store.get(self._watching) is None:
            work = self._watch(store, name, target, rest)
            store.put(self._watching, store.spawn(work, name="registration watch"))
        return record

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Stop the watch first, so that the removal is not undone."""
        if (task := call.live.pop(self._watching)) is not None:
            task.cancel()
        await rest.unregister(call)

    async def _watch(self, store: Store, name: str, target: str | None, rest: RegistryHandler[R]) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            if await self._until_gone(name, target, rest):
                backoff.reset()
            await self._register_again(store, name, backoff)

    async def _register_again(self, store: Store, name: str, backoff: Backoff) -> None:
        """Register until that succeeds, with growing pauses, also before the first try."""
        pause = backoff.next()
        while True:
            await asyncio.sleep(pause)
            try:
                await store.events.request()
            except MeshError as error:
                pause = backoff.next()
                log.warning("the registry does not respond", name=name, error=str(error), again_in_s=pause)
            else:
                log.info("registered again", name=name)
                return

    async def _until_gone(self, name: str, target: str | None, rest: RegistryHandler[R]) -> bool:
        """Wait until the record is removed or the watch breaks; returns whether the record was seen at all."""
        seen = False
        query = cast(Any, self._kind.record)(name=name)
        call: RegistryCall[R] = RegistryCall(query, watch=True, target=target)
        try:
            async with aclosing(cast(Any, rest.find(call))) as batches:
                async for batch in batches:
                    for found in batch:
                        if found.record.name == name:
                            if found.deleted:
                                return True
                            seen = True
        except MeshError:
            return seen
        return seen
