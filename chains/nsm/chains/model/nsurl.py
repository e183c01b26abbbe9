"""The URLs by which a client says what it wants: ``kernel://service@domain/interface?label=value``."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from nsm.apis.connection import Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, LOCAL


@dataclass(frozen=True)
class NsUrl:
    """One wish: a service, by which mechanism, with which labels."""

    network_service: str
    mechanism: Mechanism
    labels: dict[str, str] = field(default_factory=dict)


def parse_nsurl(url: str) -> NsUrl:
    """Read a URL; a label that is given several times has its values joined by commas.

    Raises ValueError with what would do.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} cannot be read: {error}") from None
    host = parts.netloc.rpartition("@")[2]
    host = host if host.endswith("]") else host.rpartition(":")[0] or host
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    if not parts.scheme or not host:
        raise ValueError(f"{url!r} names no service; expected one such as kernel://my-service/nsm-1?app=web")
    service = unquote(f"{user}@{host}" if user else host)
    mechanism = Mechanism(cls=LOCAL, type=parts.scheme.upper())
    if parts.path:
        mechanism.parameters[INTERFACE_NAME] = unquote(parts.path.rpartition("/")[2])
    labels = {key: ",".join(values) for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return NsUrl(service, mechanism, labels)
