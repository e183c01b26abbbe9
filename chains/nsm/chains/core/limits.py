"""Limits for one peer of a component: bounds on counts, sizes and rates, each with a safe default."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from nsm.chains.reading import nearest


def _limit(default: int, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one component. An operator changes some of them with `NSM_LIMITS=name:value,name:value`.

    The name is what is counted; sizes are in bytes. A message that exceeds a limit is refused on arrival, before it is
    stored, passed on or processed.
    """

    client_connections: int = _limit(
        1_024,
        "connections of one client at a component; at an endpoint also 3/4 of a pool of 128 or more addresses",
    )
    client_bytes: int = _limit(
        8_388_608, "bytes of the latest requests for all connections that one client has at a component"
    )
    client_calls: int = _limit(
        128, "requests and closes of one client that a component handles, or waits for, at once; the rest waits"
    )
    addresses: int = _limit(64, "addresses of one side of a connection")
    routes: int = _limit(256, "routes of one side of a connection")
    policies: int = _limit(64, "policy routes of a connection")
    webhook_connections: int = _limit(1024, "connections to the webhook; a quarter of them from one address")
    webhook_review: int = _limit(3 * 2**20, "bytes of a review that the webhook receives")
    identity_connections: int = _limit(128, "connections of one container or user to a socket of the identity issuer")
    identity_streams: int = _limit(16, "streams that one process may have open at the identity issuer")
    record_bytes: int = _limit(65_536, "bytes of a record or of a query; a client may send three quarters of it")
    name_length: int = _limit(512, "characters of the name of a network service or an endpoint")
    url_length: int = _limit(512, "characters of the URL of an endpoint")
    services: int = _limit(64, "network services of an endpoint")
    labels: int = _limit(256, "labels of an endpoint, or entries of all selectors of a network service")
    label_length: int = _limit(1_024, "characters of a label's name or value, or of a template in a selector")
    matches: int = _limit(64, "matches of a network service, and destinations of all of them together")
    path_ids: int = _limit(16, "components that a registration passes, and identities that its record names")
    registrations: int = _limit(1_024, "records that one client has registered at a manager, or through one")
    registered_bytes: int = _limit(1_048_576, "bytes of what one client has registered at a manager, or through one")
    peer_registrations: int = _limit(16_384, "records that one peer of a registry has registered there itself")
    peer_registered_bytes: int = _limit(8_388_608, "bytes of what one peer of a registry has registered there itself")
    prefixes: int = _limit(64, "prefixes of each network that one client of a prefix service has")
    watches: int = _limit(1_024, "watches of one peer (Finds that continue)")
    watch: int = _limit(4_096, "bytes of the query of such a Find")
    cached_records: int = _limit(131_072, "records of each kind that a component caches from a registry")
    cached_bytes: int = _limit(67_108_864, "bytes of the cached records of each kind")
    namespaces: int = _limit(8, "network namespaces that one request may name")
    descriptors: int = _limit(256, "descriptors of one connection that wait for a message that names them")
    unverified_descriptors: int = _limit(4, "descriptors that a peer may send before its identity is verified")
    excluded_prefixes: int = _limit(4096, "prefixes that a connection excludes")
    connection_labels: int = _limit(64, "labels of a connection")
    path_segments: int = _limit(64, "segments of a connection's path")
    mechanism_preferences: int = _limit(16, "mechanism preferences of a request")
    parameters: int = _limit(32, "parameters of a mechanism, or metrics of a path segment")
    extra_context: int = _limit(64, "entries of a connection's extra context")
    dns_configs: int = _limit(32, "DNS configurations of a connection, and servers or search domains of one of them")

    request: int = _limit(64 * 1024, "bytes of a Request or a Close, usually 3,000")

    selector: int = _limit(16 * 1024, "bytes of a request to a monitor or for a health check")
    workload: int = _limit(4 * 1024, "bytes of a request for an identity")
    answer: int = _limit(
        256 * 1024,
        "bytes of a peer's answer, or of a record in it; for the answer to a Request the limit is `request`",
    )
    events: int = _limit(4 * 1024 * 1024, "bytes of one message of a peer's monitor")
    metadata: int = _limit(16 * 1024, "bytes of a call's headers: names, values, and 32 for each")
    token: int = _limit(8 * 1024, "bytes of a caller's token")

    streams: int = _limit(1000, "calls at once on one connection, watches included")
    calls: int = _limit(32, "calls of one peer that are started before others get their turn; the rest waits")
    work: int = _limit(128, "calls of all peers that are started before others get their turn; the rest waits")
    taken: int = _limit(
        8192, "calls of all peers, watches not counted; beyond it, a peer with more than its share must try again later"
    )
    frames: int = _limit(2000, "frames that carry no call, at once on one connection; a tenth of it in each second")
    connections: int = _limit(128, "connections of one identity or, where none is shown, of one process")
    intermediary_connections: int = _limit(4096, "connections of one manager or forwarder (NSM_INTERMEDIARIES)")
    handshakes: int = _limit(128, "handshakes at once; half of it from one address or process")
    silent: int = _limit(512, "connections of peers that have sent nothing yet; a quarter from one address or process")

    def changed(self, values: dict[str, str]) -> Limits:
        """These limits with some of them changed. Raises ValueError that names the invalid ones."""
        known = {each.name: each for each in fields(self)}
        for name, value in values.items():
            if name not in known:
                near = nearest(name, known)
                there = f"did you mean {near!r}?" if near else f"the limits are {', '.join(sorted(known))}"
                raise ValueError(f"there is no limit {name[:64]!r}; {there}")
            if not value.isascii() or not value.isdigit() or not 1 <= len(value) <= 12 or int(value) < 1:
                raise ValueError(f"the limit {name!r} is {value!r}; expected a whole number from 1")
        return replace(self, **{name: int(value) for name, value in values.items()})

    @classmethod
    def described(cls) -> list[tuple[str, int, str]]:
        """Name, default and meaning of each limit: for help texts and the documentation."""
        return [(each.name, _default(each), each.metadata["about"]) for each in fields(cls)]


def _default(limit: Field[int]) -> int:
    assert limit.default is not MISSING
    return limit.default


DEFAULT_LIMITS = Limits()
"""The limits that apply if none are given."""
