"""Who sends and receives by policy routes, and what of them is in a namespace."""

import socket
import struct
import time

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain
from nsm.forwarder_kernel.kernel_thread import KernelThread
from nsm.forwarder_kernel.policy_routes import PolicyRoutes
from nsm.forwarder_kernel.policy_tables import FROM_1
from nsm.mesh import namespaces

IPV4 = {"one": ("10.0.0.1", "10.0.0.0"), "two": ("10.0.0.3", "10.0.0.2"), "server": "172.16.9.9", "all": "0.0.0.0/0"}
IPV6 = {"one": ("fd00::1", "fd00::"), "two": ("fd00::3", "fd00::2"), "server": "fd09::9", "all": "::/0"}


class Changes:
    """What somebody changes in the rules and routes of a namespace."""

    GROUPS = 1 << 6 | 1 << 10 | 1 << 7 | 1 << 18  # IPv4 and IPv6 routes, IPv4 and IPv6 rules
    KINDS = {24: "+route", 25: "-route", 32: "+rule", 33: "-rule"}

    def __init__(self, host):
        def listen():
            namespaces.enter(host.descriptor, namespaces.NEW_NET)
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            sock.bind((0, self.GROUPS))
            sock.setblocking(False)
            return sock

        self.sock = namespaces.in_thread(listen)

    def seen(self):
        kinds = []
        while True:
            try:
                data, position = self.sock.recv(1 << 16), 0
            except BlockingIOError:
                return sorted(kinds)
            while position < len(data):
                size, kind = struct.unpack_from("=IH", data, position)
                kinds.append(self.KINDS[kind])
                position += (size + 3) & ~3


class Echo:
    """Says at every UDP port of a list which host got the packet."""

    def __init__(self, host, address, ports):
        def listen():
            namespaces.enter(host.descriptor, namespaces.NEW_NET)
            return [self._bound(address, port) for port in ports]

        self.socks = namespaces.in_thread(listen)

    @staticmethod
    def _bound(address, port):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
        sock.setblocking(False)
        return sock

    def got(self):
        """Ports whose socket got a packet."""
        ports = []
        for sock in self.socks:
            try:
                sock.recv(64)
            except BlockingIOError:
                continue
            ports.append(sock.getsockname()[1])
        return ports

    def close(self):
        for sock in self.socks:
            sock.close()


def received(echoes, seconds=3.0):
    """The ports of each that got a packet, when one has: a busy machine delivers later than it sends."""
    end = time.monotonic() + seconds
    while not any(ports := [echo.got() for echo in echoes]) and time.monotonic() < end:
        time.sleep(0.001)
    return ports


def send(host, source, server, port):
    """One UDP packet."""

    def work():
        namespaces.enter(host.descriptor, namespaces.NEW_NET)
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.sendto(b"?", (server, port))

    namespaces.in_thread(work)


def until_local(end, address, seconds=5.0):
    """An IPv6 address takes packets when the kernel has found the time to make its route, and not at once."""
    deadline = time.monotonic() + seconds
    while not (is_local := "local" in end.run("ip", "route", "get", address)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert is_local, address


def host(address):
    return f"{address}/{128 if ':' in address else 32}"


class Connections:
    """A forwarder's chain, as far as it is about policy routes."""

    def __init__(self, client, numbers=FROM_1):
        self.kernel, self.path = KernelThread(), client.path
        self.begin, self.element = Begin(), PolicyRoutes(self.kernel, numbers)
        self.chain = Chain([self.begin, self.element])

    async def request(self, *policies, name="two", connection_id=None, path=None, payload=""):
        ours, theirs = zip(IPV4[name], IPV6[name], strict=True) if name in IPV4 else ([], [])
        ip = IpContext(
            src_ip_addrs=[host(a) for a in ours], dst_ip_addrs=[host(a) for a in theirs], policies=list(policies)
        )
        mechanism = Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{path or self.path}", "name": name})
        context = ConnectionContext(ip_context=ip)
        connection = Connection(id=connection_id or name, mechanism=mechanism, context=context, payload=payload)
        await self.chain.request(Call(NetworkServiceRequest(connection=connection)))

    async def close(self, name="two"):
        await self.chain.close(Call(NetworkServiceRequest(connection=Connection(id=name))))

    async def aclose(self):
        await self.chain.aclose()
        await self.kernel.aclose()


def rules(client):
    """Our rules, as `ip` shows them, by family and priority: source, protocol and port."""
    found = [client.json(family, "rule") for family in ("-4", "-6")]
    ours = [rule for rules in found for rule in sorted(rules, key=lambda rule: rule["priority"]) if is_ours(rule)]
    return [
        (rule["src"], rule.get("ipproto"), rule.get("dport") or (rule.get("dport_start"), rule.get("dport_end")))
        for rule in ours
    ]


def is_ours(rule):
    return rule.get("protocol") == "110"


def tables(client):
    """All tables but the kernel's own, and what is in them."""
    found = {}
    for family in ("-4", "-6"):
        for route in client.json(family, "route", "show", "table", "all"):
            if str(route.get("table", "")).isdigit():
                found.setdefault(int(route["table"]), set()).add((route["dst"], route.get("gateway")))
    return found


def nothing_is_left(client):
    return rules(client) == [] and tables(client) == {}
