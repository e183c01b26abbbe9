"""What the components of a mesh are, by the names that paths show: from registries, and from managers themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.elements.client_info import LABELS
from nsm.chains.model.domains import split

from .model import Kind

NODE_NAME = LABELS[0]
_GUESSES = (
    (Kind.PROXY, re.compile(r"proxy")),
    (Kind.MANAGER, re.compile(r"nsmgr|nmgr|manager")),
    (Kind.FORWARDER, re.compile(r"forwarder|\bfwd\b|fwd-")),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known about one component."""

    kind: Kind
    node: str = ""
    domain: str = ""
    identity: str = ""
    url: str = ""


@dataclass(slots=True)
class _Manager:
    name: str = ""
    domain: str = ""
    node: str = ""
    identity: str = ""


class Directory:
    """Components by name, managers by URL, and nodes by the URL of their manager."""

    def __init__(self, forwarder_service: str) -> None:
        self._forwarder_service = forwarder_service
        self._endpoints: dict[str, Entry] = {}
        self._managers: dict[str, _Manager] = {}
        self._by_manager: dict[str, str] = {}
        """The URL of each manager, by its name."""
        self.news: set[str] = set()
        """The names of components about which something else is known now: paths that show them are out of date."""

    def is_forwarder(self, record: NetworkServiceEndpoint) -> bool:
        """Whether a record is that of a forwarder, whose URL is that of its manager."""
        return self._forwarder_service in record.network_service_names

    def learn_record(self, record: NetworkServiceEndpoint, domain: str) -> Entry:
        """Note an endpoint or a forwarder, and what it tells about its manager."""
        kind = Kind.FORWARDER if self.is_forwarder(record) else Kind.ENDPOINT
        node = label(record, NODE_NAME)
        if kind is Kind.FORWARDER and record.url:
            manager = self.manager(record.url, domain, node)
            manager.identity = record.path_ids[1] if len(record.path_ids) > 1 else manager.identity
        node = node or self.node_of(record.url)
        name, elsewhere = split(record.name)
        identity = record.path_ids[0] if record.path_ids else ""
        entry = Entry(kind, node, elsewhere or domain, identity, record.url)
        if self._endpoints.get(name) != entry:
            self._endpoints[name] = entry
            self.news.add(name)
        return entry

    def forget_record(self, name: str) -> None:
        """An endpoint or a forwarder is not registered any longer."""
        if self._endpoints.pop(split(name)[0], None) is not None:
            self.news.add(split(name)[0])

    def manager(self, url: str, domain: str = "", node: str = "") -> _Manager:
        """What is known about the manager at `url`, to be filled in."""
        known = self._managers.setdefault(url, _Manager())
        known.domain, known.node = domain or known.domain, node or known.node
        return known

    def name_manager(self, url: str, name: str) -> bool:
        """Note the name that paths show for the manager at `url`; whether it is a new one."""
        known = self.manager(url)
        if known.name == name:
            return False
        self._by_manager.pop(known.name, None)
        known.name = name
        self._by_manager[name] = url
        return True

    def identify_manager(self, url: str, identity: str) -> None:
        """Note the SPIFFE ID that a manager has shown."""
        known = self.manager(url)
        if known.identity != identity:
            known.identity = identity
            self.news.add(known.name)

    def forget_manager(self, url: str) -> None:
        """It is not watched any longer."""
        known = self._managers.pop(url, None)
        if known is not None and self._by_manager.get(known.name) == url:
            del self._by_manager[known.name]

    def node_of(self, url: str) -> str:
        """The name of the node of the manager at `url`, or else its host."""
        known = self._managers.get(url)
        return known.node if known is not None and known.node else host_of(url)

    def domain_of(self, url: str) -> str:
        """The domain of the manager at `url`."""
        known = self._managers.get(url)
        return known.domain if known is not None else ""

    def name_of(self, url: str) -> str:
        """The name of the manager at `url`; until it is known, that of its node."""
        known = self._managers.get(url)
        return known.name if known is not None and known.name else f"nsmgr of {self.node_of(url)}"

    def url_of(self, name: str) -> str:
        """The URL of the manager `name`, or nothing."""
        return self._by_manager.get(name, "")

    def look_up(self, name: str, behind: Kind | None, *, is_last: bool = False) -> Entry:
        """What the component `name` of a path is, which stands `behind` a component of that kind, or begins it."""
        if (url := self._by_manager.get(name)) is not None:
            known = self._managers[url]
            return Entry(Kind.MANAGER, self.node_of(url), known.domain, known.identity, url)
        if (entry := self._endpoints.get(name)) is not None:
            return entry
        return Entry(Kind.CLIENT if behind is None else Kind.ENDPOINT if is_last else _guess(name, behind))


def label(record: NetworkServiceEndpoint, key: str) -> str:
    """The first value that the record's services have for a label, or nothing."""
    for labels in record.network_service_labels.values():
        if value := labels.labels.get(key):
            return value
    return ""


def host_of(url: str) -> str:
    """The host of a URL, or the file name of its socket."""
    parts = urlsplit(url)
    return parts.hostname or parts.path.rpartition("/")[2] or url


def _guess(name: str, behind: Kind) -> Kind:
    """Upstream's components are called by what they are; a manager passes requests to a forwarder."""
    found = next((kind for kind, pattern in _GUESSES if pattern.search(name)), None)
    return found or (Kind.FORWARDER if behind is Kind.MANAGER else Kind.ENDPOINT)
