"""Chooses the mechanism of a wire: a server picks one of the client's preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.core import Call, Element, Handler, MeshError, Unsupported, bind


class Mechanisms(Element):
    """Choose the first of the client's preferences that is supported here and succeeds.

    `supported` maps a mechanism's type to the elements that make it. A mechanism that the connection already has is
    kept. The metrics of the path segment name the interface. Raises `Unsupported` if nothing fits, with the requested
    and the available mechanisms; if preferences fit but failed, the error of the first.
    """

    def __init__(self, supported: Mapping[str, Sequence[Element]]) -> None:
        self._supported = dict(supported)
        self._bound: dict[str, Handler] = {}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Try the preferences in their order."""
        if (mechanism := call.connection.mechanism) is not None:
            return await self._with(mechanism, call, rest)
        failures: list[MeshError] = []
        wanted = call.request.mechanism_preferences
        fitting = [preference for preference in wanted if preference.type in self._supported]
        asked = codec.clone(call.connection) if len(fitting) > 1 else call.connection
        for preference in fitting:
            if failures:
                call.connection = codec.clone(asked)  # and not the answer of the failed attempt
            try:
                async with call.undo.attempt():
                    call.connection.mechanism = codec.clone(preference)
                    return await self._with(preference, call, rest)
            except MeshError as error:
                failures.append(error)
        try:
            raise failures[0] if failures else self._unsupported(wanted)
        finally:
            failures.clear()  # their tracebacks hold this frame

    async def close(self, call: Call, rest: Handler) -> None:
        """Let the elements of the connection's mechanism close it."""
        mechanism = call.connection.mechanism
        known = mechanism is not None and mechanism.type in self._supported
        handler = self._handler(mechanism.type, rest) if mechanism is not None and known else rest
        await handler.close(call)

    async def aclose(self) -> None:
        """Release the elements of all mechanisms, last first; one that serves several of them once."""
        for element in dict.fromkeys(each for elements in self._supported.values() for each in reversed(elements)):
            await element.aclose()

    async def _with(self, mechanism: Mechanism, call: Call, rest: Handler) -> Connection:
        if mechanism.type not in self._supported:
            raise self._unsupported([mechanism])
        connection = await self._handler(mechanism.type, rest).request(call)
        note_interface(connection, "server_interface", connection.mechanism or mechanism)
        return connection

    def _handler(self, kind: str, rest: Handler) -> Handler:
        """The elements of one mechanism, bound to the rest of the chain at their first use; that never changes."""
        if kind not in self._bound:
            self._bound[kind] = bind(self._supported[kind], rest)
        return self._bound[kind]

    def _unsupported(self, wanted: Sequence[Mechanism]) -> Unsupported:
        asked = ", ".join(mechanism.type for mechanism in wanted) or "none"
        return Unsupported(
            f"unsupported mechanism: requested {asked}; available here: {', '.join(self._supported)}",
            remedy="request one of those, or use a forwarder and endpoints that have the requested one",
        )


def note_interface(connection: Connection, end: str, mechanism: Mechanism) -> None:
    """Put the name of the wire's interface into this component's path segment, unless it has one."""
    path = connection.path
    if path is not None and path.index < len(path.path_segments):
        name = mechanism.parameters.get(INTERFACE_NAME) or "unknown"
        path.path_segments[path.index].metrics.setdefault(end, f"{mechanism.type}/{name}")
