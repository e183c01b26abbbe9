"""A client that minds its own business while others are attacked: a process of its own, so that nothing but the mesh
slows it. ``python -m tests.hostile.bystander MANAGER AUTHORITY-FILE SPIFFE-ID SERVICE``; see `Bystander`.

Its requests are due at fixed times. One that waits for a frozen component keeps those behind it waiting, as it would
keep other clients: they count with what is left of the wait when they were due.
"""

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains import logs
from nsm.chains.composed import client
from nsm.chains.core import Call, MeshError
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService
from nsm.services.identity.authority_file import authority_at

INTERVAL = 0.02
"""Seconds from one request to the next."""
FEWEST = 60
"""Requests of one watch: it goes on after the attack until there are as many."""
QUIET = 60
FACTOR, MARK_MS, GROWTH_MIB = 5, 100.0, 32.0
ATTACKED = ("registry", "nsmgr", "forwarder", "endpoint")


def p99(values):
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0


@dataclass
class Seen:
    """What a bystander saw, in milliseconds; how much more memory each component has than before, and at most had."""

    latencies: list[float] = field(default_factory=list)
    requests: int = 0
    errors: list[str] = field(default_factory=list)
    quiet: float = 0.0
    growth: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    @property
    def p99(self):
        return p99(self.latencies)

    @property
    def mark(self):
        """What 99 of a hundred requests may take."""
        return max(FACTOR * self.quiet, MARK_MS)

    def __str__(self):
        grown = ", ".join(f"{name} {mib:+.0f} MiB (peak {self.peak[name]:+.0f})" for name, mib in self.growth.items())
        return f"p99 {self.p99:.1f} ms of {self.requests} requests, quiet {self.quiet:.1f} ms; {grown}; errors: {self.errors[:3]}"


class Bystander:
    """The other side: starts and ends watches of the process, and judges what it saw."""

    def __init__(self, target, authority_file):
        self.target = target
        words = [sys.executable, "-m", "tests.hostile.bystander"]
        words += [target.urls["nsmgr"], str(authority_file), target.id_of("bystander"), "icmp"]
        self._process = subprocess.Popen(
            [*target.enter, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.quiet = 0.0
        self.watches = []
        """Of each attack: the test, latencies in milliseconds, the number of requests."""

    def begin(self):
        print("begin", file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "began\n", "the bystander gets no connection"

    def end(self, fewest=FEWEST):
        print(f"end {fewest}", file=self._process.stdin, flush=True)
        return Seen(**json.loads(self._process.stdout.readline()))

    def measure_quiet(self):
        """What its requests take when nobody attacks. Raises AssertionError if they fail even so."""
        self.begin()
        seen = self.end(QUIET)
        assert not seen.errors, seen.errors[:3]
        self.quiet = max(self.quiet, seen.p99)

    @contextlib.asynccontextmanager
    async def watching(self, *, growth=GROWTH_MIB, peak=None, errors=False, is_attack=True):
        """While the body attacks: its requests go on. Raises AssertionError if they were slowed or failed, if one of the
        components ended or kept more than `growth` MiB, or (if given) had more than `peak` MiB on the way.

        Gives `Seen`, which is filled at the end. `errors`: its requests may fail. `is_attack`: it counts in the figures.
        """
        if not self.quiet:
            await asyncio.to_thread(self.measure_quiet)
        before = {component: self.target.resident_mib(component) for component in ATTACKED}
        self.target.forget_peaks()
        await asyncio.to_thread(self.begin)
        seen = Seen()
        try:
            yield seen
        finally:
            seen.__dict__.update((await asyncio.to_thread(self.end)).__dict__)
            assert self.target.is_whole(), f"a component ended: {self.target.pids}"
            self._weigh(seen, before)
            if seen.p99 > seen.mark:  # the machine may have become slower, too
                await asyncio.to_thread(self.measure_quiet)
                seen.quiet = self.quiet
            if is_attack:
                test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0].partition("[")[0]
                self.watches.append({"test": test, "latencies": seen.latencies, "requests": seen.requests})
        assert errors or not seen.errors, str(seen)
        assert seen.p99 <= seen.mark, f"others were made to wait: {seen}"
        assert max(seen.growth.values()) <= growth, f"memory was not given back: {seen}"
        assert peak is None or max(seen.peak.values()) <= peak, f"memory was not bounded: {seen}"

    def _weigh(self, seen, before):
        seen.quiet = self.quiet
        for component, mib in before.items():
            seen.peak[component] = self.target.resident_mib(component, "VmHWM") - mib
            seen.growth[component] = self.target.resident_mib(component) - mib

    def close(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# --- the process


class _Watch:
    """Requests at fixed times until told to end."""

    def __init__(self, chain, service):
        self._chain, self._service = chain, service
        self._latencies, self._errors, self._requests = [], [], 0

    async def request(self):
        mechanism = Mechanism(cls=LOCAL, type=KERNEL, parameters={INTERFACE_NAME: "by-1"})
        connection = Connection(id="bystander-1", network_service=self._service)
        call = NetworkServiceRequest(connection=connection, mechanism_preferences=[mechanism])
        await self._chain.request(Call(call, deadline=asyncio.get_running_loop().time() + 15))

    async def run(self, ending):
        """`ending` gets the number of requests that are enough."""
        while not (ending.done() and self._requests >= ending.result()):
            begin = time.perf_counter()
            try:
                await self.request()
            except MeshError as error:
                self._errors.append(str(error))
            taken = time.perf_counter() - begin
            self._requests += 1
            while taken > 0:
                self._latencies.append(taken * 1000)
                taken -= INTERVAL
            await asyncio.sleep(max(0.0, begin + INTERVAL - time.perf_counter()))
        return {"latencies": self._latencies, "errors": self._errors, "requests": self._requests}


async def main(manager, authority_file, spiffe_id, service):
    domain, _, path = spiffe_id.removeprefix("spiffe://").partition("/")
    identity = identity_of(authority_at(authority_file, domain), path)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Pool(identity, dial_timeout=5) as pool:
        chain = client("bystander", [KernelClient(), SendDescriptors()], RemoteNetworkService(pool), url=manager)
        while await reader.readline() == b"begin\n":
            watch, ending = _Watch(chain, service), asyncio.get_running_loop().create_future()
            await watch.request()
            print("began", flush=True)
            running = asyncio.ensure_future(watch.run(ending))
            ending.set_result(int((await reader.readline() or b"end 0").split()[1]))
            print(json.dumps(await running), flush=True)


if __name__ == "__main__":
    logs.set_up("bystander", "WARNING")
    asyncio.run(main(*sys.argv[1:]))
