"""Closes what elements hold open for a connection while it is idle.

An open namespace does not end with its processes: its interfaces would go on answering for a workload that is gone.
Each request brings the descriptors that it needs again, so nothing has to be held until then. That is true of requests
that fail, too: the workload that sent one may end before it sends another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nsm.chains.core import Key, Store

IDLE_AFTER = 0.1
"""Seconds after the last request."""

LetGo = Callable[[], Awaitable[None]]
_HELD: Key[dict[object, LetGo]] = Key("held open")
_TIMER: Key[None] = Key("end of what is held open")


def hold(store: Store, owner: object, let_go: LetGo) -> None:
    """Have `let_go` called, in turn with the events of the connection, when it is idle; `owner` is the holder."""
    store.setdefault(_HELD, dict)[owner] = let_go
    store.schedule(_TIMER, asyncio.get_running_loop().time() + IDLE_AFTER, lambda: _close_held(store))


def close_now(store: Store) -> None:
    """Close everything held now."""
    if store.get(_HELD):
        store.spawn(_close_held(store), name="end of what is held open")


async def _close_held(store: Store) -> None:
    await store.events.run(lambda: _close_all(store))


async def _close_all(store: Store) -> None:
    store.unschedule(_TIMER)
    for let_go in (store.pop(_HELD) or {}).values():
        await let_go()
