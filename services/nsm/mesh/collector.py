"""Forwards traces out of the mesh: the components' namespaces reach only each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import urlsplit

from nsm.chains.core import Tasks

from . import namespaces
from .rundir import MeshCommandError

_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PORT = 4318
"""The address of the collector for components, on their own loopback: the usual port of OTLP over HTTP."""
_CHUNK = 64 * 1024


class Collector:
    """Forwards traces from components to the collector that the variable `OTEL_EXPORTER_OTLP_ENDPOINT` names.

    It runs outside, and listens on the loopback of every namespace. Raises `MeshCommandError` for an unsupported
    endpoint; a folder (``file://``) needs no forwarding.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._endpoint = environment.get(_VARIABLE, "")
        self._parts = urlsplit(self._endpoint)
        self._listening: dict[int, asyncio.Server] = {}
        self._pumps = Tasks("traces")
        if self._endpoint and self._parts.scheme not in {"file", "http"}:
            raise MeshCommandError(f"{_VARIABLE}={self._endpoint!r}: a local mesh sends traces to http:// or file://")

    @property
    def variables(self) -> dict[str, str]:
        """The variables for components."""
        if not self._is_outside:
            return {_VARIABLE: self._endpoint} if self._endpoint else {}
        return {_VARIABLE: f"http://127.0.0.1:{_PORT}{self._parts.path}"}

    async def listen_in(self, networks: Iterable[int]) -> None:
        """Listen in exactly the network namespaces with these descriptors, if the collector is outside."""
        wanted = {namespaces.number_of(network): network for network in networks if self._is_outside}
        for number in self._listening.keys() - wanted.keys():
            self._listening.pop(number).close()  # an open socket would keep the namespace alive
        for number in wanted.keys() - self._listening.keys():
            sock = namespaces.in_thread(partial(_listening_socket, wanted[number]))
            self._listening[number] = await asyncio.start_server(self._pass_on, sock=sock)

    async def aclose(self) -> None:
        """Stop listening and forwarding."""
        for server in self._listening.values():
            server.close()
        await self._pumps.aclose()

    @property
    def _is_outside(self) -> bool:
        return self._parts.scheme == "http"

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, both ways; the exporter detects a missing collector."""
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there = await asyncio.open_connection(self._parts.hostname, self._parts.port or 80)
            with contextlib.closing(there[1]):
                back = self._pumps.spawn(_pump(there[0], writer), name="from the collector")
                await _pump(reader, there[1])
                await asyncio.wait({back})


def _listening_socket(network: int) -> socket.socket:
    namespaces.enter(network, namespaces.NEW_NET)
    return socket.create_server(("127.0.0.1", _PORT))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
