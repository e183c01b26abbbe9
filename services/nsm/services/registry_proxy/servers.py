"""The name servers that know other domains."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Sequence

Server = tuple[str, int]
"""Address and port of a name server."""


def dns_servers(value: str) -> tuple[Server, ...]:
    """Name servers, ``ip`` or ``ip:port``, comma separated. Raises ValueError that names the invalid one."""
    return tuple(_server(item) for item in filter(None, map(str.strip, value.split(","))))


def _server(item: str) -> Server:
    host, port = item, "53"
    if item.startswith("["):
        host, bracket, rest = item[1:].partition("]")
        host = host if bracket else item
        port = rest.removeprefix(":") if rest else port
    elif item.count(":") == 1:
        host, _, port = item.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{item!r} is not the address of a name server; expected ip or ip:port") from None
    if not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"{item!r} has no valid port; expected ip or ip:port")
    return host, int(port)


class ResolvConfServers:
    """The name servers of a resolv.conf, read again at most once a second."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path, self._next = path, 0.0
        self._servers: tuple[Server, ...] = ()

    def __call__(self) -> Sequence[Server]:
        """The servers; those read last if the file cannot be read."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            try:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = tuple(_nameservers(file))
            except OSError:
                pass
        return self._servers


def _nameservers(lines: Iterable[str]) -> Iterable[Server]:
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            yield words[1], 53
