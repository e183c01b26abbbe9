"""What a node does with the answer of another one that it cannot use."""

from __future__ import annotations

from collections.abc import Awaitable

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import Call, Handler, MeshError, shielded
from nsm.chains.logs import log


async def use_or_close(
    call: Call, rest: Handler, answer: Connection, using: Awaitable[None], *, is_first: bool
) -> None:
    """Await `using`; if it raises and the answer was the first one, close where it came from, shielded, and raise.

    Nobody else would: for who stands before, the request has failed. An established connection stays as it was.
    """
    try:
        await using
    except BaseException:
        if is_first:
            closing = call.postponed()
            closing.connection = codec.clone(answer)
            await shielded(_close(closing, rest), name="close of what cannot be used")
        raise


async def _close(call: Call, rest: Handler) -> None:
    try:
        await rest.close(call)
    except MeshError as error:
        log.warning("could not close what cannot be used", connection=call.live.connection_id, error=str(error))
