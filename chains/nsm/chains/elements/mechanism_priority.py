"""Lets a forwarder's operator order the mechanisms by preference."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler


class MechanismPriority(Element):
    """For a client chain, behind all offers: move the listed types to the front, in the order of the list."""

    def __init__(self, types: Sequence[str]) -> None:
        self._rank = {kind: position for position, kind in enumerate(types)}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Sort the preferences; those that are not listed stay in their order."""
        last = len(self._rank)
        call.request.mechanism_preferences.sort(key=lambda each: self._rank.get(each.type, last))
        return await rest.request(call)
