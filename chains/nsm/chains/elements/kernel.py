"""Kernel interfaces, as clients and endpoints name them: a network namespace and an interface in it."""

from __future__ import annotations

import os
from functools import partial

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model.interface_name import generate

from .mechanisms import note_interface


class KernelClient(Element):
    """For a client: offer a kernel interface in this process's own network namespace, by the given or a random name."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace or own_namespace()
        self.names: set[str] = set()
        """Names of the requested interfaces, as long as their connections live."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete every preference of the kind; add one if there is no preference at all."""
        preferences = call.request.mechanism_preferences
        if not preferences:
            preferences.append(Mechanism(cls=LOCAL, type=KERNEL))
        wanted = [preference for preference in preferences if preference.type == KERNEL]
        for mechanism in wanted:
            mechanism.parameters[INODE_URL] = self._namespace
            if not mechanism.parameters.get(INTERFACE_NAME):
                mechanism.parameters[INTERFACE_NAME] = generate(call.connection.network_service)
            self._remember(mechanism.parameters[INTERFACE_NAME], call)
        if (chosen := call.connection.mechanism) is not None and chosen.type == KERNEL:
            chosen.parameters[INODE_URL] = self._namespace
            self._remember(chosen.parameters.get(INTERFACE_NAME, ""), call)
        note_interface(call.connection, "client_interface", chosen or preferences[0])
        return await rest.request(call)

    def _remember(self, name: str, call: Call) -> None:
        if name and call.store is not None and name not in self.names:
            self.names.add(name)
            call.store.on_end(partial(self.names.discard, name))


class KernelServer(Element):
    """For an endpoint: its end of the wire is in this process's own network namespace, under an unused name."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace or own_namespace()
        self._given: set[str] = set()
        """Names of interfaces that may not exist yet."""
        self._name: Key[str] = Key("interface name")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the chosen mechanism."""
        mechanism = call.connection.mechanism
        if mechanism is not None and mechanism.type == KERNEL:
            mechanism.parameters[INODE_URL] = self._namespace
            if not mechanism.parameters.get(INTERFACE_NAME):
                mechanism.parameters[INTERFACE_NAME] = self._give_name(call)
        return await rest.request(call)

    def _give_name(self, call: Call) -> str:
        """A name; always the same for a connection, so that a restarted forwarder finds its interface."""
        if (name := call.live.get(self._name)) is None:
            name = call.live.put(self._name, generate(call.connection.network_service, self._given))
            self._given.add(name)
            call.live.on_end(partial(self._given.discard, name))
        return name


class OfferKernel(Element):
    """For a forwarder's client chain: offer the endpoint a kernel interface, whose place and name it chooses."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference."""
        call.request.mechanism_preferences.append(Mechanism(cls=LOCAL, type=KERNEL))
        return await rest.request(call)


def own_namespace() -> str:
    """The network namespace of this process, as a URL."""
    return f"file:///proc/{os.getpid()}/ns/net"
