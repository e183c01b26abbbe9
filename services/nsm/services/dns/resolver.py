"""Has a workload's names looked up where its wires say, from the first that says anything until the last is gone."""

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
"""In place of a connection's id: what the workload was told before."""


class LocalResolver:
    """A DNS server at `host` and `port`, and the resolv.conf that leads to it.

    Nothing is imported, listened to or written before a connection brings servers or search domains: most bring
    none, and then the client is as small, and the workload as untouched, as if there were no such thing. What cannot
    be done (the address is taken, the file may not be written) is a warning, never the end of a wire. A resolv.conf
    cannot name a port: with another one than 53 it is left as it is.

    The search domains of wires are in the file, where the workload's resolver goes by them. Where the file is not ours
    the server itself searches in them for names that it does not find as they stand. `tell` hears why the names that
    wires bring cannot be looked up, or with an empty text that they can, or that none does.
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
        """What the server goes by: as `configs`, but without domains that the file has searched."""
        self._searched: tuple[str, ...] | None = None
        """The domains of wires in the file; None while the file is not ours."""
        self._tasks = Tasks("local DNS")
        self._serving: asyncio.Task[None] | None = None
        self._changes = asyncio.Lock()
        self._is_told = False

    def recover(self) -> None:
        """Restore the file if an earlier process could not."""
        try:
            if self._conf.recover():
                log.warning("a client that ended without cleaning up had changed it; restored", file=self._conf.path)
        except ResolvConfError as error:
            log.warning("names may not be found", error=str(error))

    async def use(self, connection_id: str, configs: Sequence[DnsConfig]) -> None:
        """See `Resolver`; returns when the server answers, or could not be started at the first try."""
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
        """Serve if there is something to serve, else stop."""
        self._ask()
        async with self._changes:
            wanted = any(key != _BEFORE for key in self._configs)
            if wanted and self._serving is None:
                await self._tasks.aclose()  # one that still ends, because whoever waited for that was cancelled
                tried = asyncio.Event()
                self._serving = self._tasks.spawn(self._serve(tried), name="local DNS")
                await tried.wait()
            elif not wanted and self._serving is not None:
                self._serving = None  # first: whoever waits here may be cancelled
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
        """Say in the log, and to who waits for names, that they are not found."""
        self._tell(why)
        log.warning(event, **fields)

    def _change(self, port: int) -> None:
        if port != _PORT:
            log.info("a local DNS server answers, but no resolv.conf can name its port", address=f"{self._host}:{port}")
            self._tell("")
            return
        self._is_told = False
        domains = self._domains()
        try:
            before = self._conf.change(self._host, domains)
        except ResolvConfError as error:
            event = "names of the mesh are not found by themselves"
            self._complain(f"{event}: {error}", event, error=str(error), server=self._host)
            return
        self._tell("")
        if before is None:
            log.info("there is no such file, and without one 127.0.0.1 is asked", file=self._conf.path)
            return
        self._configs[_BEFORE] = [DnsConfig(dns_server_ips=list(before.servers))]
        self._searched = domains
        self._ask()
        log.info("names are looked up by the local DNS server", address=self._host, file=self._conf.path)

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
        """Have the file, or the server, search where the wires say now."""
        domains = self._domains()
        if self._searched not in {None, domains}:
            try:
                self._conf.search(self._host, domains)
                self._searched = domains
            except ResolvConfError as error:
                event = "names of the mesh are not found in all their domains"
                self._complain(f"{event}: {error}", event, error=str(error))
        self._ask()

    def _ask(self) -> None:
        """Have the server go by what the wires say now."""
        self._asked.clear()
        for key, configs in self._in_order().items():
            in_file = self._searched is not None
            self._asked[key] = [DnsConfig(dns_server_ips=c.dns_server_ips) for c in configs] if in_file else configs

    def _domains(self) -> tuple[str, ...]:
        return searched(config for configs in self._in_order().values() for config in configs)

    def _in_order(self) -> Mapping[str, Sequence[DnsConfig]]:
        """By the numbers of the wires, which end their ids, and not by which of them came up first."""
        return {key: self._configs[key] for key in sorted(self._configs, key=lambda key: (len(key), key))}

    def _look(self) -> None:
        """Say, once, if somebody else took the file away from us."""
        if _BEFORE in self._configs and not self._is_told and not self._conf.is_ours():
            self._is_told = True
            event = "somebody else wrote it, so names of the mesh are not found any more"
            self._complain(f"{self._conf.path}: {event}", event, file=self._conf.path)
