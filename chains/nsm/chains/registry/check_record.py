"""Rejects records that are too large or invalid before they are processed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, InvalidRequest, Kind, Limits, R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.record_limits import excess
from nsm.chains.model.record_values import check_record

_SHOWN = 64
"""The longest part of a name that an error shows, in characters."""


class CheckRecord(RegistryElement[R]):
    """Reject a record or a query that exceeds `limits` or contains invalid text.

    So everything that is stored can be sent to any caller and shown to anyone. Place it first in a server's chain.
    """

    def __init__(self, kind: Kind[R], limits: Limits) -> None:
        self._kind, self._limits = kind, limits

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `InvalidRequest` for a record that is too large or invalid."""
        self._check(call)
        return await rest.register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `InvalidRequest` likewise."""
        self._check(call)
        return rest.find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Raise `InvalidRequest` likewise."""
        self._check(call)
        await rest.unregister(call)

    def _check(self, call: RegistryCall[R]) -> None:
        if call.peer is None:
            return
        tokens = len(call.path.tokens)
        if tokens > self._limits.path_ids:
            raise InvalidRequest(
                f"the registration has passed {tokens} components; at most {self._limits.path_ids} are allowed",
                limit="path_ids",
            )
        fault = excess(call.record, self._limits, hops=max(0, tokens - 1), size=call.size)
        if fault is not None:
            raise InvalidRequest(
                f"{self._kind.noun} {call.record.name[:_SHOWN]!r} is too large: {fault.text}", limit=fault.limit
            )
        check_record(call.record)
