"""Chooses the forwarder of this node that builds a client's wire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nsm.apis.connection import Connection, State
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    Call,
    Element,
    Handler,
    Key,
    MeshError,
    NotFound,
    RegistryHandler,
    Unavailable,
    was_not_reached,
)
from nsm.chains.logs import log
from nsm.chains.model.matching import is_subset, labels_of

from .connect import FIND_AGAIN
from .discover import Place, find_all, find_service, lookup
from .try_candidates import first_success

POINT_TO_POINT = {"p2p": "true"}
"""The labels of a forwarder if the service's match has none (in messages, none and empty are the same)."""

_STARTING = 5.0
"""Seconds after the first request within which the forwarders of a restarted node register again."""
_SHOWN = 512
"""Characters of labels that an error repeats."""
_REMEMBERED = 60.0
"""Seconds for which a failure counts: by then the record of a dead forwarder has ended."""


class DiscoverForwarder(Element):
    """Pass a request on to a forwarder of this node: the connection's own, else the first that works.

    Forwarders are endpoints of the service `forwarder_service` that were published under `own_url`. A match of the
    requested service may select among them by labels in its metadata. A manager that has just started waits for the
    forwarder of a connection that existed before. Raises `NotFound` if there is none.

    A connection's own forwarder is called where it was, without a query to the registry as long as it is there.
    """

    def __init__(
        self,
        services: RegistryHandler[NetworkService],
        endpoints: RegistryHandler[NetworkServiceEndpoint],
        *,
        forwarder_service: str,
        own_url: str,
    ) -> None:
        self._services, self._endpoints = services, endpoints
        self._forwarder_service, self._own_url = forwarder_service, own_url
        self._chosen: Key[Place] = Key("forwarder")
        self._unreached = _Unreached()
        self._began: float | None = None
        """When the first request arrived."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the target."""
        reselecting = call.connection.state == State.RESELECT_REQUESTED
        chosen, asking = None if reselecting else call.live.get(self._chosen), self._unreached.asking(rest)
        if chosen is not None and chosen.is_good():
            call.target = chosen.url
            try:
                async with call.undo.attempt():
                    return await asking.request(call)
            except MeshError as error:  # an unreachable peer has changed nothing of the call
                if not was_not_reached(error):
                    raise
        preferred = "" if reselecting else _next_in_path(call.connection)
        if chosen is not None:
            candidates: Sequence[NetworkServiceEndpoint] = await self._find(chosen.name, call)
        else:
            candidates = await self._candidates(call, preferred)
        if not candidates and chosen is not None:
            raise await self._missing(chosen.name, call)
        candidates = self._unreached.behind(sorted(candidates, key=lambda each: each.name != preferred))
        forwarder, connection = await first_success("forwarders", candidates, len(candidates), call, asking)
        call.live.put(self._chosen, Place.of(forwarder))
        call.live.put(FIND_AGAIN, lambda: self._find_again(forwarder.name))
        return connection

    async def _find_again(self, name: str) -> str:
        if found := await self._find(name, lookup()):
            return found[0].url
        raise Unavailable(f"forwarder {name!r} has not registered again yet")

    async def _candidates(self, call: Call, preferred: str) -> Sequence[NetworkServiceEndpoint]:
        """For a connection without a forwarder here, `preferred` if it had that one before. Raises `NotFound`.

        A connection that existed before this process started has one: it is in the caller's path.
        """
        if call.stood_behind() and (stood := await self._find(_next_in_path(call.connection), call)):
            return stood
        service = await find_service(self._services, call)
        found = await self._find("", call)
        if preferred and self._is_starting() and all(each.name != preferred for each in found):
            raise Unavailable(f"forwarder {preferred!r} has not registered again yet")
        if not (candidates := self._fitting(service, call, found)):
            raise _none_fits(service, call.connection.labels, found)
        return candidates

    async def _missing(self, name: str, call: Call) -> MeshError:
        """The error for a connection whose forwarder is gone: `NotFound` makes clients choose again, if they can."""
        if await self._find("", call):
            return NotFound(f"forwarder {name!r} is not available", remedy=f"start {name} again, if it has ended")
        what = f"forwarder {name!r} is not available, and this node has no other; is it running?"
        return Unavailable(what, remedy=f"start {name} again")

    async def close(self, call: Call, rest: Handler) -> None:
        """Close at the forwarder of the connection if it can still be found; close in any case."""
        chosen = call.live.pop(self._chosen)
        if chosen is not None and chosen.is_good():
            call.target = chosen.url
            await rest.close(call)
            return
        name = chosen.name if chosen is not None else _next_in_path(call.connection)
        try:
            found = await self._find(name, call) if name else []
            call.target = found[0].url if found else None
        except MeshError as error:
            log.info("closing without the forwarder", connection=call.connection.id, error=str(error))
        await rest.close(call)

    def _is_starting(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._began = now if self._began is None else self._began
        return now < self._began + _STARTING

    async def _find(self, name: str, call: Call) -> list[NetworkServiceEndpoint]:
        query = NetworkServiceEndpoint(name=name, network_service_names=[self._forwarder_service], url=self._own_url)
        return await find_all(self._endpoints, query, call)

    def _fitting(
        self, service: NetworkService, call: Call, forwarders: Sequence[NetworkServiceEndpoint]
    ) -> Sequence[NetworkServiceEndpoint]:
        labels = call.connection.labels
        for match in service.matches:
            if not is_subset(labels, match.source_selector, labels):
                continue
            wanted = (match.metadata.labels if match.metadata is not None else {}) or POINT_TO_POINT
            fitting = [each for each in forwarders if self._has(each, wanted, labels)]
            if match.fallthrough and not fitting:
                continue
            return fitting
        return [] if service.matches else forwarders

    def _has(self, forwarder: NetworkServiceEndpoint, wanted: dict[str, str], labels: dict[str, str]) -> bool:
        has = labels_of(forwarder, self._forwarder_service)
        return bool(has) and is_subset(has, wanted, labels)


def _none_fits(
    service: NetworkService, labels: dict[str, str], forwarders: Sequence[NetworkServiceEndpoint]
) -> NotFound:
    if forwarders and not any(is_subset(labels, match.source_selector, labels) for match in service.matches):
        told = str(labels) if len(str(labels)) <= _SHOWN else f"{str(labels)[:_SHOWN]}.."
        return NotFound(
            f"no match of network service {service.name!r} is for a client with labels {told}",
            remedy=f"change the client's labels or add a match; `nsm can CLIENT {service.name}` shows what is required",
        )
    return NotFound(
        f"no forwarder of this node fits network service {service.name!r}; is one running and registered?",
        remedy="start a forwarder on this node, with the labels that the matches of the service have in their metadata",
    )


def _next_in_path(connection: Connection) -> str:
    path = connection.path
    if path is None or path.index + 1 >= len(path.path_segments):
        return ""
    return path.path_segments[path.index + 1].name


class _Unreached:
    """The forwarders that were unreachable when last called: a dead one's record stays for a while, maybe first.

    Such a forwarder is tried after the others until it has answered, or for a minute.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        """When each of them was last unreachable, by its URL."""

    def behind(self, candidates: Sequence[NetworkServiceEndpoint]) -> list[NetworkServiceEndpoint]:
        """The candidates in their order, unreachable ones last."""
        too_long_ago = asyncio.get_running_loop().time() - _REMEMBERED
        self._since = {url: since for url, since in self._since.items() if since > too_long_ago}
        return sorted(candidates, key=lambda each: each.url in self._since)

    def asking(self, rest: Handler) -> Handler:
        """`rest`, with its failures recorded."""
        return _Asking(rest, self._since)


class _Asking:
    def __init__(self, rest: Handler, unreached: dict[str, float]) -> None:
        self._rest, self._unreached = rest, unreached
        self.close = rest.close

    async def request(self, call: Call) -> Connection:
        url = call.target or ""
        try:
            connection = await self._rest.request(call)
        except MeshError as error:
            if was_not_reached(error):
                self._unreached[url] = asyncio.get_running_loop().time()
            raise
        self._unreached.pop(url, None)
        return connection
