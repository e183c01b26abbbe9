"""What may happen to a mesh: each fault breaks something, and says which wires may lose packets by it, for how long."""

import asyncio
import random
import signal
from dataclasses import dataclass, field

from .mesh import CLIENTS, CONTROL, ENDPOINTS, FORWARDERS, MANAGERS, NODES

KINDS = []
"""Functions that make a fault out of random choices, each with its weight."""


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, and all that was chosen for it."""

    kind: str
    names: tuple = ()
    pause: float = 0.0
    detail: str = ""

    def __str__(self):
        return " ".join(filter(None, [self.kind, self.detail, ", ".join(self.names), f"for {self.pause:.1f} s"]))


@dataclass
class Effect:
    """Which wires may lose packets, until how many seconds after `since` (the last deed, if it is not said)."""

    wires: list = field(default_factory=list)
    bound: float = 0.0
    since: float | None = None
    left: set = field(default_factory=set)
    """Addresses of endpoints that do not answer any more."""


def schedule(seed, kinds=None):
    """The faults of a seed, without end: the same for the same seed."""
    chance = random.Random(seed)
    makers = [maker for maker in KINDS if kinds is None or maker.__name__ in kinds]
    while True:
        maker = chance.choices(makers, [each.weight for each in makers])[0]
        yield maker(chance)


def kind(weight):
    def note(maker):
        maker.weight = weight
        KINDS.append(maker)
        return maker

    return note


@kind(6)
def control(chance):
    """Parts of the control plane are killed, and come back."""
    names = chance.sample(CONTROL, chance.choice([1, 1, 1, 2, 2, 3, len(CONTROL)]))
    return Fault("kill", tuple(sorted(names)), chance.choice([0.0, 0.3, 1.0, 3.0, 8.0]))


@kind(1)
def long_absence(chance):
    """A part of the control plane is away for longer than tokens live."""
    return Fault("kill", (chance.choice(CONTROL),), 25.0)


@kind(3)
def freeze(chance):
    """A part of the control plane is stopped for a while."""
    return Fault("stop", (chance.choice(CONTROL),), chance.choice([0.5, 2.0, 6.0]))


@kind(2)
def cut(chance):
    """The link between the nodes is cut."""
    return Fault("cut", NODES, chance.choice([0.5, 2.0, 6.0]))


@kind(3)
def pod_of_endpoint(chance):
    """An endpoint ends with its namespace, and comes back later."""
    return Fault("end with namespace", (chance.choice([*ENDPOINTS]),), chance.choice([0.0, 2.0, 6.0]))


@kind(1)
def all_of_a_service(chance):
    """Both endpoints of a service end with their namespaces."""
    service = chance.choice(["one", "two"])
    names = [name for name, (_, provided, _) in ENDPOINTS.items() if provided == service]
    return Fault("end with namespace", tuple(names), chance.choice([0.0, 2.0]))


@kind(2)
def process_of_endpoint(chance):
    """An endpoint's process is killed and started again in its namespace."""
    return Fault("kill", (chance.choice([*ENDPOINTS]),), chance.choice([0.0, 2.0]))


@kind(2)
def process_of_client(chance):
    """A client's process is killed and started again in its namespace."""
    return Fault("kill", (chance.choice([*CLIENTS]),), chance.choice([0.0, 2.0]))


@kind(2)
def client_and_manager(chance):
    """A client and its manager are killed at once."""
    client = chance.choice([*CLIENTS])
    return Fault("kill", (client, f"nsmgr-{CLIENTS[client][0]}"), chance.choice([0.0, 1.0]))


@kind(2)
def pod_of_client(chance):
    """A client ends with its namespace, and comes back."""
    return Fault("end with namespace", (chance.choice([*CLIENTS]),), chance.choice([0.0, 2.0]))


@kind(1)
def reboot(chance):
    """Everything on a node ends, and comes back."""
    node = chance.choice(NODES)
    return Fault("reboot", (node,), chance.choice([0.0, 3.0]))


@kind(1)
def interrupted_request(chance):
    """A client is killed while its request is at an endpoint that does not answer."""
    return Fault("interrupt a request", (chance.choice([*CLIENTS]),), 0.3)


@kind(5)
def link(chance):
    """Somebody changes a wire's interface."""
    client = chance.choice([*CLIENTS])
    interface = chance.choice([*CLIENTS[client][1]])
    side = chance.choice(["client", "endpoint"])
    deed = chance.choice(["down", "down and up", "delete", "flush addresses", "flush routes", "rename", "mtu"])
    return Fault("interface", (client, interface, side), 0.0, deed)


@kind(2)
def edit(chance):
    """A service is edited so that its clients belong to one endpoint, or to any."""
    name = chance.choice([*ENDPOINTS])
    return Fault("edit service", (ENDPOINTS[name][1], name), 0.0)


@kind(2)
def change(chance):
    """A client wants one wire less, and then again what it wanted."""
    client = chance.choice(["ada", "bob", "cat"])
    return Fault("change wishes", (client, chance.choice([*CLIENTS[client][1]])), chance.choice([0.5, 2.0]))


async def break_it(fault, chaos):
    """Do it all; returns its `Effect` once everything that was killed runs again."""
    deed = {
        "kill": _kill,
        "stop": _stop,
        "cut": _cut,
        "end with namespace": _end_with_namespace,
        "reboot": _reboot,
        "interrupt a request": _interrupt,
        "interface": _interface,
        "edit service": _edit,
        "change wishes": _change,
    }[fault.kind]
    return await deed(fault, chaos)


async def _kill(fault, chaos):
    await chaos.mesh.kill(*fault.names)
    await asyncio.sleep(fault.pause)
    await chaos.mesh.start(*fault.names)
    return Effect()


async def _stop(fault, chaos):
    await chaos.mesh.kill(*fault.names, number=signal.SIGSTOP)
    await asyncio.sleep(fault.pause)
    await chaos.mesh.kill(*fault.names, number=signal.SIGCONT)
    return Effect()


async def _cut(fault, chaos):
    wires = chaos.crossing()
    await chaos.mesh.ask({"command": "cut", "nodes": list(fault.names)})
    await asyncio.sleep(fault.pause)
    await chaos.mesh.ask({"command": "mend", "nodes": list(fault.names)})
    return Effect(wires, 4.0)


async def _end_with_namespace(fault, chaos):
    begin = chaos.now()
    wires = [wire for wire in chaos.mesh.wires() if {wire[0], chaos.endpoint_of(wire)} & {*fault.names}]
    is_client, left = fault.names[0] in CLIENTS, {chaos.traffic.target(wire) for wire in wires}
    for name in fault.names:
        await chaos.traffic.stop(name)
    await chaos.mesh.kill(*fault.names, namespaces=True)
    is_only_one = {*fault.names} & {*chaos.mesh.chosen.values()}  # of its service, by an edit before
    if is_client or is_only_one or len(fault.names) > 1 or not fault.pause:
        await asyncio.sleep(fault.pause)
        await chaos.mesh.start(*fault.names)
        if is_client:
            await chaos.traffic.start(fault.names[0])
        return Effect(wires, 4.0)
    back = await chaos.traffic.until_passing(wires, begin, max(fault.pause, 3.0), left)
    chaos.healed(back.values())
    await chaos.mesh.start(*fault.names)
    return Effect(wires, 3.0, begin, left=left)


async def _reboot(fault, chaos):
    node = fault.names[0]
    workloads = [name for name, (where, *_) in {**ENDPOINTS, **CLIENTS}.items() if where == node]
    control = [name for name in CONTROL if name in (*MANAGERS, *FORWARDERS) and name.endswith(node)]
    wires = [w for w in chaos.mesh.wires() if {w[0], chaos.endpoint_of(w)} & {*workloads}]
    clients = [name for name in workloads if name in CLIENTS]
    for client in clients:
        await chaos.traffic.stop(client)
    await asyncio.gather(chaos.mesh.kill(*control), chaos.mesh.kill(*workloads, namespaces=True))
    await asyncio.sleep(fault.pause)
    await chaos.mesh.start(*control, *workloads)
    for client in clients:
        await chaos.traffic.start(client)
    return Effect(wires, 8.0)


async def _interrupt(fault, chaos):
    client = fault.names[0]
    services = set(chaos.mesh.wanted[client].values())
    endpoints = [name for name, (_, service, _) in ENDPOINTS.items() if service in services]
    wires = [wire for wire in chaos.mesh.wires() if wire[0] == client]
    await chaos.traffic.stop(client)
    await chaos.mesh.kill(client, namespaces=True)
    await chaos.mesh.kill(*endpoints, number=signal.SIGSTOP)
    starting = asyncio.create_task(chaos.mesh.start(client))
    await asyncio.sleep(1.0 + fault.pause)
    await chaos.mesh.kill(client, namespaces=True)
    await asyncio.gather(starting, return_exceptions=True)  # it has ended before it was ready
    await chaos.mesh.kill(*endpoints, number=signal.SIGCONT)
    await chaos.mesh.start(client)
    await chaos.traffic.start(client)
    return Effect(wires, 5.0)


async def _interface(fault, chaos):
    client, interface, side = fault.names
    wire = (client, interface)
    if interface not in chaos.mesh.wanted[client]:
        return Effect()
    place, link = (client, interface) if side == "client" else await chaos.far_end(wire)
    commands = {
        "down": [f"ip link set {link} down"],
        "down and up": [f"ip link set {link} down", f"ip link set {link} up"],
        "delete": [f"ip link delete {link}"],
        "flush addresses": [f"ip addr flush dev {link}"],
        "flush routes": [f"ip route flush dev {link}"],
        "rename": [f"ip link set {link} down", f"ip link set {link} name moved", "ip link set moved up"],
        "mtu": [f"ip link set {link} mtu 1280"],
    }[fault.detail]
    await chaos.run_in(place, " && ".join(commands))
    if fault.detail == "rename":
        await asyncio.sleep(1.5)
        await chaos.run_in(place, f"ip link set moved down; ip link set moved name {link}; ip link set {link} up")
    return Effect([wire], 4.0)


async def _edit(fault, chaos):
    service, endpoint = fault.names
    wires = [wire for wire in chaos.mesh.wires() if chaos.mesh.service_of(wire) == service]
    chaos.mesh.chosen = {**chaos.mesh.chosen, service: None if chaos.mesh.chosen.get(service) else endpoint}
    await chaos.mesh.up()
    if chaos.mesh.chosen[service] is not None:
        await chaos.expect_moved(wires, endpoint, 5.0)
    return Effect(wires, 5.0)


async def _change(fault, chaos):
    client, interface = fault.names
    before = dict(chaos.mesh.wanted[client])
    del chaos.mesh.wanted[client][interface]
    chaos.mesh.write_wanted(client)
    await asyncio.sleep(fault.pause)
    await chaos.expect_gone(client, interface, 3.0)
    chaos.mesh.wanted[client] = before
    chaos.mesh.write_wanted(client)
    return Effect([(client, interface)], 4.0)
