"""Uses the candidates in turn, and passes over those that fail."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, MeshError


class RoundRobin(Element):
    """Try the candidates of a call, each request of a service beginning with the next one; the first success counts.

    What a failed try did is undone before the next one. Raises the error of a single candidate as it is; of
    several, one of the same kind that tells of all.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Iterator[int]] = defaultdict(itertools.count)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set target and endpoint name."""
        if not call.candidates:
            return await rest.request(call)
        asked = call.connection.network_service_endpoint_name
        failures: list[tuple[str, MeshError]] = []
        for _ in call.candidates:
            turn = next(self._turns[call.connection.network_service])
            candidate = call.candidates[turn % len(call.candidates)]
            try:
                async with call.undo.attempt():
                    call.target = candidate.url
                    call.connection.network_service_endpoint_name = candidate.name
                    return await rest.request(call)
            except MeshError as error:
                failures.append((candidate.name, error))
                call.connection.network_service_endpoint_name = asked
        raise all_failed("candidates", failures)


def all_failed(what: str, failures: list[tuple[str, MeshError]]) -> MeshError:
    """One error for several tries: the only one as it is, else the last one's kind with a word on each."""
    last = failures[-1][1]
    if len(failures) == 1:
        return last
    told = "; ".join(f"{name}: {error}" for name, error in failures)
    return type(last)(f"all {what} have failed: {told}")
