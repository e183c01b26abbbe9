"""Finds the endpoints that can provide the requested service."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    Call,
    Element,
    Handler,
    Key,
    MeshError,
    NotFound,
    R,
    RegistryCall,
    RegistryHandler,
    Unavailable,
    together,
    was_not_reached,
)
from nsm.chains.logs import log
from nsm.chains.model.matching import match_endpoints, weigh_in_turn

from .connect import FIND_AGAIN
from .try_candidates import note_tried, tell_whom

_FIND_TIMEOUT = 5.0
_MISSED, _MOST_MISSED = 1.0, 256
"""Seconds for which closes do not look for an endpoint that was not found, and for how many that is remembered: all of
the clients of one that is gone close at once."""
_Fitting = Sequence[tuple[NetworkServiceEndpoint, int]]
"""Candidates and their weights, best first."""
_SHOWN = 512
"""Characters of labels that an error repeats."""


def lookup() -> Call:
    """A call of this component's own, on behalf of which it may query the registry for a while."""
    return Call(NetworkServiceRequest(), deadline=asyncio.get_running_loop().time() + _FIND_TIMEOUT)


async def find_all(registry: RegistryHandler[R], query: R, call: Call) -> list[R]:
    """All records that match `query` now; queries on behalf of `call`."""
    asking: RegistryCall[R] = RegistryCall(query, deadline=call.deadline)
    found = cast(Any, registry.find(asking))
    return [each.record async for batch in found for each in batch if not each.deleted]


async def find_service(registry: RegistryHandler[NetworkService], call: Call) -> NetworkService:
    """The service that `call` requests. Raises `NotFound`."""
    wanted = NetworkService(name=call.connection.network_service, payload=call.connection.payload)
    for service in await find_all(registry, wanted, call):
        if service.name == wanted.name:
            return service
    payload = f" with payload {wanted.payload}" if wanted.payload else ""
    remedy = "check the name in the client's list; `nsm find services` shows what is registered"
    raise NotFound(f"network service {wanted.name!r}{payload} is not found", remedy=remedy)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a component was found, by its name: valid as long as the same socket is there."""

    name: str
    url: str
    mark: object

    @classmethod
    def of(cls, found: NetworkServiceEndpoint) -> Place:
        """The place of a component according to its record."""
        return cls(found.name, found.url, _mark(found.url))

    def is_good(self) -> bool:
        """Whether the component may still be there: a descriptor's number is soon reused for another socket."""
        return self.mark is not None and _mark(self.url) == self.mark


def _mark(url: str) -> object:
    if not url.startswith("unix://"):
        return url
    try:
        found = os.stat(url.removeprefix("unix://"))
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


class Discover(Element):
    """Find the candidates for a connection: the endpoint that it names, or those that the service's matches select.

    The candidates are in ``call.candidates``, best first, and the share of each of them in ``call.weights``; an
    endpoint that is named becomes the target at once. The connection gets the service's payload. A call that already
    has a target is passed on unchanged. Raises `NotFound`.

    A match with `fallthrough` does not decide if none of its endpoints can be reached: then the next one does. An
    endpoint that was killed is registered for a while.

    The address of a connection's endpoint is looked up once: a refresh goes there, and looks it up again only if the
    endpoint is no longer there. So an established connection does not need the registry.
    """

    def __init__(
        self, services: RegistryHandler[NetworkService], endpoints: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        self._services, self._endpoints = services, endpoints
        self._place: Key[Place] = Key("where the endpoint is")
        self._missed: dict[str, float] = {}
        """When endpoints were not found that connections were closed at, the latest one last."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the candidates, or the target."""
        if call.target is not None:
            return await rest.request(call)
        if name := call.connection.network_service_endpoint_name:
            return await self._ask_named(name, call, rest)
        service, in_turn = await self._fitting(call)
        if not any(match.fallthrough for match in service.matches):
            return await self._ask_fitting(next(in_turn), call, rest)
        return await self._ask_in_turn(in_turn, call, rest)

    async def _ask_in_turn(self, in_turn: Iterator[_Fitting], call: Call, rest: Handler) -> Connection:
        tried: set[str] = set()
        failure = Unavailable("no endpoint can be reached")
        for fitting in in_turn:
            if not (left := [each for each in fitting if each[0].name not in tried]):
                continue
            tried.update(endpoint.name for endpoint, _ in left)
            asked = codec.clone(call.request)
            try:
                async with call.undo.attempt():
                    return await self._ask_fitting(left, call, rest)
            except Unavailable as error:
                log.info("no endpoint of a match can be reached: the next match decides", reason=str(error))
                error.tried = (*failure.tried, *error.tried)
                failure, call.request, call.target = error, asked, None
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    async def _ask_fitting(self, fitting: _Fitting, call: Call, rest: Handler) -> Connection:
        call.candidates, call.weights = [each for each, _ in fitting], [weight for _, weight in fitting]
        connection = await rest.request(call)
        chosen = connection.network_service_endpoint_name
        if (found := next((each for each in call.candidates if each.name == chosen), None)) is not None:
            self._found(call, found)
        return connection

    def _found(self, call: Call, endpoint: NetworkServiceEndpoint) -> None:
        call.live.put(self._place, Place.of(endpoint))
        call.live.put(FIND_AGAIN, lambda: self._find_again(endpoint.name))

    async def _find_again(self, name: str) -> str:
        return (await self._named(name, lookup())).url

    async def _ask_named(self, name: str, call: Call, rest: Handler) -> Connection:
        place = call.live.get(self._place)
        if place is not None and place.name == name and place.is_good():
            call.target = place.url
            try:
                async with call.undo.attempt():
                    return await rest.request(call)
            except MeshError as error:  # an unreachable peer has changed nothing of the call
                if not was_not_reached(error):
                    raise
        endpoint = await self._named_for(name, call)
        if call.connection.network_service not in endpoint.network_service_names:
            what = f"endpoint {name!r} does not provide {call.connection.network_service!r}"
            raise NotFound(what, remedy=f"it provides {', '.join(endpoint.network_service_names[:8]) or 'nothing'}")
        call.target = endpoint.url
        try:
            connection = await rest.request(call)
        except MeshError as error:
            tell_whom(name, error)
            note_tried(name, error)
            raise
        self._found(call, endpoint)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Set the target to the connection's endpoint if it can still be found; close in any case."""
        place = call.live.pop(self._place)
        if place is not None and place.is_good() and place.name == call.connection.network_service_endpoint_name:
            call.target = call.target or place.url
        name = call.connection.network_service_endpoint_name  # without one, all would be found
        if call.target is None and name and not self._is_missing(name):
            try:
                call.target = (await self._named(name, call)).url
            except MeshError as error:
                self._missed_now(name)
                log.info("closing without the endpoint", connection=call.connection.id, error=str(error))
        await rest.close(call)

    def _missed_now(self, name: str) -> None:
        self._missed.pop(name, None)
        self._missed[name] = asyncio.get_running_loop().time()
        while len(self._missed) > _MOST_MISSED:
            del self._missed[next(iter(self._missed))]

    def _is_missing(self, name: str) -> bool:
        when = self._missed.get(name)
        return when is not None and asyncio.get_running_loop().time() < when + _MISSED

    async def _named(self, name: str, call: Call) -> NetworkServiceEndpoint:
        for endpoint in await find_all(self._endpoints, NetworkServiceEndpoint(name=name), call):
            if endpoint.name == name:
                return endpoint
        remedy = f"start {name} again, if it has ended; it registers itself"
        raise NotFound(f"network service endpoint {name!r} is not found", remedy=remedy)

    async def _named_for(self, name: str, call: Call) -> NetworkServiceEndpoint:
        """The endpoint of that name, for a connection that carries the service's payload."""
        if call.connection.payload:
            return await self._named(name, call)
        service, endpoint = await together(find_service(self._services, call), self._named(name, call))
        call.connection.payload = service.payload
        return endpoint

    async def _fitting(self, call: Call) -> tuple[NetworkService, Iterator[_Fitting]]:
        """The service; its candidates and their weights, and then those of later matches: see `weigh_in_turn`."""
        query = NetworkServiceEndpoint(network_service_names=[call.connection.network_service])
        service, found = await together(find_service(self._services, call), find_all(self._endpoints, query, call))
        in_turn = select(service, dict(call.connection.labels), found)
        call.connection.payload = service.payload
        return service, in_turn


def select(
    service: NetworkService, labels: dict[str, str], found: Sequence[NetworkServiceEndpoint]
) -> Iterator[_Fitting]:
    """Those of the endpoints `found` that a client with `labels` may get, each with its share.

    Then those of later matches: see `weigh_in_turn`. Raises `NotFound` if there are none.
    """
    there = [endpoint for endpoint in found if not is_expired(endpoint)]
    in_turn = weigh_in_turn(labels, service, there)
    if not (weighed := next(in_turn, [])):
        raise _none_fits(service, labels, there)
    return chain([weighed], in_turn)


def is_expired(endpoint: NetworkServiceEndpoint) -> bool:
    """Whether the record of `endpoint` is no longer valid."""
    expires = endpoint.expiration_time
    return expires is not None and expires.to_seconds() <= time.time()


def _none_fits(service: NetworkService, labels: dict[str, str], there: Sequence[NetworkServiceEndpoint]) -> NotFound:
    if not there:
        remedy = "start an endpoint of it; one that runs has to reach its manager"
        return NotFound(f"no endpoint of {service.name!r} is registered", remedy=remedy)
    if fitting := match_endpoints(labels, service, there):
        what = f"all destinations of {service.name!r} that lead to {fitting[0].name!r} or others have weight 0"
        return NotFound(what, remedy="give one of them a weight above 0")
    told = str(labels) if len(str(labels)) <= _SHOWN else f"{str(labels)[:_SHOWN]}.."
    what = f"no endpoint of {service.name!r} matches labels {told}; {len(there)} are registered"
    remedy = f"`nsm can CLIENT {service.name}` shows which labels the service and its endpoints ask for"
    return NotFound(what, remedy=remedy)
