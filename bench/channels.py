"""What a channel costs a manager while it is open and idle, and after it; a thousand clients with a channel each.

    python -m bench.channels

measures this alone. A bare channel is what asyncio's TLS and h2 need for one, without any gRPC.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection

from bench.running import NSM, mesh, pids
from bench.start import resident_mib
from nsm.chains.testing.identity import identity_of
from nsm.mesh.rundir import RunDir
from nsm.services.identity.authority_file import authority_at

CHANNELS, AT_ONCE, WARM, _PROCESSES = 1_000, 100, 200, 10
_SERVICE = "icmp-responder"
_TOPOLOGY = f"""
nodes: [{{name: node-1}}]
endpoints:
  - {{name: endpoint, node: node-1, services: [{_SERVICE}], payload: IP, prefixes: [10.0.0.0/12]}}
clients:
  - {{name: client, node: node-1, wires: ["kernel://{_SERVICE}/nsm-1"]}}
"""
_STEADY, _LONGEST = 6.0, 30.0
"""Seconds that memory does not change, until it is looked at; and that this may take."""


Tell = Callable[[str, int, int], tuple[float, list[str]]]
"""A command for so many clients, so many of them at once; gives the seconds that it took, and errors."""


def measure() -> list[tuple[str, float, str]]:
    """KiB of a manager for an idle channel, MiB that a thousand leave, seconds for a thousand clients."""
    with mesh("bench-channels", _TOPOLOGY) as run:
        manager = pids(run)["nsmgr-node-1"]
        with _crowd(run, f"unix://{run.socket_of('nsmgr-node-1')}") as tell:
            each, left = _weighed(tell, manager, "idle")
            tell("setup", WARM, AT_ONCE)
            tell("leave", WARM, AT_ONCE)
            seconds, errors = tell("setup", CHANNELS, AT_ONCE)
            tell("leave", CHANNELS, AT_ONCE)
        with _bare_server(str(run.authority_of("identity"))) as (pid, url), _crowd(run, url) as tell:
            bare, _ = _weighed(tell, pid, "connect")
    if errors:
        raise RuntimeError(f"{len(errors)} clients of {CHANNELS} have no wire: {errors[:3]}")
    return [
        ("channel_kib", each, "KiB"),
        ("bare_channel_kib", bare, "KiB"),
        ("channels_left_mib", left / 1024, "MiB"),
        ("setup_1000_channels_s", seconds, "s"),
    ]


def _weighed(tell: Tell, pid: int, command: str) -> tuple[float, float]:
    """KiB of the process `pid` for each of a thousand channels, and what is left of all when they are gone."""
    for count in (WARM, CHANNELS):  # the first time, what is made once is made
        before = _settled(pid)
        _, errors = tell(command, count, AT_ONCE)
        if errors:
            raise RuntimeError(f"{len(errors)} channels of {count} are not there: {errors[:3]}")
        during = _settled(pid)
        tell("leave", count, AT_ONCE)
    return (during - before) / CHANNELS, max(0.0, _settled(pid) - before)


def _settled(pid: int) -> float:
    """KiB of a process, when it has stopped to grow or to shrink."""
    last, since, end = 0.0, 0.0, time.monotonic() + _LONGEST
    while (now := time.monotonic()) < end:
        if abs(last - (seen := resident_mib(pid))) > 0.1:
            last, since = seen, now
        elif now > since + _STEADY:
            break
        time.sleep(0.1)
    return 1024 * last


@contextmanager
def _crowd(run: RunDir, url: str) -> Iterator[Tell]:
    """A thousand clients in the client's network namespace, and what tells them what to do.

    They are in some processes: a component has an eye on how many connections of one come at once.
    """
    with ExitStack() as stack:
        processes = []
        for number in range(_PROCESSES):
            command = [
                sys.executable,
                "-m",
                "bench.crowd",
                f"crowd-{number}",
                str(run.authority_of("identity")),
                url,
                _SERVICE,
            ]
            words = [*NSM, "mesh", "exec", "--name", run.name, "client", "--", *command]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.stdin.close)  # type: ignore[union-attr]
            processes.append(process)

        def tell(command: str, count: int, at_once: int) -> tuple[float, list[str]]:
            begin = time.perf_counter()
            for process in processes:
                print(command, count // _PROCESSES, at_once // _PROCESSES, file=process.stdin, flush=True)
            answers = [process.stdout.readline() for process in processes]  # type: ignore[union-attr]
            return time.perf_counter() - begin, [error for answer in answers for error in json.loads(answer)]

        tell("prepare", CHANNELS, AT_ONCE)
        yield tell


# --- what the libraries need


@contextmanager
def _bare_server(authority: str) -> Iterator[tuple[int, str]]:
    words = [sys.executable, "-m", "bench.channels", authority]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.stdin.close()


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.h2 = transport, H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        self.h2.receive_data(data)
        self.transport.write(self.h2.data_to_send())


async def _serve_bare(authority: str) -> None:
    context = identity_of(authority_at(authority, "local.mesh"), "bare").server_context()
    path = f"{authority}.bare"
    server = await asyncio.get_running_loop().create_unix_server(_Bare, path, ssl=context, backlog=1024)
    print(f"unix://{path}", flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(_serve_bare(sys.argv[1]))
    else:
        for name, value, unit in measure():
            print(f"{name:24} {value:10.2f} {unit}")
