"""What a client's list of services means for the wires that stand; time is virtual."""

import asyncio

import pytest
from structlog.testing import capture_logs

from nsm.apis.connection import Connection, Mechanism
from nsm.chains.core import Begin, Chain, Element, NotFound, Unavailable
from nsm.chains.elements.retry import Retry
from nsm.chains.model.nsurl import parse_strict_nsurl
from nsm.services.nsc.wires import _HEAD_START, Wires

A, B, C, D = (f"kernel://{name}/if-{name}" for name in "abcd")


class Mesh(Element):
    """What is behind a client: the services that there are, the wires that stand, and what happened in which order."""

    def __init__(self):
        self.missing, self.wires, self.events, self.close_takes, self.close_error = set(), {}, [], 0.0, None

    async def request(self, call, rest):
        connection = call.connection
        interface = call.request.mechanism_preferences[0].parameters.get("name", "")
        self.events.append(f"+{connection.id}")
        if connection.network_service in self.missing:
            raise NotFound("no such service")
        if interface in [name for _, name in self.wires.values() if name]:
            raise Unavailable(f"{interface} is taken")
        self.wires[connection.id] = connection.network_service, interface
        return await rest.request(call)

    async def close(self, call, rest):
        await asyncio.sleep(self.close_takes)
        self.events.append(f"-{call.connection.id}")
        self.wires.pop(call.connection.id, None)
        if self.close_error is not None:
            raise self.close_error
        await rest.close(call)

    def stand(self):
        return {key: service for key, (service, _) in self.wires.items()}


@pytest.fixture
async def mesh():
    return Mesh()


@pytest.fixture
async def wires(mesh):
    wires = Wires("nsc", {"app": "web"})
    async with Chain([Retry(tell=wires.failed), Begin(), mesh]) as chain:
        yield wires.over(chain)
        await wires.close()
        assert mesh.wires == {}


def wanted(*urls):
    return [parse_strict_nsurl(url) for url in urls]


async def settle(wires):
    await wires.all_up()
    while wires._leaving:
        await asyncio.gather(*wires._leaving.values())


async def test_wires_are_called_by_their_places_in_the_list(mesh, wires):
    wires.set(wanted(A, B, C))
    await settle(wires)
    assert mesh.stand() == {"nsc-0": "a", "nsc-1": "b", "nsc-2": "c"}
    assert mesh.events == ["+nsc-0", "+nsc-1", "+nsc-2"]


async def test_dropping_the_first_service_renames_nobody(mesh, wires):
    wires.set(wanted(A, B, C))
    await settle(wires)
    mesh.events.clear()
    wires.set(wanted(B, C))
    await settle(wires)
    assert mesh.stand() == {"nsc-1": "b", "nsc-2": "c"}
    assert mesh.events == ["-nsc-0"]


async def test_the_order_of_the_list_means_nothing_for_wires_that_stand(mesh, wires):
    wires.set(wanted(A, B))
    await settle(wires)
    mesh.events.clear()
    wires.set(wanted(B, A))
    await settle(wires)
    assert (mesh.stand(), mesh.events) == ({"nsc-0": "a", "nsc-1": "b"}, [])


async def test_what_is_added_has_the_id_of_its_place_if_that_is_free_and_else_the_lowest(mesh, wires):
    wires.set(wanted(A, B))
    await settle(wires)
    wires.set(wanted(B, C, D))
    await settle(wires)
    assert mesh.stand() == {"nsc-1": "b", "nsc-0": "c", "nsc-2": "d"}


async def test_a_url_may_be_there_several_times(mesh, wires):
    wires.set(wanted("kernel://a", "kernel://a", "kernel://b"))
    await settle(wires)
    wires.set(wanted("kernel://a", "kernel://b"))
    await settle(wires)
    assert mesh.stand() == {"nsc-0": "a", "nsc-2": "b"}


@pytest.mark.parametrize("takes", [0.0, 9.0])
async def test_another_service_behind_an_interface_waits_until_the_former_is_gone(mesh, wires, takes):
    wires.set(wanted(A, B))
    await settle(wires)
    mesh.events.clear()
    mesh.close_takes = takes
    wires.set(wanted("kernel://x/if-a", B, C))
    await settle(wires)
    assert mesh.stand() == {"nsc-0": "x", "nsc-1": "b", "nsc-2": "c"}
    assert mesh.events.index("-nsc-0") < mesh.events.index("+nsc-0")
    assert mesh.events.count("+nsc-0") == 1
    if takes:
        assert mesh.events.index("+nsc-2") < mesh.events.index("-nsc-0"), "what needs nothing of it does not wait"


async def test_a_service_that_is_taken_off_the_list_while_it_is_asked_for_is_asked_for_no_more(mesh, wires):
    mesh.missing.add("a")
    wires.set(wanted(A, B))
    await asyncio.sleep(20)
    wires.set(wanted(B))
    await settle(wires)
    mesh.events.clear()
    mesh.missing.clear()
    await asyncio.sleep(60)
    assert (mesh.stand(), mesh.events) == ({"nsc-1": "b"}, [])


async def test_one_that_comes_back_on_the_list_at_once_is_a_new_wire_of_its_former_name(mesh, wires):
    mesh.close_takes = 1.0
    wires.set(wanted(A, B))
    await settle(wires)
    wires.set(wanted(B))
    wires.set(wanted(A, B))
    await settle(wires)
    assert mesh.stand() == {"nsc-0": "a", "nsc-1": "b"}
    assert mesh.events[-2:] == ["-nsc-0", "+nsc-0"]


async def test_a_close_that_fails_is_told_and_the_list_goes_on(mesh, wires):
    wires.set(wanted(A, B))
    await settle(wires)
    mesh.close_error = Unavailable("the manager is away")
    with capture_logs() as logs:
        wires.set(wanted(C, B))
        await settle(wires)
    assert [line["connection"] for line in logs if line["event"] == "closing failed"] == ["nsc-0"]
    assert mesh.stand() == {"nsc-0": "c", "nsc-1": "b"}
    mesh.close_error = None


async def test_a_wire_that_takes_long_holds_the_next_one_up_for_a_moment_only(mesh, wires):
    class Hangs(Element):
        async def request(self, call, rest):
            if call.connection.network_service == "a":
                await asyncio.get_running_loop().create_future()
            return await rest.request(call)

    wires.over(Chain([Retry(tell=wires.failed), Begin(), Hangs(), mesh]))
    wires.set(wanted(A, B))
    began = asyncio.get_running_loop().time()
    while not mesh.wires:
        await asyncio.sleep(0.1)
    assert asyncio.get_running_loop().time() - began == pytest.approx(_HEAD_START, abs=0.2)
    wires.set([])
    await settle(wires)


def standing(connection_id, url):
    wish = parse_strict_nsurl(url)
    mechanism = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": wish.interface})
    labels = {"app": "web", "nodeName": "n", **wish.labels}
    return Connection(id=connection_id, network_service=wish.network_service, labels=labels, mechanism=mechanism)


async def test_a_client_that_starts_again_with_a_list_that_was_changed_meanwhile_keeps_the_ids_of_its_wires(
    mesh, wires
):
    """Its earlier process dropped the first service while it ran; by their places all wires would be others."""
    wires.set(wanted(B, C), standing=[standing("nsc-1", B), standing("nsc-2", C)])
    await settle(wires)
    assert mesh.stand() == {"nsc-1": "b", "nsc-2": "c"}


async def test_another_service_behind_an_interface_of_an_earlier_process_takes_that_one_s_id(mesh, wires):
    """So that the manager closes the earlier wire, which has the interface's name."""
    wires.set(wanted(C, "kernel://x/if-b"), standing=[standing("nsc-7", B), standing("nsc-8", f"{D}?v=1")])
    await settle(wires)
    assert mesh.stand() == {"nsc-0": "c", "nsc-7": "x"}


async def test_what_an_earlier_process_had_and_nobody_wants_any_more_is_closed(mesh):
    """The list was changed while there was no client: its wire would keep interface and addresses until its tokens end."""
    closed = []

    class Closes(Element):
        async def close(self, call, rest):
            closed.append(call.connection)
            await rest.close(call)

    wires = Wires("nsc", {"app": "web"}, is_left=lambda connection: connection.id != "nsc-9")
    async with Chain([Retry(tell=wires.failed), Begin(), Closes(), mesh]) as chain:
        earlier = [standing("nsc-0", A), standing("nsc-1", B), standing("nsc-9", D)]
        wires.over(chain).set(wanted(B), standing=earlier)
        await settle(wires)
        assert closed == [earlier[0]]
        assert mesh.stand() == {"nsc-1": "b"}
        await wires.close()


async def test_nothing_is_sent_for_a_wire_that_never_was_when_the_client_ends(mesh):
    mesh.missing.add("a")
    wires = Wires("nsc", {})
    async with Chain([Retry(tell=wires.failed), Begin(), mesh]) as chain:
        wires.over(chain).set(wanted(A))
        await asyncio.sleep(1)
        await wires.close()
    assert "-nsc-0" not in mesh.events


async def test_a_defect_ends_the_client_and_is_not_waited_for(mesh):
    class Broken(Element):
        async def request(self, call, rest):
            raise RuntimeError("a defect")

    wires = Wires("nsc", {})
    wires.over(Chain([Retry(tell=wires.failed), Begin(), Broken()])).set(wanted(A))
    with pytest.raises(RuntimeError, match="a defect"):
        await wires.all_up()
    await wires.close()
