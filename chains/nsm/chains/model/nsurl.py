"""The URLs by which a client says what it wants: ``kernel://service@domain/interface?label=value``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest


@dataclass(frozen=True)
class NsUrl:
    """One wish: a service, by which mechanism, with which labels."""

    network_service: str
    mechanism: Mechanism
    labels: dict[str, str] = field(default_factory=dict)

    def means(self, request: NetworkServiceRequest) -> bool:
        """Whether `request` is for this wish: it may have more labels, and an interface's name where this has none."""
        connection = request.connection or Connection()
        asked = [*request.mechanism_preferences, *([connection.mechanism] if connection.mechanism else [])]
        return (
            connection.network_service == self.network_service
            and self.labels.items() <= connection.labels.items()
            and any(self._is_met_by(mechanism) for mechanism in asked)
        )

    def _is_met_by(self, mechanism: Mechanism) -> bool:
        name = self.mechanism.parameters.get(INTERFACE_NAME)
        return mechanism.type == self.mechanism.type and name in (None, "", mechanism.parameters.get(INTERFACE_NAME))


def parse_groups(value: str) -> tuple[tuple[NsUrl, ...], ...]:
    """Groups of URLs: ``[kernel://a,kernel://b],[kernel://c]``. Raises ValueError."""
    if not _GROUPS.fullmatch(value):
        raise ValueError("expected groups of URLs such as [kernel://a/nsm-1,kernel://b],[kernel://c]")
    groups = [[item.strip() for item in group.split(",") if item.strip()] for group in _GROUP.findall(value)]
    flat = [item for group in groups for item in group]
    if twice := {item for item in flat if flat.count(item) > 1}:
        raise ValueError(f"{min(twice)!r} is there twice")
    return tuple(tuple(parse_nsurl(item) for item in group) for group in groups if group)


_GROUP = re.compile(r"\[([^\[\]]*)\]")
_GROUPS = re.compile(rf"\s*(?:(?:{_GROUP.pattern})?\s*(?:,\s*|$))*")


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
