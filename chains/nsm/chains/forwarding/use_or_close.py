"""Handles the answer of another node that this node cannot use."""

from __future__ import annotations

from collections.abc import Awaitable

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import Call, Handler, MeshError, shielded
from nsm.chains.logs import log


async def use_or_close(
    call: Call, rest: Handler, answer: Connection, using: Awaitable[None], *, is_first: bool
) -> None:
    """Await `using`; if it raises and the answer was the first one, close the connection there, shielded, and raise.

    No other component would: for those before this one, the request has failed. An established connection stays.
    """
    try:
        await using
    except BaseException:
        if is_first:
            closing = call.postponed()
            closing.connection = codec.clone(answer)
            await shielded(_close(closing, rest), name="close of an unusable answer")
        raise


async def _close(call: Call, rest: Handler) -> None:
    try:
        await rest.close(call)
    except MeshError as error:
        log.warning("could not close an unusable connection", connection=call.live.connection_id, error=str(error))
