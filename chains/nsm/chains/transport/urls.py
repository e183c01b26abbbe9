"""Where to listen and whom to dial, as URLs.

| form | meaning |
| --- | --- |
| `unix:///path`, `unix:path` | a unix socket |
| `tcp://host:port`, `tcp://[::1]:port`, `tcp://:port` | TCP; without a host: every address, when listening |
| `registry:5002` | a gRPC target: host and port |
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nsm.chains.core import InvalidRequest


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
        parts = urlsplit(full)
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


def publishable(url: str) -> str:
    """`url` as other nodes can dial it: an address of this machine takes the place of a missing host.

    The first IPv4 address that is not of the loopback interface, else the first global IPv6 one.
    """
    address = parse_address(url)
    if address.is_unix or (address.host and not _is_unspecified(address.host)):
        return url
    return str(Address(host=_own_address(), port=address.port))


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _own_address() -> str:
    """The address that packets to elsewhere would leave from; nothing is sent to find out."""
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"
