"""What a client writes down of its connections, for the process that comes after it."""

import time

import pytest
from structlog.testing import capture_logs

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable
from nsm.chains.elements.recover import Recover
from nsm.chains.elements.remember import Memory, Remember
from nsm.chains.elements.update_path import UpdatePath
from nsm.chains.testing.calls import call

ADDRESS = "10.0.0.1/32"


class Manager(Element):
    """Answers as a manager does; `path` is what it was asked with last."""

    def __init__(self, lifetime=600.0):
        self.lifetime, self.path, self.error = lifetime, None, None

    async def request(self, call, rest):
        connection, expires = call.connection, Timestamp.from_seconds(time.time() + self.lifetime)
        self.path = connection.path
        if self.error is not None:
            raise self.error
        tokens = [
            PathSegment(name=n, id=i, token="secret", expires=expires) for n, i in (("nsc", "nsc-0"), ("m", "m-7"))
        ]
        connection.path = Path(index=1, path_segments=tokens)
        connection.network_service_endpoint_name = "nse-1"
        connection.mechanism = call.request.mechanism_preferences[0]
        connection.context = ConnectionContext(ip_context=IpContext(src_ip_addrs=[ADDRESS]))
        return connection

    async def close(self, call, rest):
        if self.error is not None:
            raise self.error


async def nothing(_selector):
    """What a manager shows that was just started."""
    return []


def wanted(connection_id="nsc-0"):
    connection = Connection(id=connection_id, network_service="icmp")
    preference = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=[preference]))


def process(folder, manager, liveness=None):
    """A client's chain."""
    memory = Memory(str(folder))
    recover = Recover("nsc", nothing, memory=memory, liveness=liveness)
    return Chain([recover, UpdatePath("nsc"), Begin(), Remember(memory), manager])


class Wire:
    """The liveness of a wire."""

    def __init__(self, alive):
        self.alive = alive

    async def is_alive(self, connection):
        assert connection.context.ip_context.src_ip_addrs == [ADDRESS]
        return self.alive


async def test_a_client_that_starts_again_together_with_its_manager_asks_with_the_path_that_it_had(tmp_path):
    """So everybody on it takes it for a refresh: nothing is made anew, and addresses stay."""
    manager = Manager()
    await process(tmp_path / "state", manager).request(wanted())
    assert len(manager.path.path_segments) == 1
    answer = await process(tmp_path / "state", manager).request(wanted())
    assert [(each.name, each.id, each.token) for each in manager.path.path_segments] == [
        ("nsc", "nsc-0", ""),
        ("m", "m-7", ""),
    ]
    assert manager.path.index == 0
    assert (answer.id, answer.context.ip_context.src_ip_addrs) == ("nsc-0", [ADDRESS])


async def test_no_token_is_written_and_nobody_else_may_read_what_is(tmp_path):
    await process(tmp_path / "state", Manager()).request(wanted())
    (file,) = (tmp_path / "state").iterdir()
    assert b"secret" not in file.read_bytes()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("error", [None, Unavailable("the manager is away")])
async def test_what_is_closed_is_forgotten_however_that_ends(tmp_path, error):
    manager = Manager()
    chain = process(tmp_path, manager)
    await chain.request(wanted())
    manager.error = error
    if error is None:
        await chain.close(call("nsc-0"))
    else:
        with pytest.raises(Unavailable):
            await chain.close(call("nsc-0"))
    assert list(tmp_path.iterdir()) == []


async def test_a_request_that_fails_changes_nothing_of_what_is_written(tmp_path):
    manager = Manager()
    await process(tmp_path, manager).request(wanted())
    (before,) = (file.read_bytes() for file in tmp_path.iterdir())
    manager.error = Unavailable("the manager is away")
    with pytest.raises(Unavailable):
        await process(tmp_path, manager).request(wanted())
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("alive", [False, None])
async def test_a_connection_whose_tokens_have_expired_has_ended_everywhere_and_is_not_asked_for(tmp_path, alive):
    """Its addresses may be another client's by now."""
    manager = Manager(lifetime=-1.0)
    await process(tmp_path, manager).request(wanted())
    await process(tmp_path, manager, Wire(alive)).request(wanted())
    assert len(manager.path.path_segments) == 1


async def test_a_wire_that_outlived_its_manager_and_then_its_client_is_continued(tmp_path):
    """Its tokens expired while the manager was away, and the client was killed before it could refresh them."""
    manager = Manager(lifetime=-1.0)
    await process(tmp_path, manager).request(wanted())
    await process(tmp_path, manager, Wire(True)).request(wanted())
    assert [each.id for each in manager.path.path_segments] == ["nsc-0", "m-7"]


async def test_entries_of_no_use_do_not_stay_in_the_folder(tmp_path):
    """A folder that outlives many lists of services would only grow."""
    await process(tmp_path, Manager(lifetime=-25 * 3600.0)).request(wanted())
    (tmp_path / "half.new").touch()
    (tmp_path / "broken.connection").write_bytes(b"\xff")
    assert Memory(str(tmp_path)).all() == []
    assert list(tmp_path.iterdir()) == []


async def test_all_connections_of_an_earlier_process_are_known(tmp_path):
    """By them a client whose list of services has changed meanwhile finds the ids of its wires."""
    recover = Recover("nsc", nothing, memory=(memory := Memory(str(tmp_path))))
    assert await recover.standing(1.0) == []
    await process(tmp_path, Manager()).request(wanted())
    (standing,) = await recover.standing(1.0)
    assert (standing.id, standing.network_service) == ("nsc-0", "icmp")
    assert memory.recall("nsc-1") is None


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x0a\x01a"])
async def test_what_cannot_be_read_is_asked_for_afresh(tmp_path, content):
    manager = Manager()
    await process(tmp_path, manager).request(wanted())
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    await process(tmp_path, manager).request(wanted())
    assert len(manager.path.path_segments) == 1
    assert len(Memory(str(tmp_path)).all()) == 1


async def test_a_folder_that_cannot_be_written_is_one_warning_and_no_wire_is_lost(tmp_path):
    (tmp_path / "file").touch()
    chain = process(tmp_path / "file", Manager())
    with capture_logs() as logs:
        await chain.request(wanted())
        await chain.request(wanted())
        await chain.close(call("nsc-0"))
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "NSM_STATE_FOLDER" in logs[0]["event"]
