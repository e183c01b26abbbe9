"""Resolves a workload's names by its wires' DNS, from the first wire with DNS until the last is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.core import Backoff, Tasks
from nsm.chains.logs import log

from .domains import searched
from .resolv_conf import ResolvConf, ResolvConfError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_PORT = 53
_BEFORE = ""
"""Key of the workload's own configuration, instead of a connection's id."""


class LocalResolver:
    """A DNS server at `host` and `port`, and the resolv.conf that points to it.

    Nothing is imported, opened or written before a connection provides servers or search domains: most provide none,
    and then the client stays small and the workload unchanged. Failures (the address is in use, the file is not
    writable) are warnings, and never end a wire. A resolv.conf cannot contain a port: with a port other than 53, it is
    left unchanged.

    The wires' search domains are in the file, for the workload's resolver. If the file is not ours, the server itself
    searches in them for names that it does not find. `tell` is called with the reason why the wires' names cannot be
    resolved, or with an empty text if they can, or if there are none.
    """

    def __init__(
        self,
        host: str,
        port: int = _PORT,
        *,
        path: str = "/etc/resolv.conf",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tell = tell
        self._host, self._port, self._conf = host, port, ResolvConf(path)
        self._configs: dict[str, Sequence[DnsConfig]] = {}
        self._asked: dict[str, Sequence[DnsConfig]] = {}
        """The server's configurations: `configs` without domains that are searched through the file."""
        self._searched: tuple[str, ...] | None = None
        """The wires' domains in the file; None while the file is not ours."""
        self._tasks = Tasks("local DNS")
        self._serving: asyncio.Task[None] | None = None
        self._changes = asyncio.Lock()
        self._is_told = False

    def recover(self) -> None:
        """Restore the file if an earlier process did not."""
        try:
            if self._conf.recover():
                log.warning(
                    "restored the file: a client that ended without cleaning up had changed it", file=self._conf.path
                )
        except ResolvConfError as error:
            log.warning("names may not be found", error=str(error))

    async def use(self, connection_id: str, configs: Sequence[DnsConfig]) -> None:
        """See `Resolver`; returns when the server works, or failed to start at the first attempt."""
        if configs:
            self._configs[connection_id] = list(configs)
        else:
            self._configs.pop(connection_id, None)
        await self._settle()
        self._search()
        self._look()

    async def forget(self, connection_id: str) -> None:
        """See `Resolver`."""
        if self._configs.pop(connection_id, None) is not None:
            await self._settle()
            self._search()

    async def aclose(self) -> None:
        """See `Resolver`."""
        for connection_id in self._configs.keys() - {_BEFORE}:
            del self._configs[connection_id]
        await self._settle()

    async def _settle(self) -> None:
        """Start the server if it is needed, or stop it."""
        self._ask()
        async with self._changes:
            wanted = any(key != _BEFORE for key in self._configs)
            if wanted and self._serving is None:
                await self._tasks.aclose()  # a server that is still stopping, because its waiter was cancelled
                tried = asyncio.Event()
                self._serving = self._tasks.spawn(self._serve(tried), name="local DNS")
                await tried.wait()
            elif not wanted and self._serving is not None:
                self._serving = None  # first, because this wait may be cancelled
                await self._tasks.aclose()
                self._tell("")

    async def _serve(self, tried: asyncio.Event) -> None:
        try:
            from .proxy import serving  # noqa: PLC0415 - a library that only those need who get here

            backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
            while True:
                pause = backoff.next()
                try:
                    async with serving(self._host, self._port, self._asked) as port:
                        self._change(port)
                        tried.set()
                        await asyncio.Event().wait()
                except OSError as error:
                    self._cannot_listen(error, pause)
                finally:
                    self._restore()
                tried.set()
                await asyncio.sleep(pause)
        except ImportError as error:
            event = "names of the mesh are not found: dnspython is missing (nsm-services[dns])"
            self._complain(event, event, error=str(error))
        finally:
            tried.set()

    def _cannot_listen(self, error: OSError, pause: float) -> None:
        address, reason = f"{self._host}:{self._port}", error.strerror or str(error)
        event = "the local DNS server cannot listen, so names of the mesh are not found yet"
        self._complain(f"{event}: {address}: {reason}", event, address=address, error=reason, again_in_s=pause)

    def _complain(self, why: str, event: str, **fields: object) -> None:
        """Report in the log, and to `tell`, that names are not found."""
        self._tell(why)
        log.warning(event, **fields)

    def _change(self, port: int) -> None:
        if port != _PORT:
            log.info(
                "the local DNS server is running, but a resolv.conf cannot contain its port",
                address=f"{self._host}:{port}",
            )
            self._tell("")
            return
        self._is_told = False
        domains = self._domains()
        try:
            before = self._conf.change(self._host, domains)
        except ResolvConfError as error:
            event = "names of the mesh are not found, because resolv.conf is unchanged"
            self._complain(f"{event}: {error}", event, error=str(error), server=self._host)
            return
        self._tell("")
        if before is None:
            log.info("the file does not exist, so resolvers use 127.0.0.1", file=self._conf.path)
            return
        self._configs[_BEFORE] = [DnsConfig(dns_server_ips=list(before.servers))]
        self._searched = domains
        self._ask()
        log.info("names are resolved by the local DNS server", address=self._host, file=self._conf.path)

    def _restore(self) -> None:
        if self._configs.pop(_BEFORE, None) is None:
            return
        self._look()
        self._searched = None
        self._ask()
        try:
            self._conf.restore()
        except ResolvConfError as error:
            log.warning("names may not be found", error=str(error))

    def _search(self) -> None:
        """Update the search domains in the file or the server."""
        domains = self._domains()
        if self._searched not in {None, domains}:
            try:
                self._conf.search(self._host, domains)
                self._searched = domains
            except ResolvConfError as error:
                event = "names of the mesh are not found in all search domains"
                self._complain(f"{event}: {error}", event, error=str(error))
        self._ask()

    def _ask(self) -> None:
        """Update the server's configurations."""
        self._asked.clear()
        for key, configs in self._in_order().items():
            in_file = self._searched is not None
            self._asked[key] = [DnsConfig(dns_server_ips=c.dns_server_ips) for c in configs] if in_file else configs

    def _domains(self) -> tuple[str, ...]:
        return searched(config for configs in self._in_order().values() for config in configs)

    def _in_order(self) -> Mapping[str, Sequence[DnsConfig]]:
        """Sorted by the wires' numbers, which are at the end of their ids, not by their start."""
        return {key: self._configs[key] for key in sorted(self._configs, key=lambda key: (len(key), key))}

    def _look(self) -> None:
        """Report once if another process has overwritten the file."""
        if _BEFORE in self._configs and not self._is_told and not self._conf.is_ours():
            self._is_told = True
            event = "another process overwrote it, so names of the mesh are no longer found"
            self._complain(f"{self._conf.path}: {event}", event, file=self._conf.path)
