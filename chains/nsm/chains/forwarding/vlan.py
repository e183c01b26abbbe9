"""Breakout: wires to a network behind an uplink of the client's node, for endpoints that need no dataplane."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import REMOTE, VLAN, VLAN_ID
from nsm.chains.core import Call, Element, Handler, NotFound, Store
from nsm.chains.elements.filter_mechanisms import is_on_this_node
from nsm.chains.model.vlans import LARGEST_VLAN
from nsm.chains.reading import Field, read_yaml

from .dataplane import HasUplinks
from .offer import offer
from .sides import ENDPOINT_SIDE, Breakout
from .supported import Supported
from .tunnels import lower_mtu, number_in


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface of the node, and the labels of connections that leave there: all of one of the selectors."""

    name: str
    selectors: tuple[tuple[tuple[str, str], ...], ...]

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a connection with these labels leaves here."""
        return any(all(labels.get(key) == value for key, value in selector) for selector in self.selectors)


def uplinks_from(path: str) -> tuple[Uplink, ...]:
    """Read upstream's device selector file. Raises ValueError that names its fault.

    interfaces:
      - name: eth1
        matches:
          - labelSelector:
              - via: gateway-1
    """
    try:
        with open(path) as file:
            content = read_yaml(file.read())
    except OSError as error:
        raise ValueError(f"cannot read it: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"it is not YAML: {error}") from None
    root = Field(content, "")
    return tuple(_uplink(each) for each in _listed(root, {"interfaces"}, "interfaces", "the file"))


def _uplink(content: Field) -> Uplink:
    name = content.value.get("name") if isinstance(content.value, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("each of its interfaces needs a name")
    where = f"interface {name}"
    selectors = [
        _selector(labels, name)
        for match in _listed(content, {"name", "matches"}, "matches", where)
        for labels in _listed(match, {"labelSelector"}, "labelSelector", f"a match of {where}")
    ]
    return Uplink(name, tuple(selectors))


def _selector(labels: Field, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(labels.value, dict) or not labels.value:
        raise ValueError(f"a labelSelector of interface {name} is not a label such as via: gateway-1")
    return tuple((key, value.text_or_number()) for key, value in labels.items())


def _listed(item: Field, known: Collection[str], key: str, where: str) -> list[Field]:
    """The list that is the field `key` of `item`, which is called `where`."""
    found = item.fields(known, where, is_root=not item.path)[key] if isinstance(item.value, dict) else None
    if found is None or not isinstance(found.value, list):
        raise ValueError(f"{where} needs a list {key!r}")
    return found.each()


class OfferVlan(Element):
    """For a forwarder's client chain: offer an interface on one of the node's uplinks.

    The endpoint names the VLAN. The labels of its answer choose the uplink: it may have set its own there, as
    upstream's does; the client keeps its original labels.
    """

    def __init__(self, uplinks: Sequence[Uplink], dataplane: HasUplinks) -> None:
        self._uplinks, self._dataplane = uplinks, dataplane

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference; take from the answer which VLAN, and by its labels which uplink."""
        if is_on_this_node(call):
            return await rest.request(call)
        labels = dict(call.connection.labels)
        connection = await offer(call, rest, Mechanism(cls=REMOTE, type=VLAN), partial(self._note, call.live))
        if connection.mechanism is not None and connection.mechanism.type == VLAN:
            connection.labels = labels
        return connection

    async def _note(self, store: Store, connection: Connection, mechanism: Mechanism) -> None:
        breakout = Breakout(self._uplink(connection.labels), number_in(mechanism, VLAN_ID, LARGEST_VLAN))
        lower_mtu(connection, mechanism, (await self._dataplane.uplink(breakout.uplink)).mtu)
        store.put(ENDPOINT_SIDE, breakout)

    def _uplink(self, labels: Mapping[str, str]) -> str:
        for uplink in self._uplinks:
            if uplink.fits(labels):
                return uplink.name
        known = {key for uplink in self._uplinks for selector in uplink.selectors for key, _ in selector}
        wanted = ", ".join(f"{key}={labels.get(key, '')}" for key in sorted(known)) or "any label"
        there = "; ".join(f"{each.name} for {_told(each)}" for each in self._uplinks) or "none"
        raise NotFound(f"no uplink of this node is for {wanted}; there is: {there}")


def _told(uplink: Uplink) -> str:
    selectors = (" and ".join(f"{key}={value}" for key, value in each) for each in uplink.selectors)
    return " or ".join(selectors) or "nobody"


def vlan(uplinks: Sequence[Uplink], dataplane: HasUplinks) -> Supported:
    """VLAN for a forwarder whose node has `uplinks`: towards endpoints only."""
    return Supported(kind=VLAN, offered=[OfferVlan(uplinks, dataplane)])
