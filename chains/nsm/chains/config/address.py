"""Where to listen and whom to dial, as URLs.

| form | meaning |
| --- | --- |
| `unix:///path`, `unix:path` | a unix socket |
| `tcp://host:port`, `tcp://[::1]:port`, `tcp://:port` | TCP; without a host: every address, when listening |
| `tcp://[10.0.0.1]:port` | the same as without brackets: who writes an address in need not know its family |
| `registry:5002` | a gRPC target: host and port |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nsm.chains.core import InvalidRequest

_IPV4_IN_BRACKETS = re.compile(r"^tcp://\[([\d.]+)\]:")


@dataclass(frozen=True, slots=True)
class Address:
    """A place on the network: a path of a unix socket, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket: then descriptors can be passed."""
        return bool(self.path)

    def __str__(self) -> str:
        """The URL."""
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read a URL or a gRPC target. Raises `InvalidRequest` with what would do."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        path = unquote(rest[2:] if rest.startswith("//") else rest)
        if not path:
            raise _invalid(url, "it has no path")
        return Address(path=path)
    return _host_and_port(url, url if "://" in url else f"tcp://{url}")


def _host_and_port(url: str, full: str) -> Address:
    try:
        parts = urlsplit(_IPV4_IN_BRACKETS.sub(r"tcp://\1:", full))
        port = parts.port
    except ValueError as error:
        raise _invalid(url, str(error)) from None
    if parts.scheme != "tcp":
        raise _invalid(url, f"scheme {parts.scheme!r} is unknown")
    if port is None:
        raise _invalid(url, "it has no port")
    return Address(host=parts.hostname or "", port=port)


def _invalid(url: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{url!r} is no address: {why}; write unix:///path, tcp://host:port or host:port")
