"""Limits on the content of a connection, from any sender: how many items of each kind, and in which form.

Requests and answers are equally untrusted; both are checked before use. Most of them are refreshes, and nearly all are
valid: a valid one is accepted without building any text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nsm.apis import mechanisms as names
from nsm.apis.connection import Connection, Mechanism, PathSegment, State
from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, EthernetContext, IpContext, PolicyRoute, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import InvalidRequest, Limits

from . import policies, values
from .values import FREE, KEY, NAME, Rule, Text

MIN_MTU, MAX_MTU = 68, 65535
"""The smallest MTU for IPv4 (RFC 791), and its longest packet."""
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799
"""The years 1 (which Go sends for an unset time) to 9999."""
_LARGEST_VLAN, _LARGEST_VNI = 4095, (1 << 24) - 1
_LARGEST_PREFIX, _MOST_EXTRA = 128, 1 << 16
_STATES = frozenset(int(state) for state in State)
_SHOWN = 64
_KIND = Text(64, spaces=False)
_PORTS = Text(16, spaces=False)
_NUMBER = values.number_up_to((1 << 32) - 1)

PARAMETERS: Mapping[str, Rule] = MappingProxyType(
    {
        names.INTERFACE_NAME: values.INTERFACE,
        names.INODE_URL: values.URL,
        names.NETNS_INODE: NAME,
        **dict.fromkeys((names.SRC_IP, names.DST_IP, names.SRC_ORIGINAL_IP, names.DST_ORIGINAL_IP), values.NEXT_HOP),
        **dict.fromkeys((names.SRC_PORT, names.DST_PORT), values.PORT),
        names.MTU: values.number_up_to(MAX_MTU),
        names.VNI: values.number_up_to(_LARGEST_VNI),
        names.VLAN_ID: values.number_up_to(_LARGEST_VLAN),
        names.VLAN_TAG: values.number_up_to(_LARGEST_VLAN),
        names.PCI_ADDRESS: values.PCI,
        names.DEVICE_TOKEN_ID: NAME,
        **dict.fromkeys((names.SUPPORTS_VLAN, names.ROUTE_LOCAL_NET), values.FLAG),
        **dict.fromkeys(
            (names.IOMMU_GROUP, names.VFIO_MAJOR, names.VFIO_MINOR, names.DEVICE_MAJOR, names.DEVICE_MINOR), _NUMBER
        ),
        **dict.fromkeys((names.SRC_HARDWARE_ADDRESS, names.DST_HARDWARE_ADDRESS), values.MAC_OR_NONE),
    }
)
"""Rules for the parameters of mechanisms that the API defines; others are texts of one line."""


def check_request(request: NetworkServiceRequest, limits: Limits) -> None:
    """Raise `InvalidRequest` if a field of a Request is invalid, with the field, its number and the fault."""
    if request.connection is not None:
        check_connection(request.connection, limits)
    _check_count(
        request.mechanism_preferences, limits.mechanism_preferences, "mechanism preferences", "mechanism_preferences"
    )
    for number, mechanism in enumerate(request.mechanism_preferences, 1):
        try:
            _check_mechanism(mechanism, limits)
        except InvalidRequest as error:
            raise InvalidRequest(f"mechanism preference {number}: {error.detail}") from None


def check_connection(connection: Connection, limits: Limits) -> None:
    """The same check for a connection in a Request, an answer, a Close or an event."""
    if not _are_names(connection.id, connection.network_service, connection.network_service_endpoint_name):
        values.check(NAME, connection.id, "the connection's id")
        values.check(NAME, connection.network_service, "network_service")
        values.check(NAME, connection.network_service_endpoint_name, "network_service_endpoint_name")
    values.check(_KIND, connection.payload, "payload")
    if connection.state not in _STATES:
        raise InvalidRequest("the connection's state is unknown")
    _check_map(connection.labels, limits.connection_labels, values.LABEL, "labels", "connection_labels")
    if connection.path is not None:
        _check_path(connection.path.path_segments, limits)
    if connection.mechanism is not None:
        _check_mechanism(connection.mechanism, limits)
    if connection.context is not None:
        _check_context(connection.context, limits)


def _are_names(*texts: str) -> bool:
    """Whether all of them are valid, checked at once; a long id without a name is checked individually."""
    together = "".join(texts)
    return len(together) <= NAME.longest and together.isprintable()


def _check_path(segments: Sequence[PathSegment], limits: Limits) -> None:
    _check_count(segments, limits.path_segments, "path segments", "path_segments")
    for number, segment in enumerate(segments):
        try:
            if not (_are_names(segment.name, segment.id) and values.TOKEN.fits(segment.token)):
                values.check(NAME, segment.name, "name")
                values.check(NAME, segment.id, "id")
                values.check(values.TOKEN, segment.token, "token")
            _check_time(segment.expires)
            if segment.metrics:
                _check_map(segment.metrics, limits.parameters, values.LABEL, "metrics", "parameters")
        except InvalidRequest as error:
            raise InvalidRequest(f"path segment {number}: {error.detail}") from None


def _check_time(time: Timestamp | None) -> None:
    if time is not None and not (_FIRST_SECOND <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 1_000_000_000):
        raise InvalidRequest("expires is not a time between the years 1 and 9999")


def _check_mechanism(mechanism: Mechanism, limits: Limits) -> None:
    values.check(_KIND, mechanism.cls, "the mechanism's class")
    values.check(_KIND, mechanism.type, "the mechanism's type")
    parameters = mechanism.parameters
    _check_count(parameters, limits.parameters, "parameters of a mechanism", "parameters")
    for number, (key, value) in enumerate(parameters.items(), 1):
        if not KEY.fits(key):
            raise InvalidRequest(f"the name of the mechanism's parameter {number} {KEY.fault(key)}")
        rule = PARAMETERS.get(key, FREE)
        if not rule.fits(value):
            raise InvalidRequest(f"{key[:_SHOWN]} of the {mechanism.type or 'nameless'} mechanism {rule.fault(value)}")


def _check_context(context: ConnectionContext, limits: Limits) -> None:
    if context.mtu and not MIN_MTU <= context.mtu <= MAX_MTU:
        raise InvalidRequest(
            f"MTU {context.mtu} is out of range; expected {MIN_MTU} to {MAX_MTU}, or 0 for the default"
        )
    _check_map(context.extra_context, limits.extra_context, FREE, "extra_context", "extra_context")
    if context.ip_context is not None:
        _check_ip(context.ip_context, limits)
    if context.dns_context is not None:
        _check_dns(context.dns_context.configs, limits)
    if context.ethernet_context is not None:
        _check_ethernet(context.ethernet_context)


def _check_ip(ip: IpContext, limits: Limits) -> None:
    for field, addresses in (("src_ip_addrs", ip.src_ip_addrs), ("dst_ip_addrs", ip.dst_ip_addrs)):
        _check_each(addresses, limits.addresses, values.INTERFACE_ADDRESS, field, "addresses")
    _check_each(
        ip.excluded_prefixes, limits.excluded_prefixes, values.EXCLUDED_PREFIX, "excluded_prefixes", "excluded_prefixes"
    )
    _check_each(ip.extra_prefixes, limits.addresses, values.PREFIX, "extra_prefixes", "addresses")
    for field, routes in (("src_routes", ip.src_routes), ("dst_routes", ip.dst_routes)):
        _check_count(routes, limits.routes, field, "routes")
        _check_routes(routes, field)
    _check_count(ip.ip_neighbors, limits.addresses, "ip_neighbors", "addresses")
    for number, neighbor in enumerate(ip.ip_neighbors, 1):
        values.check(values.ADDRESS, neighbor.ip, f"ip_neighbors {number}: ip")
        values.check(values.MAC, neighbor.hardware_address, f"ip_neighbors {number}: hardware_address")
    _check_count(ip.extra_prefix_request, limits.addresses, "extra_prefix_request", "addresses")
    for wanted in ip.extra_prefix_request:
        if wanted.prefix_len > _LARGEST_PREFIX or max(wanted.required_number, wanted.requested_number) > _MOST_EXTRA:
            raise InvalidRequest(f"extra_prefix_request: more than {_MOST_EXTRA} prefixes, or one longer than /128")
    _check_policies(ip.policies, limits)


def _check_routes(routes: Sequence[Route], field: str) -> None:
    for number, route in enumerate(routes, 1):
        if not values.PREFIX.fits(route.prefix):
            raise InvalidRequest(f"{field} {number}: prefix {values.PREFIX.fault(route.prefix)}")
        if route.next_hop and not values.NEXT_HOP.fits(route.next_hop):
            raise InvalidRequest(f"{field} {number}: next hop {values.NEXT_HOP.fault(route.next_hop)}")


def _check_policies(found: Sequence[PolicyRoute], limits: Limits) -> None:
    _check_count(found, limits.policies, "policy routes", "policies")
    _check_count(range(sum(len(policy.routes) for policy in found)), limits.routes, "routes of policies", "routes")
    for number, policy in enumerate(found, 1):
        where = f"policy route {number}:"
        for field, text in (("proto", policy.proto), ("dst_port", policy.dst_port), ("src_port", policy.src_port)):
            values.check(_PORTS, text, f"{where} {field}")
        if policy.from_ and not values.PREFIX.fits(policy.from_):
            raise InvalidRequest(f"{where} from {values.PREFIX.fault(policy.from_)}")
        _check_routes(policy.routes, f"{where} route")
        try:
            policies.check(policy)
        except ValueError as error:
            raise InvalidRequest(f"{where} {error}") from None


def _check_dns(configs: Sequence[DnsConfig], limits: Limits) -> None:
    _check_count(configs, limits.dns_configs, "DNS configurations", "dns_configs")
    for number, config in enumerate(configs, 1):
        where = f"DNS configuration {number}:"
        _check_each(config.dns_server_ips, limits.dns_configs, values.DNS_SERVER, f"{where} server", "dns_configs")
        _check_each(
            config.search_domains, limits.dns_configs, values.DNS_DOMAIN, f"{where} search domain", "dns_configs"
        )


def _check_ethernet(ethernet: EthernetContext) -> None:
    values.check(values.MAC_OR_NONE, ethernet.src_mac, "src_mac")
    values.check(values.MAC_OR_NONE, ethernet.dst_mac, "dst_mac")
    if not 0 <= ethernet.vlan_tag <= _LARGEST_VLAN:
        raise InvalidRequest(f"vlan_tag is not a number from 0 to {_LARGEST_VLAN}")


def _check_each(found: Sequence[str], most: int, rule: Rule, field: str, limit: str) -> None:
    _check_count(found, most, field, limit)
    for number, value in enumerate(found, 1):
        if not rule.fits(value):
            raise InvalidRequest(f"{field} {number} {rule.fault(value)}")


def _check_map(found: Mapping[str, str], most: int, rule: Rule, field: str, limit: str) -> None:
    _check_count(found, most, field, limit)
    for number, (key, value) in enumerate(found.items(), 1):
        if not KEY.fits(key):
            raise InvalidRequest(f"the key of {field} {number} {KEY.fault(key)}")
        if not rule.fits(value):
            raise InvalidRequest(f"the value of {field} {number} {rule.fault(value)}")


def _check_count(found: Sequence[object] | Mapping[str, object], most: int, field: str, limit: str) -> None:
    if len(found) > most:
        said = f"{field}: {len(found)} are too many; at most {most} are allowed (NSM_LIMITS={limit}:…)"
        raise InvalidRequest(said, limit=limit)
