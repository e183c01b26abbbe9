"""Offers a mechanism to what is at another node or behind an uplink, and uses the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.chains.core import Call, Handler, MeshError, shielded
from nsm.chains.logs import log

Use = Callable[[Connection, Mechanism], Awaitable[None]]
"""Notes the other end of a wire, from the connection that was answered and its mechanism."""


async def offer(call: Call, rest: Handler, mechanism: Mechanism, use: Use) -> Connection:
    """Request with one more preference, and await `use` if the answer has a mechanism of its type.

    If that raises and the answer was the first one, the connection is closed there, shielded: no other component would,
    since for those before this one the request has failed. An established connection stays.
    """
    call.request.mechanism_preferences.append(mechanism)
    is_first = call.connection.mechanism is None
    answer = await rest.request(call)
    if answer.mechanism is None or answer.mechanism.type != mechanism.type:
        return answer
    try:
        await use(answer, answer.mechanism)
    except BaseException:
        if is_first:
            closing = call.postponed()
            closing.connection = codec.clone(answer)
            await shielded(_close(closing, rest), name="close of an unusable answer")
        raise
    return answer


async def _close(call: Call, rest: Handler) -> None:
    try:
        await rest.close(call)
    except MeshError as error:
        log.warning("could not close an unusable connection", connection=call.live.connection_id, error=str(error))
