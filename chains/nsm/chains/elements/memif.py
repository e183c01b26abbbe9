"""Memif, as workloads with a VPP or a library of their own name it: an abstract socket in their namespace."""

from __future__ import annotations

from collections.abc import Callable

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import INODE_URL, MEMIF, SOCKET_FILE
from nsm.chains.core import Call, Element, Handler
from nsm.chains.logs import log

from .kernel import own_namespace


class MemifClient(Element):
    """For a client: request memifs in this process's own network namespace, and log where to connect to them.

    The forwarder listens; the workload's memif is the slave (client) of the socket in the answer's `socketfile`.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace or own_namespace()

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete every preference of the kind."""
        chosen = call.connection.mechanism
        for mechanism in [*call.request.mechanism_preferences, *([chosen] if chosen is not None else [])]:
            if mechanism.type == MEMIF:
                mechanism.parameters[INODE_URL] = self._namespace
        connection = await rest.request(call)
        answer = connection.mechanism
        if answer is not None and answer.type == MEMIF and chosen is None:
            socket = answer.parameters.get(SOCKET_FILE, "")
            log.info("memif ready", service=connection.network_service, connection=connection.id, socket=socket)
        return connection


class MemifEndpoint(Element):
    """For an endpoint: its memif of a connection is the master of the socket that `socket_of` names by the id."""

    def __init__(self, socket_of: Callable[[str], str], namespace: str | None = None) -> None:
        self._socket_of, self._namespace = socket_of, namespace or own_namespace()

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the chosen mechanism."""
        mechanism = call.connection.mechanism
        if mechanism is not None and mechanism.type == MEMIF:
            mechanism.parameters[INODE_URL] = self._namespace
            mechanism.parameters[SOCKET_FILE] = self._socket_of(call.live.connection_id)
        return await rest.request(call)
