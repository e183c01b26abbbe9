"""What may happen to a mesh: each fault breaks something, and says which wires may lose packets by it, for how long."""

import asyncio
import random
import signal
from dataclasses import dataclass, field

from .mesh import CLIENTS, CONTROL, ENDPOINTS, FORWARDERS, MANAGERS, NODES, OTHER_NODE

LONGER_THAN_TOKENS, FOR_GOOD = 25.0, 48.0
"""Seconds: until all tokens of before have ended; and until those have given up that wait for what returns."""
REFRESHED = 8.0
"""Seconds within which every connection is refreshed."""

KINDS = []
"""Functions that make a fault out of random choices, each with its weight."""


SOON, GROWTH, LONGEST_PAUSE = 3.0, 1.2, 6.0
"""Seconds that an attempt takes; and the pause before it, which is at most so many times as long as what it waited for
was away, and at most so many seconds."""
GIVEN_UP, BEFORE_THE_REPLY = "until its record ends", "before the reply"


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
    return Fault("kill", (chance.choice(CONTROL),), LONGER_THAN_TOKENS)


@kind(1)
def two_outages(chance):
    """A part of the control plane is back when another one leaves for long, and nothing was refreshed between."""
    return Fault("kill one after the other", tuple(chance.sample([*MANAGERS, *FORWARDERS], 2)), FOR_GOOD)


@kind(3)
def freeze(chance):
    """A part of the control plane is stopped for a while."""
    return Fault("stop", (chance.choice(CONTROL),), chance.choice([0.5, 2.0, 6.0]))


@kind(2)
def cut(chance):
    """The link between the nodes is cut."""
    return Fault("cut", NODES, chance.choice([0.5, 2.0, 6.0]))


@kind(1)
def long_cut(chance):
    """A node is cut off for longer than a token's life."""
    del chance
    return Fault("cut", NODES, LONGER_THAN_TOKENS)


@kind(3)
def pod_of_endpoint(chance):
    """An endpoint ends with its namespace, and comes back later."""
    return Fault("end with namespace", (chance.choice([*ENDPOINTS]),), chance.choice([0.0, 2.0, 6.0]))


@kind(1)
def endpoint_is_given_up(chance):
    """An endpoint is away for longer than its record lives."""
    return Fault("end with namespace", (chance.choice([*ENDPOINTS]),), LONGER_THAN_TOKENS, GIVEN_UP)


@kind(1)
def endpoint_during_refresh(chance):
    """An endpoint is replaced while its clients refresh."""
    return Fault("replace during a refresh", (chance.choice([*ENDPOINTS]),), REFRESHED)


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
    return Fault("kill with its manager", (chance.choice([*CLIENTS]),), chance.choice([0.0, 1.0]))


@kind(1)
def client_to_another_node(chance):
    """A client and its manager are killed at once, and the client is back on another node."""
    return Fault("move", (chance.choice([*CLIENTS]),))


@kind(1)
def policy_routes_in_another_order(chance):
    """Forwarders restart, and two clients with policy routes after them, in either order."""
    return Fault("restart in this order", tuple(chance.sample(["cat", "dan"], 2)), chance.choice([0.0, 1.0]))


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
def reboot_of_another_node(chance):
    """A node that no wire has anything to do with is rebooted."""
    return Fault("reboot", (OTHER_NODE,), chance.choice([0.0, 3.0]))


@kind(1)
def interrupted_request(chance):
    """A client is killed while its request is at an endpoint that does not answer."""
    return Fault("interrupt a request", (chance.choice([*CLIENTS]),), 0.3)


@kind(1)
def request_without_reply(chance):
    """A client is killed when its wire is made, and before the reply is sent."""
    return Fault("interrupt a request", (chance.choice([*CLIENTS]),), 0.3, BEFORE_THE_REPLY)


@kind(5)
def link(chance):
    """Somebody changes a wire's interface."""
    client = chance.choice([*CLIENTS])
    interface = chance.choice([*CLIENTS[client][1]])
    side = chance.choice(["client", "endpoint"])
    deed = chance.choice(["down", "down and up", "delete", "flush addresses", "flush routes", "rename", "mtu"])
    return Fault("interface", (client, interface, side), 0.0, deed)


@kind(1)
def rename_while_manager_restarts(chance):
    """A client renames its interface while its manager restarts."""
    client = chance.choice([*CLIENTS])
    return Fault("rename", (client, chance.choice([*CLIENTS[client][1]])), 1.5, "while its manager restarts")


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


def _after(chaos, begin):
    """Seconds within which wires are back that had nowhere to go since `begin`."""
    return SOON + min(GROWTH * (chaos.now() - begin), LONGEST_PAUSE)


async def break_it(fault, chaos):
    """Do it all; returns its `Effect` once everything that was killed runs again."""
    deed = {
        "kill": _kill,
        "kill one after the other": _kill_in_turn,
        "kill with its manager": _kill_with_manager,
        "move": _move,
        "restart in this order": _restart_in_order,
        "stop": _stop,
        "cut": _cut,
        "end with namespace": _end_with_namespace,
        "replace during a refresh": _replace,
        "reboot": _reboot,
        "interrupt a request": _interrupt,
        "interface": _interface,
        "rename": _rename,
        "edit service": _edit,
        "change wishes": _change,
    }[fault.kind]
    return await deed(fault, chaos)


async def _kill(fault, chaos):
    await _restart(chaos, fault.names, fault.pause)
    return Effect()


async def _restart(chaos, names, pause):
    await chaos.mesh.kill(*names)
    await asyncio.sleep(pause)
    await chaos.mesh.start(*names)


async def _kill_in_turn(fault, chaos):
    first, second = fault.names
    await _restart(chaos, [first], 0.0)
    await _restart(chaos, [second], fault.pause)
    return Effect()


async def _kill_with_manager(fault, chaos):
    await _restart(chaos, [*fault.names, f"nsmgr-{chaos.mesh.node_of[fault.names[0]]}"], fault.pause)
    return Effect()


async def _move(fault, chaos):
    (client,), begin = fault.names, chaos.now()
    node = chaos.mesh.node_of[client]
    wires = [wire for wire in chaos.mesh.wires() if wire[0] == client]
    await chaos.traffic.stop(client)
    await asyncio.gather(chaos.mesh.kill(client, namespaces=True), chaos.mesh.kill(f"nsmgr-{node}"))
    (chaos.mesh.node_of[client],) = {*NODES} - {node}
    await chaos.mesh.up()
    await chaos.traffic.start(client)
    return Effect(wires, _after(chaos, begin))


async def _restart_in_order(fault, chaos):
    forwarders = {f"forwarder-{chaos.mesh.node_of[client]}" for client in fault.names}
    await chaos.mesh.kill(*forwarders, *fault.names)
    await asyncio.sleep(fault.pause)
    await chaos.mesh.start(*forwarders)
    for client in fault.names:
        await chaos.mesh.start(client)
    return Effect()


async def _stop(fault, chaos):
    await chaos.mesh.kill(*fault.names, number=signal.SIGSTOP)
    await asyncio.sleep(fault.pause)
    await chaos.mesh.kill(*fault.names, number=signal.SIGCONT)
    return Effect()


async def _cut(fault, chaos):
    wires, begin = chaos.crossing(), chaos.now()
    await chaos.mesh.ask({"command": "cut", "nodes": list(fault.names)})
    await asyncio.sleep(fault.pause)
    await chaos.mesh.ask({"command": "mend", "nodes": list(fault.names)})
    return Effect(wires, _after(chaos, begin))


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
        return Effect(wires, _after(chaos, begin))
    back = await chaos.until_passing(wires, begin, max(min(fault.pause, 6.0), 3.0), left)
    chaos.healed(back.values())
    if fault.detail == GIVEN_UP:
        await chaos.expect_no_record(fault.names, begin, fault.pause)
    await chaos.mesh.start(*fault.names)
    return Effect(wires, 3.0, begin, left=left)


async def _replace(fault, chaos):
    """Stopped, it lets packets pass and answers no refresh, until it ends with its namespace."""
    (endpoint,) = fault.names
    wires = [wire for wire in chaos.mesh.wires() if chaos.endpoint_of(wire) == endpoint]
    await chaos.mesh.kill(endpoint, number=signal.SIGSTOP)
    await asyncio.sleep(fault.pause)
    begin = chaos.now()
    await chaos.mesh.kill(endpoint, namespaces=True)
    await chaos.mesh.start(endpoint)
    return Effect(wires, _after(chaos, begin))


async def _reboot(fault, chaos):
    (node,), begin = fault.names, chaos.now()
    workloads = [name for name, where in chaos.mesh.node_of.items() if where == node]
    control = [f"nsmgr-{node}", f"forwarder-{node}"]
    wires = [w for w in chaos.mesh.wires() if {w[0], chaos.endpoint_of(w)} & {*workloads}]
    clients = [name for name in workloads if name in CLIENTS]
    for client in clients:
        await chaos.traffic.stop(client)
    await asyncio.gather(chaos.mesh.kill(*control), chaos.mesh.kill(*workloads, namespaces=True))
    await asyncio.sleep(fault.pause)
    await chaos.mesh.start(*control, *workloads)
    for client in clients:
        await chaos.traffic.start(client)
    return Effect(wires, SOON + _after(chaos, begin))


async def _interrupt(fault, chaos):
    (client,), begin = fault.names, chaos.now()
    services = set(chaos.mesh.wanted[client].values())
    endpoints = [name for name, (_, service, _) in ENDPOINTS.items() if service in services]
    wires = [wire for wire in chaos.mesh.wires() if wire[0] == client]
    await chaos.traffic.stop(client)
    await chaos.mesh.kill(client, namespaces=True)
    await chaos.mesh.kill(*endpoints, number=signal.SIGSTOP)
    starting = asyncio.create_task(chaos.mesh.start(client))
    await asyncio.sleep(1.0 + fault.pause)
    manager = f"nsmgr-{chaos.mesh.node_of[client]}"
    if fault.detail == BEFORE_THE_REPLY:  # made by the forwarder, while the manager cannot pass the reply on
        await chaos.mesh.kill(manager, number=signal.SIGSTOP)
        await chaos.mesh.kill(*endpoints, number=signal.SIGCONT)
        await chaos.until_made(client, 2.0)
    await chaos.mesh.kill(client, namespaces=True)
    await asyncio.gather(starting, return_exceptions=True)  # it has ended before it was ready
    await chaos.mesh.kill(*endpoints, manager, number=signal.SIGCONT)
    await chaos.mesh.start(client)
    await chaos.traffic.start(client)
    return Effect(wires, _after(chaos, begin))


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


async def _rename(fault, chaos):
    client, link = fault.names
    if link not in chaos.mesh.wanted[client]:
        return Effect()
    manager = f"nsmgr-{chaos.mesh.node_of[client]}"
    await chaos.mesh.kill(manager)
    await chaos.run_in(client, f"ip link set {link} down && ip link set {link} name moved && ip link set moved up")
    await chaos.mesh.start(manager)
    await asyncio.sleep(fault.pause)
    await chaos.run_in(client, f"ip link set moved down; ip link set moved name {link}; ip link set {link} up")
    return Effect([(client, link)], 4.0)


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
    if interface not in chaos.mesh.wanted[client]:
        return Effect()
    before = dict(chaos.mesh.wanted[client])
    del chaos.mesh.wanted[client][interface]
    chaos.mesh.write_wanted(client)
    await asyncio.sleep(fault.pause)
    await chaos.expect_gone(client, interface, 3.0)
    chaos.mesh.wanted[client] = before
    chaos.mesh.write_wanted(client)
    return Effect([(client, interface)], 4.0)
