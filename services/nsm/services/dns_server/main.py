"""A small DNS server for domains that have none: it answers from a file where their registries and proxies are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nsm.chains.component import run_plain
from nsm.chains.config import Common, duration, host_and_port, text, variable
from nsm.chains.config.watched_file import WatchedFile
from nsm.chains.core import MeshError, Unavailable
from nsm.chains.logs import log


@dataclass(frozen=True, kw_only=True)
class DnsServerConfig(Common):
    """Where to listen, and the records."""

    name: str = variable("dns-server", text, "the name in logs")
    listen_on: tuple[str, int] = variable("127.0.0.1:53", host_and_port, "address and port, for UDP and TCP")
    records_file: str = variable("records.yaml", text, "YAML, name: [ip:port, ..]; read again when it changes")
    ttl: float = variable("5s", duration, "how long others may keep an answer")


def main(arguments: list[str]) -> int:
    """A small DNS server that answers from a file where the registries and proxies of domains are."""
    return run_plain("dns-server", DnsServerConfig, _serve, arguments)


async def _serve(config: DnsServerConfig, stopping: asyncio.Event) -> None:
    try:
        from nsm.services.dns.check_message import CheckMessage  # noqa: PLC0415 - only if it runs
        from nsm.services.dns.query import Answer, Query, Rest, listed  # noqa: PLC0415
        from nsm.services.dns.server import listening  # noqa: PLC0415

        from .records import Records  # noqa: PLC0415
    except ImportError as error:
        raise MeshError(f"nsm dns-server needs the extra nsm-services[dns]: {error}") from error

    records = WatchedFile(config.records_file, Records.parse, usual="", whole=True)

    class Answers:
        """Answers from the file."""

        async def answer(self, query: Query, rest: Rest) -> Answer:
            del rest
            return records.value().answer(query, int(config.ttl))

    host, port = config.listen_on
    try:
        async with listening(host or "0.0.0.0", port, listed([CheckMessage(), Answers()])) as bound:  # noqa: S104
            log.info("ready", listen_on=f"{host}:{bound}")
            await stopping.wait()
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
