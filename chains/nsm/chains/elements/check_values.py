"""Checks all values from outside before any element uses them: Requests, Closes, and answers."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, InvalidRequest, Key, Limits
from nsm.chains.model.bounds import check_connection, check_request


class CheckRequest(Element):
    """Refuse a Request, or a Close, that has too many or too long values, or malformed ones.

    Stands first in a server's chain. Raises `InvalidRequest` that names the field and never repeats an invalid value.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the message, and pass it on unchanged."""
        check_request(call.request, self._limits)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Check the connection."""
        check_connection(call.connection, self._limits)
        await rest.close(call)


class CheckAnswer(Element):
    """Refuse an answer that would be invalid as a Request: the peer is not trusted more than a caller.

    Stands last in a client's chain. A new connection is closed where it was requested; an existing one stays
    unchanged. Raises `InvalidRequest`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._is_known: Key[bool] = Key("answered well")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the answer."""
        connection = await rest.request(call)
        try:
            check_connection(connection, self._limits)
        except InvalidRequest as error:
            if not call.live.get(self._is_known):
                call.undo.add(lambda: rest.close(call.postponed()))
            raise InvalidRequest(f"the answer cannot be used: {error.detail}") from None
        call.live.put(self._is_known, True)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget that there was an answer."""
        call.live.pop(self._is_known)
        await rest.close(call)
