"""A run of chaos: break something, see that everything comes back as it has to, break the next thing."""

import asyncio
import statistics
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager

from nsm.chains import logs

from .faults import break_it, schedule
from .haste import Haste
from .look import faults as faults_of
from .look import leaks, look, look_inside
from .mesh import CLIENTS, ENDPOINTS, PAYLOADS, Mesh
from .names import Names
from .traffic import Traffic

RATE = 50
"""Packets a second on each wire."""
CLEAN = 32.0
"""Seconds after a fault within which nothing may be left of what it ended: tokens live 20."""
RESTART = 180.0
STARVED = 10.0
"""So many times late, a machine does not give the programs of WireGuard wires the second within which echoes count:
they may lose packets, and move."""
WORTH_TELLING = 3.0


class Broken(AssertionError):
    """The mesh did not come back as it had to; the text says what is wrong, and after which fault."""


class Chaos:
    """A mesh under traffic. `told` hears one line for each fault."""

    def __init__(self, mesh, told=print):
        self.mesh, self.traffic, self._told = mesh, Traffic(mesh.ask, RATE), told
        self.names, self._haste = Names(mesh), Haste()
        self.heals = []
        self._tables, self._inside, self._seen_tidy = {}, None, set()

    @classmethod
    @asynccontextmanager
    async def begun(cls, name, told=print):
        """With the mesh up and all wires passing; taken down afterwards, which leaves nothing."""
        logs.set_up("chaos", "ERROR")
        with tempfile.TemporaryDirectory(prefix="nsm-chaos-") as folder:
            chaos = cls(Mesh(name, folder), told)
            try:
                await chaos.mesh.up()
                await asyncio.gather(*(chaos.traffic.start(client) for client in CLIENTS))
                await chaos._until_passing(chaos.mesh.wires(), time.monotonic(), 5.0, "the start")
                await chaos.names.serve()
                view = await look(chaos.mesh)
                chaos._tables, chaos._inside = view.rules, await look_inside(chaos.mesh, view)
                await chaos._until_clean("the start")
                yield chaos
            finally:
                chaos._haste.stop()
                await chaos.traffic.stop()
                await chaos.names.stop()
                await chaos.mesh.down()

    async def go(self, seed, seconds, kinds=None):
        """Faults of `seed` for `seconds`; returns how many. Raises `Broken`."""
        end = time.monotonic() + seconds
        for count, fault in enumerate(schedule(seed, kinds)):
            if time.monotonic() >= end:
                return count
            await self.round(fault, f"fault {count + 1} of seed {seed}")
        raise AssertionError("a schedule has no end")

    async def round(self, fault, called):
        """One fault and what has to be true after it. Raises `Broken`."""
        before, tunnels = await look(self.mesh), self._tunnels()
        begin = time.monotonic()
        after = f"{called} ({fault})"
        effect = await asyncio.wait_for(break_it(fault, self), RESTART + fault.pause)
        await self.names.serve()
        done = time.monotonic()
        since = done if effect.since is None else effect.since
        back = await self._until_passing(effect.wires, since, effect.bound, after, effect.left)
        await self.traffic.settle()
        late = self._haste.stretch(begin, time.monotonic())
        excused = sorted(tunnels | self._tunnels()) if late > STARVED else []
        self._check_losses(effect, begin, after, excused)
        clean = await self._until_clean(after)
        await self._check_kept(before, effect, after, excused)
        worst = f", back after {max(back.values()):.1f} s" if back else ""
        told = f", on a machine that is {late:.1f} times late" if late > WORTH_TELLING else ""
        told += f", whatever packets of {', '.join(map(' '.join, excused))} were lost" if excused else ""
        self._told(f"{called}: {fault}: {time.monotonic() - begin:.1f} s{worst}{clean}{told}")

    def _tunnels(self):
        """The wires whose packets pass through programs."""
        return {wire for wire in self.crossing() if PAYLOADS[self.mesh.service_of(wire)] == "IP"}

    def _check_losses(self, effect, begin, after, excused):
        lossless = [wire for wire in self.mesh.wires() if wire not in [*effect.wires, *excused]]
        end = time.monotonic() - 0.7
        lost = {wire: self.traffic.lost(wire, begin, end) for wire in lossless}
        if bad := {wire: numbers for wire, numbers in lost.items() if numbers[0]}:
            told = ", ".join(f"{' '.join(wire)} {lost} of {sent}" for wire, (lost, sent) in bad.items())
            raise Broken(f"packets were lost after {after} on wires that it does not concern: {told}")

    async def until_passing(self, wires, since, bound, left=()):
        """See `Traffic.until_passing`; the bound is longer by what this machine is late."""
        return await self.traffic.until_passing(wires, since, self._stretched(bound, since), left)

    def _stretched(self, bound, since):
        return lambda: bound * self._haste.stretch(since, time.monotonic())

    async def _until_passing(self, wires, since, bound, after, left=()):
        back = await self.until_passing(wires, since, bound, left)
        if missing := [wire for wire in wires if wire not in back]:
            wires_now = (await self.mesh.status())["wires"]
            told = [f"{w['client']} {w['interface']} {w['state']} {w.get('reason', '')}" for w in wires_now]
            gone = ", ".join(" ".join(wire) for wire in missing)
            late = self._stretched(bound, since)()
            raise Broken(f"no packets {late:.1f} s (of {bound}) after {after}: {gone}; status: {'; '.join(told)}")
        return back

    async def _until_clean(self, after):
        since, last, self._seen_tidy = time.monotonic(), "", set()
        while found := await self._found():
            last = "; ".join(found)
            if time.monotonic() > since + CLEAN:
                raise Broken(f"still wrong {CLEAN:.0f} s after {after}: {last}")
            await asyncio.sleep(0.5)
        took = time.monotonic() - since
        return f", clean after {took:.1f} s: {last}" if took > WORTH_TELLING else ""

    async def _found(self):
        """What is wrong: first what everything else depends on."""
        view = await look(self.mesh)
        if found := [*faults_of(view, self.mesh, self._tables), *await self._not_up()]:
            return found
        untidy = leaks(await look_inside(self.mesh, view), self._inside, self._seen_tidy)
        return untidy or await self.names.faults(self.endpoint_of)

    async def _not_up(self):
        """Wires whose requests do not pass again."""
        wires = (await self.mesh.status())["wires"]
        wanted = {*self.mesh.wires()}
        states = {(wire["client"], wire["interface"]): wire["state"] for wire in wires}
        return [f"{' '.join(wire)} is {states.get(wire)}" for wire in wanted if states.get(wire) != "UP"]

    async def _check_kept(self, before, effect, after, excused):
        """A wire that the fault does not concern has kept its interface and its addresses."""
        now = await look(self.mesh)
        for wire in self.mesh.wires():
            if wire in [*effect.wires, *excused]:
                continue
            was, is_now = (
                [(link.index, link.addresses) for link in view.links[wire[0]] if link.name == wire[1]]
                for view in (before, now)
            )
            if was and was != is_now:
                raise Broken(f"{' '.join(wire)} was {was} and is {is_now} after {after}")

    def now(self):
        """The clock of all reports."""
        return time.monotonic()

    def healed(self, seconds):
        """Note how long wires were away that found another endpoint."""
        self.heals += seconds

    def endpoint_of(self, wire):
        """The endpoint at the other end of a wire."""
        target = self.traffic.target(wire) or ""
        prefixes = {prefix.rpartition(".")[0] + ".": name for name, (_, _, prefix) in ENDPOINTS.items()}
        return next((name for prefix, name in prefixes.items() if target.startswith(prefix)), None)

    def crossing(self):
        """The wires between nodes."""
        nodes = {wire: (self.mesh.node_of[wire[0]], self.endpoint_of(wire)) for wire in self.mesh.wires()}
        return [wire for wire, (node, endpoint) in nodes.items() if endpoint and ENDPOINTS[endpoint][0] != node]

    async def far_end(self, wire):
        """Where the other end of a wire is: the endpoint, and the interface there."""
        endpoint = self.endpoint_of(wire)
        view = await look(self.mesh)
        own = next(link for link in view.links[wire[0]] if link.name == wire[1])
        link = next(link for link in view.links[endpoint] if link.hosts & set(own.addresses))
        return endpoint, link.name

    async def run_in(self, workload, script):
        """A shell command in the network namespace of a workload."""
        place = await self.mesh.ask({"command": "place", "workload": workload})
        namespace = f"--net=/proc/{place['supervisor']}/fd/{place['network']}"
        process = await asyncio.create_subprocess_exec(
            "nsenter", namespace, "sh", "-c", script, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, told = await process.communicate()
        return process.returncode, told.decode()

    async def expect_gone(self, client, interface, bound):
        """Wait until a client has an interface no more. Raises `Broken`."""
        since = time.monotonic()
        while await self._has(client, interface):
            if time.monotonic() > since + self._stretched(bound, since)():
                raise Broken(f"{client} still has {interface} {bound} s after it is not wanted any more")
            await asyncio.sleep(0.1)

    async def until_made(self, client, bound):
        """Wait until a client has the interface of one of its wires, or for `bound` seconds if it gets none."""
        deadline = time.monotonic() + bound
        while not any([await self._has(client, name) for name in self.mesh.wanted[client]]):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.01)

    async def _has(self, client, interface):
        code, _ = await self.run_in(client, f"ip link show {interface}")
        return code == 0

    async def expect_no_record(self, names, since, bound):
        """Wait until no manager finds endpoints that ended `since`. Raises `Broken`."""
        while left := {*names} & {each for found in (await self.mesh.records()).values() for each in found}:
            if time.monotonic() > since + self._stretched(bound, since)():
                raise Broken(f"{', '.join(left)} ended {bound} s ago and are still registered")
            await asyncio.sleep(0.5)

    async def expect_moved(self, wires, endpoint, bound):
        """Wait until packets pass to `endpoint` on all of `wires`. Raises `Broken`."""
        since = time.monotonic()
        while elsewhere := [wire for wire in wires if self.endpoint_of(wire) != endpoint]:
            if time.monotonic() > since + self._stretched(bound, since)():
                told = ", ".join(" ".join(wire) for wire in elsewhere)
                raise Broken(f"not at {endpoint} {bound} s after the service was edited: {told}")
            await asyncio.sleep(0.1)

    def summary(self):
        """One line about how long wires took to find another endpoint."""
        if not self.heals:
            return "no wire had to find another endpoint"
        return (
            f"{len(self.heals)} wires found another endpoint: median {statistics.median(self.heals):.2f} s, "
            f"longest {max(self.heals):.2f} s"
        )
