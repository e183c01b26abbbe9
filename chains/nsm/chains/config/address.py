"""Addresses to listen on or to dial, as URLs.

| form | meaning |
| --- | --- |
| `unix:///path`, `unix:path` | a unix socket |
| `tcp://host:port`, `tcp://[::1]:port`, `tcp://:port` | TCP; without a host: listen on all addresses |
| `tcp://[10.0.0.1]:port` | the same as without brackets, for templates that do not know the address family |
| `registry:5002` | a gRPC target: host and port |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nsm.chains.core import InvalidRequest
from nsm.chains.errors import cut

_LONGEST = 1024
_LONGEST_PATH = 107
"""Bytes that the kernel allows, without the terminating one (unix(7))."""
_HOST = re.compile(r"[A-Za-z0-9._:%-]{0,253}")
"""A name or an address of either family; a zone may follow an IPv6 address."""
_IPV4_IN_BRACKETS = re.compile(r"^tcp://\[([\d.]+)\]:")


@dataclass(frozen=True, slots=True)
class Address:
    """A network address: the path of a unix socket, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket, which can carry descriptors."""
        return bool(self.path)

    @property
    def is_received(self) -> bool:
        """Whether it is a socket that arrived as a descriptor, and not one that a later process can listen on again."""
        return self.path.startswith("/proc/") and "/fd/" in self.path

    def __str__(self) -> str:
        """The URL."""
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read a URL or a gRPC target. Raises `InvalidRequest` that shows valid forms."""
    if len(url) > _LONGEST:
        raise _invalid(url, f"it has more than {_LONGEST} characters")
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        return Address(path=_path(url, unquote(rest[2:] if rest.startswith("//") else rest)))
    return _host_and_port(url, url if "://" in url else f"tcp://{url}")


def _path(url: str, path: str) -> str:
    if not path:
        raise _invalid(url, "it has no path")
    if not path.isprintable():
        raise _invalid(url, "its path has a character that is not printable")
    if len(path.encode()) > _LONGEST_PATH:
        raise _invalid(url, f"its path has more than {_LONGEST_PATH} bytes")
    return path


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
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or any(len(label) > 63 for label in host.split(".")):
        raise _invalid(url, "its host is neither a name nor an address")
    return Address(host=host, port=port)


def _invalid(url: str, why: str) -> InvalidRequest:
    forms = "unix:///path, tcp://host:port or host:port"
    return InvalidRequest(f"{cut(url, 256)!r} is not an address: {why}; write {forms}")
