"""The network between nodes: a bridge per link or uplink, in a separate namespace, with a cable to each node."""

from __future__ import annotations

import errno
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nsm.chains.netlink import (
    LinkEnd,
    Namespace,
    add_address,
    add_route,
    create_veth,
    delete_link,
    remove_route,
    set_up,
)
from nsm.chains.netlink.bridges import create_bridge, enslave, set_state
from nsm.chains.netlink.offload import finish_checksums

from . import namespaces
from .model import Interface, Link, Uplink
from .routing import Hop, hops_of

T = TypeVar("T")

_FIRST_INDEX, _SOON = 1000, 1.0
_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENETUNREACH})


@dataclass(frozen=True)
class Port:
    """A node's port at a link or an uplink, according to the topology."""

    segment: Link | Uplink
    node: str

    @property
    def addresses(self) -> list[Interface]:
        """The node's address there; none at an uplink."""
        return [self.segment.interface_of(self.node)] if isinstance(self.segment, Link) else []

    @property
    def shape(self) -> tuple[list[Interface], int]:
        """The properties whose change requires a new port."""
        return self.addresses, self.segment.mtu

    @property
    def alias(self) -> str:
        """The alias of the node's interface."""
        return f"{'link' if isinstance(self.segment, Link) else 'uplink'} {self.segment.name}"


@dataclass
class _Cable:
    """An existing port."""

    port: Port
    name: str
    index: int
    """Index of the node's end."""
    other: int
    """Index of the bridge's end."""
    is_cut: bool = False


@dataclass
class _Bridge:
    index: int
    mtu: int


class Underlay:
    """Creates and maintains links and uplinks. Methods enter namespaces briefly, and raise `NetlinkError`."""

    def __init__(self) -> None:
        self._middle = _opened(namespaces.new_network(), "the namespace of the links")
        self._nodes: dict[str, Namespace] = {}
        self._bridges: dict[str, _Bridge] = {}
        self._cables: dict[tuple[str, str], _Cable] = {}
        self._routes: dict[str, set[Hop]] = {}
        self._numbers = itertools.count(_FIRST_INDEX)
        self._as_cards = False

    def change(
        self, links: Sequence[Link], uplinks: Sequence[Uplink], networks: Mapping[str, int], *, as_cards: bool = False
    ) -> None:
        """Change to exactly these; `networks` are the nodes' namespaces. Matching ports stay.

        `as_cards`: packets leave nodes with their checksums, as from network cards. VPP reads those of tunnels.
        """
        self._as_cards = as_cards
        segments: list[Link | Uplink] = [*links, *uplinks]
        wanted = {(segment.name, node): Port(segment, node) for segment in segments for node in segment.nodes}
        self._forget_nodes(networks)
        for key, cable in list(self._cables.items()):
            if key not in wanted or wanted[key].shape != cable.port.shape or cable.port.node not in self._nodes:
                self._remove(key)
        self._change_bridges(segments)
        for key, port in wanted.items():
            if key in self._cables:
                self._cables[key].port = port
            else:
                self._cables[key] = cable = self._lay(port, networks[port.node])
                self._wait_operating(cable)
        self._change_routes(links)

    def set_cut(self, one: str, other: str, *, cut: bool) -> list[str]:
        """Disconnect `one` from each link that it shares with `other`, or reconnect both.

        Returns the networks of these links: none if there is no such link.
        """
        links = [cable for cable in self._cables.values() if isinstance(cable.port.segment, Link)]
        shared = [cable for cable in links if {one, other} <= set(cable.port.segment.nodes)]
        for cable in shared:
            if cable.port.node == one or (not cut and cable.port.node == other):
                self._set_cut(cable, cut=cut)
        return sorted({cable.port.segment.name for cable in shared})

    def restore_all(self) -> None:
        """Reconnect every port."""
        for cable in self._cables.values():
            if cable.is_cut:
                self._set_cut(cable, cut=False)

    def cut_ports(self) -> set[tuple[str, str]]:
        """Network or uplink, and node, of every disconnected port."""
        return {key for key, cable in self._cables.items() if cable.is_cut}

    def interface_names(self) -> dict[tuple[str, str], str]:
        """The names of the nodes' interfaces, by link's network or uplink, and node."""
        return {key: cable.name for key, cable in self._cables.items()}

    def _set_cut(self, cable: _Cable, *, cut: bool) -> None:
        self._middle.socket.apply([set_state(cable.other, up=not cut)])
        cable.is_cut = cut
        if not cut:
            self._wait_operating(cable)

    def _wait_operating(self, cable: _Cable) -> None:
        """Wait until both ends forward packets; earlier packets would be lost."""
        self._middle.socket.settle(cable.other, [], _SOON, has_carrier=True)
        addresses = [address.ip for address in cable.port.addresses]
        self._nodes[cable.port.node].socket.settle(cable.index, addresses, _SOON, has_carrier=True)

    def _change_bridges(self, segments: Iterable[Link | Uplink]) -> None:
        wanted = {segment.name: segment.mtu for segment in segments}
        for name, bridge in list(self._bridges.items()):
            if wanted.get(name) != bridge.mtu:
                self._middle.socket.apply([delete_link(bridge.index)])
                del self._bridges[name]
        for name, mtu in wanted.items():
            if name not in self._bridges:
                index = next(self._numbers)
                messages = [create_bridge(f"br{index}", index, mtu=mtu), set_up(index, name)]
                self._middle.socket.apply(messages)
                self._bridges[name] = _Bridge(index, mtu)

    def _forget_nodes(self, networks: Mapping[str, int]) -> None:
        for name, node in list(self._nodes.items()):
            if name not in networks or not _same(node.descriptor, networks[name]):
                self._nodes.pop(name).close()
                self._routes.pop(name, None)

    def _lay(self, port: Port, network: int) -> _Cable:
        """Connect a node to the bridge of a link, with the node's address, or to that of an uplink."""
        node = self._node(port.node, network)
        index, other = next(self._numbers), next(self._numbers)
        segment = port.segment
        name = self._free_name(port.node) if isinstance(segment, Link) else segment.name
        here = LinkEnd(name, index, _mac(), node.descriptor)
        there = LinkEnd(f"p{other}", other, _mac(), self._middle.descriptor)
        node.socket.apply([create_veth(here, there, mtu=segment.mtu, arp=True)])
        self._middle.socket.apply([enslave(other, self._bridges[segment.name].index), set_up(other, port.node)])
        _inside(node.descriptor, lambda: node.enable_ipv6(name))
        node.socket.apply([set_up(index, port.alias), *(add_address(index, each) for each in port.addresses)])
        if self._as_cards:
            finish_checksums(node.descriptor, name)
        return _Cable(port, name, index, other)

    def _node(self, name: str, network: int) -> Namespace:
        if name not in self._nodes:
            self._nodes[name] = _opened(namespaces.another(network), f"the namespace of {name}")
            namespaces.forward_packets(network)
        return self._nodes[name]

    def _remove(self, key: tuple[str, str]) -> None:
        self._middle.socket.apply([delete_link(self._cables.pop(key).other)], ignore=_GONE)

    def _free_name(self, node: str) -> str:
        taken = {cable.name for (_, name), cable in self._cables.items() if name == node}
        return next(name for number in itertools.count() if (name := f"eth{number}") not in taken)

    def _change_routes(self, links: Sequence[Link]) -> None:
        """Set the routes from nodes to links that they are not part of, by the shortest paths."""
        for node, namespace in self._nodes.items():
            has, wanted = self._routes.setdefault(node, set()), hops_of(links, node)
            for hop in has - wanted:
                cable = self._cables.get((hop.link.name, node))
                message = remove_route(cable.index if cable else 0, hop.network, hop.via)
                namespace.socket.apply([message], ignore=_GONE)
            messages = [add_route(self._index(hop, node), hop.network, hop.via) for hop in wanted]
            namespace.socket.apply(messages)
            self._routes[node] = wanted

    def _index(self, hop: Hop, node: str) -> int:
        return self._cables[hop.link.name, node].index


def _opened(descriptor: int, where: str) -> Namespace:
    return _inside(descriptor, lambda: Namespace(descriptor, where))


def _inside(descriptor: int, work: Callable[[], T]) -> T:
    """Run `work` in a thread in the namespace: an unprivileged supervisor could not leave it again."""

    def enter_and_work() -> T:
        namespaces.enter(descriptor, namespaces.NEW_NET)
        return work()

    return namespaces.in_thread(enter_and_work)


def _same(one: int, other: int) -> bool:
    return namespaces.number_of(one) == namespaces.number_of(other)


def _mac() -> str:
    """A random locally administered address."""
    return (b"\x02" + secrets.token_bytes(5)).hex(":")
