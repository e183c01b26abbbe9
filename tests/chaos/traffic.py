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
    """Pings on all wires of the clients of `mesh`, `rate` a second each; `reports` by wire (client, interface)."""

    def __init__(self, mesh, rate):
        self._mesh, self._rate = mesh, rate
        self.reports = defaultdict(list)
        self._news = asyncio.Condition()
        self._pingers = {}

    async def start(self, client):
        """Ping from the namespace that a client has now."""
        place = await self._mesh.ask({"command": "place", "workload": client})
        namespace = f"/proc/{place['supervisor']}/fd/{place['network']}"
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={namespace}", sys.executable, "-I", str(PROGRAM), str(self._rate),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
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
            self.reports[client, report["wire"]].append(report)
            async with self._news:
                self._news.notify_all()

    async def until_passing(self, wires, since, bound):
        """Wait until each of `wires` has had a tenth of a second without loss after `since`.

        Returns the seconds that each took; those that are not back `bound` seconds after `since` are missing.
        """
        back = {}
        deadline = since + bound
        while len(back) < len(wires):
            for wire in wires:
                if wire not in back and (report := self._first_good(wire, since)) is not None:
                    back[wire] = report["at"] - since
            if len(back) == len(wires):
                break
            remaining = deadline + 1 - time.monotonic()  # what was sent in time is reported a little later
            if remaining <= 0:
                break
            async with self._news:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), min(remaining, 0.5))
        return {wire: seconds for wire, seconds in back.items() if seconds <= bound}

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

    def _first_good(self, wire, since):
        return next((r for r in self.reports[wire] if r["at"] >= since and r["sent"] and not r["lost"]), None)
