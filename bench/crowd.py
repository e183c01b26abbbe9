"""Many clients in one process, each with an identity and a channel of its own: `bench.channels` tells them what to do.

    python -m bench.crowd NAME AUTHORITY URL SERVICE

Reads commands, one a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains import logs
from nsm.chains.composed import client
from nsm.chains.core import Call, MeshError
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.identity import Authority, Identity
from nsm.chains.model.interface_name import generate
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, check_health
from nsm.services.identity.authority_file import authority_at

PATIENCE = 60.0
"""Seconds that a client waits for its wire at most."""


@dataclass
class Crowd:
    """Clients of the manager at `url`, called `name` and a number each. Channels and wires stay until they leave."""

    name: str
    authority: Authority
    url: str
    service: str
    here: list[tuple[Pool, Callable[[], Awaitable[None]]]] = field(default_factory=list)
    """The channels that are open, and what closes the wire of each."""
    identities: list[Identity] = field(default_factory=list)

    async def obey(self, command: str, count: int, at_once: int) -> list[str]:
        """Do what one line says, for so many clients, so many of them at once; gives the errors that they met."""
        if command == "prepare":  # issuing identities is not the mesh's work
            self.identities = [identity_of(self.authority, f"node-1/{self.name}-{number}") for number in range(count)]
            return []
        work = {"idle": self._idle, "connect": self._connect, "setup": self._set_up, "leave": self._leave}[command]
        return await _each(list(range(count)), at_once, work)

    async def _connect(self, number: int) -> None:
        await self._comes(number).channel(self.url).peer()

    async def _idle(self, number: int) -> None:
        if not await check_health(self._comes(number), self.url):
            raise MeshError("it is not healthy")

    async def _set_up(self, number: int) -> None:
        elements = [KernelClient(), SendDescriptors()]
        pool = Pool(self.identities[number])
        chain = client(f"{self.name}-{number}", elements, RemoteNetworkService(pool), url=self.url)
        preference = Mechanism(cls=LOCAL, type=KERNEL, parameters={INTERFACE_NAME: generate(f"{self.name}-{number}")})
        wanted = Connection(id=f"{self.name}-{secrets.token_hex(8)}", network_service=self.service)
        request = NetworkServiceRequest(connection=wanted, mechanism_preferences=[preference])
        try:
            connection = await chain.request(_call(request))
        except MeshError:
            await pool.__aexit__(None, None, None)
            raise
        self.here.append((pool, lambda: chain.close(_call(NetworkServiceRequest(connection=connection)))))

    async def _leave(self, _number: int) -> None:
        if self.here:
            pool, close = self.here.pop()
            try:
                await close()
            finally:
                await pool.__aexit__(None, None, None)

    def _comes(self, number: int) -> Pool:
        self.here.append((Pool(self.identities[number]), _no_wire))
        return self.here[-1][0]


async def _no_wire() -> None:
    """Close nothing."""


def _call(request: NetworkServiceRequest) -> Call:
    return Call(request, deadline=asyncio.get_running_loop().time() + PATIENCE)


async def _each(numbers: list[int], at_once: int, work: Callable[[int], Awaitable[None]]) -> list[str]:
    errors: list[str] = []

    async def worker() -> None:
        while numbers:
            try:
                await work(numbers.pop())
            except MeshError as error:
                errors.append(str(error))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return errors


async def _main(name: str, authority: str, url: str, service: str) -> None:
    crowd = Crowd(name, authority_at(authority, "local.mesh"), url, service)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, count, at_once = line.split()
        print(json.dumps(await crowd.obey(command, int(count), int(at_once))), flush=True)


if __name__ == "__main__":
    logs.set_up("crowd", "ERROR")
    asyncio.run(_main(*sys.argv[1:]))
