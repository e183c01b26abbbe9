"""The names that clients resolve over their wires: each leads to the endpoint that the client's wire leads to."""

import asyncio
import subprocess
import sys
from pathlib import Path

from .mesh import ENDPOINTS, NAMED, own_address

PROGRAM = Path(__file__).with_name("name_server.py")
NAME = f"who.{NAMED}.test"


class Names:
    """A name server in the namespace of each endpoint of `NAMED`, which ends with the namespace."""

    def __init__(self, mesh):
        self._mesh, self._servers = mesh, {}

    async def serve(self):
        """Start those that do not run; one of an endpoint that has a new namespace has ended with the former one."""
        for endpoint, (_, service, _) in ENDPOINTS.items():
            former = self._servers.get(endpoint)
            if service == NAMED and (former is None or former.returncode is not None):
                network, _ = await self._place(endpoint)
                self._servers[endpoint] = await asyncio.create_subprocess_exec(
                    "nsenter", f"--net={network}", sys.executable, "-I", str(PROGRAM), str(own_address(endpoint))
                )

    async def stop(self):
        """End all."""
        for server in self._servers.values():
            if server.returncode is None:
                server.kill()
            await server.wait()

    async def faults(self, endpoint_of):
        """Clients for which a name leads nowhere or elsewhere, as sentences. `endpoint_of` knows where wires lead."""
        wires = [wire for wire in self._mesh.wires() if self._mesh.service_of(wire) == NAMED]
        found = await asyncio.gather(*(self._look_up(client) for client, _ in wires))
        wanted = [str(own_address(endpoint_of(wire))) for wire in wires]
        return [
            f"{client} finds {address or 'nothing'} for {NAME}, and its {interface} leads to {right}"
            for (client, interface), address, right in zip(wires, found, wanted, strict=True)
            if address != right
        ]

    async def _look_up(self, client):
        """As a program of the workload does."""
        network, mounts = await self._place(client)
        process = await asyncio.create_subprocess_exec(
            *["nsenter", f"--net={network}", f"--mount={mounts}", "getent", "ahostsv4", NAME], stdout=subprocess.PIPE
        )
        told, _ = await process.communicate()
        return told.decode().partition(" ")[0]

    async def _place(self, workload):
        place = await self._mesh.ask({"command": "place", "workload": workload})
        folder = f"/proc/{place['supervisor']}/fd"
        return f"{folder}/{place['network']}", f"{folder}/{place['mounts']}"
