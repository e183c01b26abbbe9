"""Looks at everything that comes from outside before anybody works with it: Requests, Closes, and answers."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, InvalidRequest, Key, Limits
from nsm.chains.model.bounds import check_connection, check_request


class CheckRequest(Element):
    """Refuse a Request, or a Close, that holds too much of something, or a value of a form that it cannot have.

    Stands first in a server's chain. Raises `InvalidRequest` that names the field and never repeats a bad value.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look at the message, and pass it on as it is."""
        check_request(call.request, self._limits)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Look at the connection."""
        check_connection(call.connection, self._limits)
        await rest.close(call)


class CheckAnswer(Element):
    """Refuse an answer that a Request could not be: whoever is asked is not trusted more than whoever asks.

    Stands last in a client's chain. A connection that was not there before is closed where it was asked for; one that
    was stays as it was. Raises `InvalidRequest`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._is_known: Key[bool] = Key("answered well")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look at what comes back."""
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
