"""What VPP keeps: interfaces and all that is configured about them. Handlers change it; see the modules beside this."""

import ipaddress
import os
from dataclasses import dataclass, field

NONE = 0xFFFFFFFF
"""VPP's index of nothing; as an argument, often: all of them."""
PORTS = {"learn": True, "forward": True, "flood": True, "uu_flood": True, "arp_term": False, "arp_ufwd": False}
"""What a bridge domain does that was not created, but named by an interface."""


class Refusal(Exception):
    """VPP answers with this return value, by the name that its sources have for it."""

    def __init__(self, name, **fields):
        super().__init__(name)
        self.name, self.fields = name, fields


class Pool:
    """Indices as VPP gives them: the one that was freed last comes first."""

    def __init__(self):
        self._next, self._free = 0, []

    def take(self):
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1

    def free(self, index):
        self._free.append(index)


@dataclass
class Interface:
    """One of VPP's software interfaces."""

    index: int
    name: str
    kind: str
    device: str
    """What VPP calls the class of the device."""
    is_ethernet: bool
    mac: str = "00:00:00:00:00:00"
    admin: bool = False
    link: bool = False
    mtu: list[int] = field(default_factory=lambda: [9000, 0, 0, 0])
    link_mtu: int = 9000
    speed: int = 0
    duplex: int = 0
    parent: int = NONE
    sub: dict = field(default_factory=dict)
    rewrite: dict = field(default_factory=dict)
    tag: str = ""
    addresses: list = field(default_factory=list)
    tables: dict = field(default_factory=lambda: {4: 0, 6: 0})
    ip6: bool = False
    unnumbered: int = NONE
    into: int = NONE
    """Where frames are cross-connected to."""
    domain: int = 0
    group: int = 0
    promiscuous: bool = False
    queues: int = 1
    rx_mode: int = 1
    acls: tuple = ((), ())
    own: dict = field(default_factory=dict)
    """What only its kind has."""


@dataclass
class Domain:
    """A bridge domain."""

    number: int
    does: dict
    mac_age: int = 0
    tag: str = ""
    members: list[int] = field(default_factory=list)


class World:
    """All of it; `links` are the host's interfaces that exist (None: any), `vhost` whether taps can be made."""

    def __init__(self, version="26.06", *, links=None, vhost=True, autolink=True):
        self.version, self.links, self.vhost, self.autolink = version, links, vhost, autolink
        self.pool, self.interfaces = Pool(), {}
        self.instances = {}
        self.domains = {}
        self.l3xc = {}
        self.acls, self.acl_pool = {}, Pool()
        self.tables = {(4, 0): "ipv4-VRF:0", (6, 0): "ipv6-VRF:0"}
        self.routes, self.neighbors = {}, {}
        self.sockets = {0: "/run/vpp/memif.sock"}
        self.peers, self.peer_pool = {}, Pool()
        self.profiles = {}
        self.local_key = ""
        self.faults = []
        """What a client did that it may not do."""
        self.events = []
        """(name, fields) of events that are to be sent to who wants them."""
        self.process_id = os.getpid()
        self._random, self._happened = {}, {}
        self.changed = lambda: None
        self.add("local0", "local", "local", is_ethernet=False)

    def add(self, name, kind, device, *, is_ethernet=True, **more):
        """A new interface."""
        index = self.pool.take()
        if not is_ethernet:
            more = {"mtu": [0, 0, 0, 0], "link_mtu": 0, **more}
        if is_ethernet and "mac" not in more:
            more["mac"] = (
                f"02:fe:{index >> 24 & 255:02x}:{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
            )
        self.interfaces[index] = made = Interface(index, name, kind, device, is_ethernet, **more)
        self.tell(made, "ADDED")
        self.changed()
        return made

    def remove(self, interface):
        """Remove an interface, and what hangs on it."""
        for other in list(self.interfaces.values()):
            if other.parent == interface.index:
                self.remove(other)
        self.leave(interface)
        for other in self.interfaces.values():
            if other.into == interface.index:
                self.faults.append(
                    f"{interface.name} was deleted while {other.name} is cross-connected to it: VPP may abort when that is undone"
                )
            if other.unnumbered == interface.index:
                other.unnumbered = NONE
        for table in (self.neighbors, self.l3xc):
            for key in [key for key in table if key[0] == interface.index]:
                del table[key]
        del self.interfaces[interface.index]
        self.pool.free(interface.index)
        self.tell(interface, "DELETED")
        self.changed()

    def get(self, index, error="INVALID_SW_IF_INDEX", kind="", **fields):
        """The interface of an index, and of a kind; refused if there is none."""
        found = self.interfaces.get(index)
        if found is None or (kind and found.kind != kind):
            raise Refusal(error, **fields)
        return found

    def unused(self, kind, used, most=NONE):
        """A number that VPP picks: each kind has a generator of random numbers, which begins in the same way."""
        found = 0
        while not found or found in used:
            self._random[kind] = (self._random.get(kind, 0) * 1664525 + 1013904223) & NONE
            found = self._random[kind] & most
        return found

    def instance(self, kind, wanted=NONE, error="INSTANCE_IN_USE"):
        """The number in the name of an interface: the first that is free, or the one that is wanted."""
        used = self.instances.setdefault(kind, set())
        if wanted == NONE:
            wanted = next(number for number in range(len(used) + 1) if number not in used)
        elif wanted in used:
            raise Refusal(error)
        used.add(wanted)
        return wanted

    def leave(self, interface):
        """Take an interface out of bridge domain and cross-connect."""
        interface.into = NONE
        if interface.domain:
            self.domains[interface.domain].members.remove(interface.index)
            interface.domain = interface.group = 0

    def tell(self, interface, *what):
        """Something happened to an interface: UP and DOWN of ADMIN and LINK, ADDED, DELETED."""
        self._happened.setdefault(interface.index, set()).update(what)

    def set_admin(self, interface, up):
        """Set an interface up or down."""
        if interface.admin != up:
            interface.admin = up
            self.tell(interface, "ADMIN_UP" if up else "ADMIN_DOWN")

    def set_link(self, index, up):
        """The other side of an interface came or went."""
        interface = self.interfaces[index]
        if interface.link != up:
            interface.link = up
            self.tell(interface, "LINK_UP" if up else "LINK_DOWN")

    def take_events(self):
        """The events that VPP would send now: one for an interface, whose flags are what came up, not what is up."""
        happened, self._happened = self._happened, {}
        for index, what in sorted(happened.items()):
            flags = [f"IF_STATUS_API_FLAG_{one}" for one in sorted(what) if one.endswith("_UP")]
            fields = {"sw_if_index": index, "flags": flags, "deleted": "DELETED" in what}
            self.events.append(("sw_interface_event", fields))
        events, self.events = self.events, []
        return events

    def establish(self, peer):
        """A WireGuard peer has answered the handshake."""
        self.peers[peer]["flags"] = ["WIREGUARD_PEER_ESTABLISHED"]
        self.events.append(("wireguard_peer_event", {"peer_index": peer, "flags": ["WIREGUARD_PEER_ESTABLISHED"]}))


def flags_of(interface):
    """VPP's names for what is up."""
    names = {"IF_STATUS_API_FLAG_ADMIN_UP": interface.admin, "IF_STATUS_API_FLAG_LINK_UP": interface.link}
    return [name for name, is_so in names.items() if is_so]


def number(value, names):
    """A number of an enumeration that is decoded as a name."""
    return names.index(value) if isinstance(value, str) else int(value)


ANY4, ANY6 = ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")
