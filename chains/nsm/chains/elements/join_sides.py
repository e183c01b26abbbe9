"""Joins the two interfaces of a pass-through endpoint: the one towards the client and the one towards the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Protocol

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext
from nsm.apis.mechanisms import BARE, INTERFACE_NAME, JOINT, KERNEL, LOCAL
from nsm.chains.core import Call, Element, Handler, Key

CLIENT_SIDE, SERVER_SIDE = "in-", "out-"
"""How the names of the interfaces begin; the rest is the same for both."""

OnJoined = Callable[[str, str], None]
"""Receives the names of the interfaces towards the client and towards the service when packets begin to pass."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two interfaces to join, by name, what they carry, and the addresses at the far end of each."""

    client_side: str
    server_side: str
    payload: str
    client_addresses: tuple[str, ...] = ()
    """The client's addresses with prefix lengths, as in the connection's context."""
    server_addresses: tuple[str, ...] = ()
    """The addresses of the endpoint at the end of the chain."""

    @property
    def mark(self) -> str:
        """Eight hexadecimal digits that are in the names of both."""
        return self.client_side.removeprefix(CLIENT_SIDE)


class Joiner(Protocol):
    """Joins interfaces, which may appear later, vanish and appear again."""

    def join(self, pair: Pair, on_joined: OnJoined) -> str | None:
        """Keep a pair joined from now on; a second call for it changes its addresses.

        `on_joined` is called each time when both interfaces are there and joined. Returns what the interface towards
        the client has to become a part of when it is made (`JOINT`), so that packets pass at once; a forwarder that
        does not know this leaves it to the joiner, a few milliseconds later. Raises `MeshError` if that can never
        succeed.
        """
        ...

    async def leave(self, client_side: str) -> None:
        """Join the pair with this interface no longer."""
        ...

    async def aclose(self) -> None:
        """Stop; what is joined stays."""
        ...


class JoinSides(Element):
    """For a pass-through endpoint: join both interfaces of a connection as soon as they exist, and again after repairs.

    Their names depend only on the connection, so that a restarted endpoint finds its interfaces joined. Both are
    requested without addresses and routes. Stands in the server's chain before the mechanisms; `ServerSide` stands in
    the client chain.
    """

    def __init__(self, joiner: Joiner, on_joined: OnJoined | None = None) -> None:
        self._joiner, self._on_joined = joiner, on_joined or _ignore
        self._joined: Key[bool] = Key("joined")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Name the interface towards the client; join both when the next endpoint has answered."""
        mark = mark_of(call.live.connection_id)
        for mechanism in _kernel_mechanisms(call):
            mechanism.parameters[INTERFACE_NAME] = f"{CLIENT_SIDE}{mark}"
            mechanism.parameters[BARE] = "true"
        connection = await rest.request(call)
        ip = connection.context.ip_context if connection.context is not None else None
        ip = ip or IpContext()
        if call.live.get(self._joined) is None:
            call.live.on_end(partial(self._joiner.leave, f"{CLIENT_SIDE}{mark}"))
            call.live.put(self._joined, True)
        pair = Pair(
            f"{CLIENT_SIDE}{mark}",
            f"{SERVER_SIDE}{mark}",
            connection.payload,
            tuple(ip.src_ip_addrs),
            tuple(ip.dst_ip_addrs),
        )
        part_of = self._joiner.join(pair, self._on_joined)
        if part_of and connection.mechanism is not None:
            connection.mechanism.parameters[JOINT] = part_of
        return connection

    async def aclose(self) -> None:
        """Stop; joined interfaces stay joined."""
        await self._joiner.aclose()


class ServerSide(Element):
    """For the client chain of a pass-through endpoint: request a kernel interface without addresses and routes.

    Stands behind `MechanismTranslation`.
    """

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Name the interface towards the service."""
        parameters = {INTERFACE_NAME: f"{SERVER_SIDE}{mark_of(call.live.connection_id)}", BARE: "true"}
        call.request.mechanism_preferences.append(Mechanism(cls=LOCAL, type=KERNEL, parameters=parameters))
        return await rest.request(call)


def mark_of(connection_id: str) -> str:
    """The part that the names of a connection's interfaces share."""
    return blake2b(connection_id.encode(errors="surrogatepass"), digest_size=4).hexdigest()


def _kernel_mechanisms(call: Call) -> list[Mechanism]:
    chosen = call.connection.mechanism
    return [each for each in (chosen, *call.request.mechanism_preferences) if each is not None and each.type == KERNEL]


def _ignore(_client_side: str, _server_side: str) -> None: ...
