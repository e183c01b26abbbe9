"""`nsm bench connect`: puts load on a manager, ours or another implementation's."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.composed import client
from nsm.chains.core import Call, Chain, MeshError
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.model.interface_name import generate
from nsm.chains.terminal import escaped_lines
from nsm.chains.tools.arguments import Parser, count, seconds
from nsm.chains.tools.session import run, session
from nsm.chains.transport import RemoteNetworkService

_ECHO_REQUEST, _ICMP_TIMEOUT = 8, 1.0
_BESIDE_AT_ONCE = 20


@dataclass
class Result:
    """Milliseconds of every call, and errors."""

    setup: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)
    close: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost_first_packets: int = 0
    setup_total_s: float = 0.0
    close_total_s: float = 0.0


def main(arguments: list[str]) -> int:
    """Requests many connections from a manager, closes them again, and measures how long that takes."""
    parser = Parser(prog="nsm bench", description=main.__doc__)
    connect = parser.add_subparsers(required=True, metavar="WHAT").add_parser("connect", help=main.__doc__)
    connect.add_argument("--url", required=True, help="the manager")
    connect.add_argument("--service", required=True, metavar="NAME", help="the network service to request")
    connect.add_argument("-n", type=count(1), default=100, help="how many connections [100]")
    connect.add_argument("-c", type=count(1), default=1, help="how many at once [1]")
    connect.add_argument("--cycle", action="store_true", help="close each before the next one is requested")
    connect.add_argument(
        "--pause", type=seconds, default=0.0, metavar="SECONDS", help="with --cycle: pause between two"
    )
    connect.add_argument("--beside", type=count(0), default=0, metavar="N", help="keep N others open, unmeasured")
    connect.add_argument("--refresh", action="store_true", help="refresh each once before it is closed")
    connect.add_argument("--first-packet", action="store_true", help="send one ping when a request has returned")
    connect.add_argument("--timeout", type=seconds, default=15.0, metavar="SECONDS", help="timeout of one call [15]")
    connect.add_argument("--json", action="store_true", help="machine-readable, with every single time")
    parsed = parser.parse_args(arguments)

    async def work() -> int:
        async with session() as pool:
            await pool.channel(parsed.url).peer()
            load = _Load(parsed, client(_name(), _elements(), RemoteNetworkService(pool), url=parsed.url))
            async with load.beside(parsed.beside):
                result = await load.run()
        print(json.dumps(result.__dict__) if parsed.json else escaped_lines(_table(result)))
        return 1 if result.errors else 0

    return run("bench", work)


def _name() -> str:
    return f"bench-{secrets.token_hex(4)}"


def _elements() -> list[Any]:
    return [KernelClient(), SendDescriptors()]


class _Load:
    """Runs the connections, some at once: all set-ups, then all refreshes, then all closes; or each in a cycle."""

    def __init__(self, parsed: argparse.Namespace, chain: Chain) -> None:
        self._parsed, self._chain = parsed, chain
        self._result = Result()
        self._open: list[Connection] = []

    async def run(self) -> Result:
        numbers, result = list(range(self._parsed.n)), self._result
        begin = time.perf_counter()
        if self._parsed.cycle:
            await self._each(numbers, self._cycle)
            result.setup_total_s = time.perf_counter() - begin
            return result
        await self._each(numbers, self._set_up)
        result.setup_total_s = time.perf_counter() - begin
        if self._parsed.refresh:
            await self._each(list(self._open), self._refresh)
        begin = time.perf_counter()
        await self._each(list(self._open), self._close)
        result.close_total_s = time.perf_counter() - begin
        return result

    @asynccontextmanager
    async def beside(self, count: int) -> AsyncIterator[None]:
        """Keep `count` other connections open; their errors count too."""
        await self._each(list(range(count)), self._set_up, _BESIDE_AT_ONCE)
        others, self._open = self._open, []
        errors, self._result = self._result.errors, Result()
        self._result.errors += errors
        try:
            yield
        finally:
            result, self._result = self._result, Result()
            await self._each(others, self._close, _BESIDE_AT_ONCE)
            result.errors += self._result.errors

    async def _each(self, items: list[Any], work: Callable[[Any], Awaitable[object]], at_once: int = 0) -> None:
        async def worker() -> None:
            while items:
                try:
                    await work(items.pop())
                except MeshError as error:
                    self._result.errors.append(str(error))

        await asyncio.gather(*(worker() for _ in range(at_once or self._parsed.c)))

    async def _cycle(self, number: int) -> None:
        connection = await self._set_up(number)
        if self._parsed.refresh:
            await self._refresh(connection)
        await self._close(connection)
        await asyncio.sleep(self._parsed.pause)

    async def _set_up(self, number: int) -> Connection:
        name = generate(f"b{number}")
        preference = Mechanism(cls=LOCAL, type=KERNEL, parameters={INTERFACE_NAME: name})
        connection = Connection(id=f"bench-{secrets.token_hex(8)}", network_service=self._parsed.service)
        request = NetworkServiceRequest(connection=connection, mechanism_preferences=[preference])
        begin = time.perf_counter()
        connection = await self._chain.request(self._call(request))
        self._result.setup.append((time.perf_counter() - begin) * 1000)
        self._open.append(connection)
        if self._parsed.first_packet and not await _ping(connection):
            self._result.lost_first_packets += 1
        return connection

    async def _refresh(self, connection: Connection) -> None:
        begin = time.perf_counter()
        await self._chain.request(self._call(NetworkServiceRequest(connection=connection)))
        self._result.refresh.append((time.perf_counter() - begin) * 1000)

    async def _close(self, connection: Connection) -> None:
        begin = time.perf_counter()
        await self._chain.close(self._call(NetworkServiceRequest(connection=connection)))
        self._result.close.append((time.perf_counter() - begin) * 1000)

    def _call(self, request: NetworkServiceRequest) -> Call:
        return Call(request, deadline=asyncio.get_running_loop().time() + self._parsed.timeout)


async def _ping(connection: Connection) -> bool:
    """Whether one echo request over the wire, sent now, is answered."""
    context = connection.context
    assert context is not None
    assert context.ip_context is not None
    source = _first_ipv4(context.ip_context.src_ip_addrs)
    target = _first_ipv4(context.ip_context.dst_ip_addrs)
    if not source or not target:
        return False
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP) as sock:
        try:
            sock.bind((source, 0))
            sock.sendto(struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, 1) + b"first packet", (target, 0))
            async with asyncio.timeout(_ICMP_TIMEOUT):
                return (await loop.sock_recv(sock, 1024)).endswith(b"first packet")
        except (OSError, TimeoutError):
            return False


def _first_ipv4(addresses: Sequence[str]) -> str:
    return next((address.partition("/")[0] for address in addresses if ":" not in address), "")


def _table(result: Result) -> str:
    lines = [f"{'':<10}{'n':>7}{'median ms':>12}{'p99 ms':>12}{'total s':>10}"]
    for name, values in (("setup", result.setup), ("refresh", result.refresh), ("close", result.close)):
        if values:
            total = {"setup": result.setup_total_s, "close": result.close_total_s}.get(name)
            shown = f"{total:.2f}" if total is not None else ""
            lines.append(f"{name:<10}{len(values):>7}{statistics.median(values):>12.2f}{p99(values):>12.2f}{shown:>10}")
    kinds = sorted(set(result.errors))
    lines.append(f"errors: {len(result.errors)}" + "".join(f"\n  {kind}" for kind in kinds[:5]))
    return "\n".join(lines)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
