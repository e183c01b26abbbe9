"""The packets that pass on every wire of a mesh while things break."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

PROGRAM = Path(__file__).with_name("pinger.py")


class Traffic:
    """Pings on all wires of clients, `rate` a second each; `reports` by wire (client, interface), a slot each.

    `ask` has the supervisor of their mesh do something.
    """

    def __init__(self, ask, rate, slot=0.1):
        self._ask, self._rate, self._slot = ask, rate, slot
        self.reports = defaultdict(list)
        self._news = asyncio.Condition()
        self._pingers = {}

    async def start(self, client):
        """Ping from the namespace that a client has now, in which the pings end with everything else."""
        await self._start(client, ["nsenter", f"--net={await self._place(client)}"], [])

    async def start_all(self, clients):
        """Ping from the namespaces that all these have now, by one process, which keeps the namespaces."""
        await self._start("", [], [f"{client}={await self._place(client)}" for client in clients])

    async def _place(self, client):
        place = await self._ask({"command": "place", "workload": client})
        return f"/proc/{place['supervisor']}/fd/{place['network']}"

    async def _start(self, client, where, places):
        process = await asyncio.create_subprocess_exec(
            *where,
            sys.executable,
            "-I",
            str(PROGRAM),
            str(self._rate),
            str(self._slot),
            *places,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._pingers[client] = process, asyncio.create_task(self._read(client, process.stdout))

    async def stop(self, client=None):
        """End the pings of one client, or of all."""
        for name in [client] if client is not None else list(self._pingers):
            if name in self._pingers:
                process, reading = self._pingers.pop(name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                await asyncio.gather(process.wait(), reading)

    async def _read(self, client, lines):
        async for line in lines:
            report = json.loads(line)
            self.reports[client or report["name"], report["wire"]].append(report)
            async with self._news:
                self._news.notify_all()

    async def until_passing(self, wires, since, bound, left=()):
        """Wait until each of `wires` has had a slot without loss after `since`, to an address that is not one of `left`.

        Returns the seconds that each took; those that are not back `bound` seconds after `since` are missing. A bound
        may be a function that returns what it is at the moment.
        """
        back, bound_now = {}, bound if callable(bound) else lambda: bound
        while len(back) < len(wires):
            for wire in wires:
                if wire not in back and (report := self._first_good(wire, since, left)) is not None:
                    back[wire] = report["at"] + self._slot - since
            if len(back) == len(wires):
                break
            remaining = since + bound_now() + 1 - time.monotonic()  # what was sent in time is reported a little later
            if remaining <= 0:
                break
            async with self._news:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), min(remaining, 0.5))
        return {wire: seconds for wire, seconds in back.items() if seconds <= bound_now()}

    def lost(self, wire, begin, end):
        """How many packets that were sent between two moments got no answer, and how many were sent."""
        chosen = [report for report in self.reports[wire] if begin <= report["at"] < end]
        return sum(report["lost"] for report in chosen), sum(report["sent"] for report in chosen)

    def target(self, wire):
        """The address at the other end, as it was pinged last."""
        return self.reports[wire][-1]["to"] if self.reports[wire] else None

    async def settle(self):
        """Wait until all that was sent up to now has been reported."""
        await asyncio.sleep(0.8)

    def _first_good(self, wire, since, left):
        good = (r for r in reversed(self.reports[wire]) if r["sent"] and not r["lost"] and r["to"] not in left)
        found = None
        for report in good:
            if report["at"] < since:
                break
            found = report
        return found
