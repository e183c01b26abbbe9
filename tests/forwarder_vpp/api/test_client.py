"""The client of VPP's binary API, against the stand-in and against programs that are no VPP."""

import asyncio
import contextlib
import os
import random
import struct

import pytest

from nsm.forwarder_vpp.api import VPP, BadField, Gone, Malformed, Rejected, Silent, UnknownMessage, Unreachable, known
from tests.forwarder_vpp.standin import standing_in

UP = ["IF_STATUS_API_FLAG_ADMIN_UP"]


@pytest.fixture
async def standin(tmp_path):
    async with standing_in(tmp_path) as vpp:
        yield vpp
        assert vpp.faults == []


@pytest.fixture
async def vpp(standin):
    async with await VPP.connect(standin.api) as connection:
        yield connection


@contextlib.asynccontextmanager
async def listening(path, answer):
    """Another program at the socket: `answer` gets the writer and what was sent."""

    done = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            await answer(writer, await reader.read(4096))
        if answer is not never:
            writer.close()
        await reader.read()  # until the client closes it
        writer.close()
        done.set()

    async with await asyncio.start_unix_server(serve, path):
        yield
        await done.wait()


async def never(writer, _):
    """Do not answer."""


async def test_it_learns_which_vpp_it_is(vpp, standin):
    assert (vpp.version, vpp.process_id) == ("26.06-standin", os.getpid())
    assert vpp.is_open


async def test_a_call_returns_the_reply(vpp, standin):
    tap = await vpp.call("tap_create_v3", id=7, host_if_name="nsm-1", host_if_name_set=True)
    await vpp.call("sw_interface_set_flags", sw_if_index=tap.sw_if_index, flags=UP)
    (_, found) = await vpp.dump("sw_interface_dump")
    assert (found.interface_name, found.sw_if_index) == ("tap7", tap.sw_if_index)
    assert found.flags == {"IF_STATUS_API_FLAG_ADMIN_UP", "IF_STATUS_API_FLAG_LINK_UP"}


async def test_fields_that_are_left_out_have_the_defaults_of_vpp(vpp, standin):
    await vpp.call("tap_create_v3")
    ((_, said),) = [one for one in standin.seen if one[0] == "tap_create_v3"]
    assert (said.use_random_mac, said.num_rx_queues, said.tx_ring_sz, said.id) == (True, 1, 256, 0xFFFFFFFF)


async def test_a_refusal_names_the_message_and_the_number(vpp):
    with pytest.raises(Rejected, match=r"VPP rejected sw_interface_set_flags: INVALID_SW_IF_INDEX \(-2\)") as caught:
        await vpp.call("sw_interface_set_flags", sw_if_index=99, flags=UP)
    assert (caught.value.number, caught.value.name, caught.value.message) == (
        -2,
        "INVALID_SW_IF_INDEX",
        "sw_interface_set_flags",
    )


async def test_a_refusal_that_is_fine_is_returned(vpp):
    reply = await vpp.call("sw_interface_set_flags", sw_if_index=99, fine={"INVALID_SW_IF_INDEX"})
    assert reply.retval == -2


async def test_many_calls_at_once_get_their_own_replies(vpp, standin):
    made = await asyncio.gather(
        *(vpp.call("create_loopback_instance", is_specified=True, user_instance=n) for n in range(300))
    )
    names = {one.sw_if_index: one.interface_name for one in await vpp.dump("sw_interface_dump")}
    assert [names[one.sw_if_index] for one in made] == [f"loop{n}" for n in range(300)]


async def test_no_more_calls_are_in_flight_than_may_be(tmp_path):
    sent = []

    class Counting(VPP):
        def _write(self, *messages):
            sent.append(len(self._waiting))
            super()._write(*messages)

    async with standing_in(tmp_path) as standin, await Counting.connect(standin.api, in_flight=3) as vpp:
        await asyncio.gather(*(vpp.call("control_ping") for _ in range(50)))
    assert max(sent) == 3


async def test_dumps_and_calls_do_not_mix(vpp):
    await vpp.call("create_loopback_instance")
    dumps = [vpp.dump("sw_interface_dump") for _ in range(20)]
    found = await asyncio.gather(*dumps, *(vpp.call("control_ping") for _ in range(20)))
    assert all(len(one) == 2 for one in found[:20])


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("tap_create_v3", {"hots_if_name": "x"}, "tap_create_v3 has no field hots_if_name; it has "),
        ("tap_create_v3", {"id": 1 << 32}, "tap_create_v3: id: "),
        ("tap_create_v3", {"host_if_name": "x" * 64}, "is longer than 63 bytes"),
        ("tap_create_v3", {"host_if_name": "a\0b"}, "contains a zero byte"),
        ("tap_create_v3", {"tap_flags": ["TUN"]}, "TUN is none of TAP_API_FLAG_GSO, "),
        ("tap_create_v3", {"mac_address": "02:00"}, "is no MAC address"),
        ("tap_create_v3", {"host_if_name": 7}, "host_if_name"),
        ("tap_create_v3", {"use_random_mac": 2}, "expected true or false"),
        ("vxlan_add_del_tunnel_v3", {"src_address": "10.0.0"}, "does not appear to be an IPv4 or IPv6 address"),
        ("sw_interface_add_del_address", {"prefix": "10.0.0.1/33"}, "prefix: "),
        ("sw_interface_set_mtu", {"mtu": [1, 2]}, "2 elements, not 4"),
        ("acl_add_replace", {"r": [], "count": 3}, "0 elements, but count is 3"),
        ("wireguard_interface_create", {"interface": {"private_key": bytes(33)}}, "33 bytes, more than 32"),
    ],
)
async def test_a_field_that_cannot_be_sent_is_named(vpp, standin, name, fields, said):
    before = len(standin.seen)
    with pytest.raises(BadField, match=said):
        await vpp.call(name, **fields)
    await vpp.call("control_ping")
    assert len(standin.seen) == before + 1


async def test_a_message_that_vpp_lacks_names_the_message_and_both_versions(tmp_path):
    async with standing_in(tmp_path, without={"tap_create_v3"}) as standin, await VPP.connect(standin.api) as vpp:
        with pytest.raises(
            UnknownMessage,
            match="VPP 26.06-standin does not have tap_create_v3, which VPP 24.10 to 26.06 has: is its plugin",
        ):
            await vpp.call("tap_create_v3")
        assert not vpp.has("tap_create_v3")
        assert vpp.has("memif_create_v2")


async def test_a_changed_message_names_what_was_expected(tmp_path):
    async with (
        standing_in(tmp_path, changed={"ikev2_set_ike_transforms"}) as standin,
        await VPP.connect(standin.api) as vpp,
    ):
        expected = r"0xdeadbeef; expected 0x076d7378 \(24.10 to 26.02\) or 0xaa99fec0 \(26.06\)"
        with pytest.raises(UnknownMessage, match=expected):
            vpp.require("control_ping", "ikev2_set_ike_transforms")


async def test_a_changed_reply_is_found_before_anything_is_sent(tmp_path):
    async with standing_in(tmp_path, changed={"tap_create_v3_reply"}) as standin, await VPP.connect(standin.api) as vpp:
        with pytest.raises(UnknownMessage, match="has tap_create_v3_reply with the checksum 0xdeadbeef"):
            await vpp.call("tap_create_v3")
        assert standin.count()["tap_create_v3"] == 0


@pytest.mark.parametrize("version", known().versions)
async def test_each_version_of_vpp_gets_the_fields_that_it_has(tmp_path, version):
    async with standing_in(tmp_path, version=version) as standin, await VPP.connect(standin.api) as vpp:
        await vpp.call("ikev2_profile_add_del", is_add=True, name="p")
        transforms = {"crypto_alg": 12, "crypto_key_size": 256, "integ_alg": 2, "dh_group": 14}
        await vpp.call("ikev2_set_ike_transforms", name="p", tr=transforms)
        assert ("prf_alg" in standin.world.profiles["p"]["ike_ts"]) == (version == "26.06")
        assert standin.faults == []


async def test_a_message_that_we_do_not_describe_is_refused_here(vpp):
    with pytest.raises(UnknownMessage, match="nat44_plugin_enable is not among the messages of VPP that we use"):
        await vpp.call("nat44_plugin_enable")


async def test_a_socket_that_is_not_there(tmp_path):
    with pytest.raises(Unreachable, match="there is no API socket of VPP at .*: is VPP running?"):
        await VPP.connect(str(tmp_path / "api.sock"))


async def test_a_file_that_is_no_socket(tmp_path):
    (tmp_path / "api.sock").write_text("")
    with pytest.raises(Unreachable, match="cannot connect to the API socket of VPP at .*: Connection refused"):
        await VPP.connect(str(tmp_path / "api.sock"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        struct.pack(">QII", 0, 1 << 30, 0),
        struct.pack(">QII", 0, 0, 0),
        struct.pack(">QIIHI", 0, 6, 0, 99, 0),
        struct.pack(">QIIHIIiIH", 0, 20, 0, 16, 0, 1, 0, 1, 7),
        struct.pack(">QIIHIIiIH", 0, 20, 0, 16, 0, 1, -3, 1, 0),
        b"",
    ],
)
async def test_a_socket_of_another_program(tmp_path, answer):
    async def say(writer, _):
        writer.write(answer)
        await writer.drain()

    path = str(tmp_path / "api.sock")
    async with listening(path, say):
        with pytest.raises(Unreachable, match="does not answer as VPP|refused the connection"):
            await VPP.connect(path)


async def test_a_socket_where_nobody_answers(tmp_path):
    path = str(tmp_path / "api.sock")
    async with listening(path, never):
        with pytest.raises(Unreachable, match="accepts connections, but does not answer as VPP within 0.05 s"):
            await VPP.connect(path, timeout=0.05)


@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_vpp_ends_between_two_messages(vpp, standin, fault):
    standin.plan(fault, "create_loopback_instance")
    others = [asyncio.create_task(vpp.call("create_loopback_instance")) for _ in range(3)]
    for one in others:
        with pytest.raises(Gone, match="VPP 26.06-standin closed the connection: it ended or was restarted"):
            await one
    assert isinstance(await vpp.ended(), Gone)
    with pytest.raises(Gone):
        await vpp.call("control_ping")
    with pytest.raises(Gone):
        await vpp.dump("sw_interface_dump")
    assert not vpp.is_open


async def test_vpp_hangs(vpp, standin):
    standin.plan("hang", "create_loopback_instance")
    with pytest.raises(Silent, match="VPP 26.06-standin did not answer create_loopback_instance within 0.05 s"):
        await vpp.call("create_loopback_instance", timeout=0.05)
    with pytest.raises(Silent):
        await vpp.dump("sw_interface_dump", timeout=0.05)
    standin.resume()
    assert (await vpp.call("control_ping")).vpe_pid == os.getpid()


async def test_calls_that_are_never_answered_count_as_in_flight(tmp_path):
    async with standing_in(tmp_path) as standin, await VPP.connect(standin.api, in_flight=2) as vpp:
        standin.plan("ignore", "create_loopback_instance", 1)
        standin.plan("ignore", "create_loopback_instance", 1)
        for _ in range(2):
            with pytest.raises(Silent):
                await vpp.call("create_loopback_instance", timeout=0.02)
        with pytest.raises(Silent):
            await vpp.call("control_ping", timeout=0.02)


async def test_a_reply_that_comes_too_late_can_be_undone(tmp_path):
    """A caller that was cancelled does not know what VPP made for it."""
    late = asyncio.get_running_loop().create_future()

    async with standing_in(tmp_path) as standin, await VPP.connect(standin.api) as vpp:
        call = asyncio.create_task(vpp.call("create_loopback_instance", late=late.set_result))
        await asyncio.sleep(0)
        call.cancel()
        reply = await asyncio.wait_for(late, 2)
        assert standin.world.interfaces[reply.sw_if_index].name == "loop0"


async def test_a_refusal_that_comes_too_late_is_nothing_to_undo(vpp, standin):
    undone = []
    call = asyncio.create_task(vpp.call("delete_loopback", sw_if_index=99, late=undone.append))
    await asyncio.sleep(0)
    call.cancel()
    await vpp.call("control_ping")
    assert standin.count()["delete_loopback"] == 1
    assert undone == []


async def test_a_call_that_waits_for_its_turn_can_be_cancelled(tmp_path):
    async with standing_in(tmp_path) as standin, await VPP.connect(standin.api, in_flight=1) as vpp:
        standin.plan("hang", "control_ping")
        calls = [asyncio.create_task(vpp.call("control_ping", timeout=5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        assert vpp._turns.locked()
        await vpp.close()
        with pytest.raises(Gone, match="this process closed its connection to VPP"):
            await calls[0]


async def test_events_arrive_in_order(vpp, standin):
    with vpp.events("sw_interface_event") as events:
        await vpp.call("want_interface_events", enable_disable=1, pid=os.getpid())
        made = await vpp.call("create_loopback_instance")
        await vpp.call("sw_interface_set_flags", sw_if_index=made.sw_if_index, flags=UP)
        await vpp.call("delete_loopback", sw_if_index=made.sw_if_index)
        (_, added), (_, up), (_, gone) = [await anext(events) for _ in range(3)]
    assert added.flags == frozenset()
    assert up.flags == {"IF_STATUS_API_FLAG_ADMIN_UP", "IF_STATUS_API_FLAG_LINK_UP"}
    assert (gone.sw_if_index, gone.deleted, gone.flags) == (made.sw_if_index, True, frozenset())
    assert vpp._listening["sw_interface_event"] == set()


async def test_a_reader_of_events_is_told_that_vpp_ended(vpp, standin):
    with vpp.events("sw_interface_event") as events:
        await standin.stop()
        with pytest.raises(Gone):
            await anext(events)
    with vpp.events("sw_interface_event") as events, pytest.raises(Gone):
        await anext(events)


async def test_a_reader_that_is_too_slow_is_told_that_events_are_lost(vpp, standin):
    with vpp.events("sw_interface_event") as events:
        await vpp.call("want_interface_events", enable_disable=1, pid=os.getpid())
        made = await vpp.call("create_loopback_instance")
        for number in range(4097):
            standin.world.set_link(made.sw_if_index, number % 2 == 0)
            standin.tell()
        await vpp.call("control_ping")
        with pytest.raises(Malformed, match="more than 4096 events of VPP were not read in time"):
            await anext(events)


async def test_garbage_in_a_reply_ends_the_connection(vpp, standin):
    standin.plan("garbage", "create_loopback_instance")
    with pytest.raises(Malformed, match="VPP 26.06-standin sent what cannot be read: create_loopback_instance_reply"):
        await vpp.call("create_loopback_instance")
    assert not vpp.is_open


async def test_any_bytes_in_replies_end_in_an_error_of_ours(standin):
    """Bytes that are changed, cut or added in what VPP sends: each is a reply, or an error; nothing hangs."""
    chance = random.Random(7)

    class Damaged(VPP):
        def _received(self, data):
            if self._checksums and chance.random() < 0.7:
                at, what = chance.randrange(len(data)), chance.randrange(3)
                data = (data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :], data[:at], data + b"\0")[what]
            super()._received(data)

    outcomes = set()
    for _ in range(60):
        try:
            async with await Damaged.connect(standin.api, timeout=0.02) as vpp:
                await vpp.dump("sw_interface_dump")
                await vpp.call("show_threads")
                outcomes.add("answered")
        except (Malformed, Gone, Silent, Rejected, Unreachable) as error:
            outcomes.add(type(error).__name__)
    assert {"answered", "Malformed"} <= outcomes


async def test_nothing_is_left_when_it_is_closed(standin):
    for _ in range(5):
        before = set(os.listdir("/proc/self/fd"))
        async with await VPP.connect(standin.api) as vpp:
            await vpp.call("control_ping")
        assert vpp._waiting == {}
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1
