"""The stand-in for VPP, held against what VPP answered when the transcript was recorded; and our descriptions with it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from nsm.forwarder_vpp.api import VPP, Gone, known
from nsm.forwarder_vpp.api.stats import Stats
from tests.forwarder_vpp import scenario
from tests.forwarder_vpp.real import configuration
from tests.forwarder_vpp.record import FOLDER, Replay, Transcript
from tests.forwarder_vpp.standin import standing_in
from tests.forwarder_vpp.standin.handlers import HANDLERS

ROOT = Path(__file__).parents[2]
TRANSCRIPTS = sorted(FOLDER.glob("*.json.gz"))
GREETINGS = {"sockclnt_create", "sockclnt_delete"}


def requests():
    lines = (ROOT / "forwarder-vpp/messages.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(params=TRANSCRIPTS, ids=lambda file: file.name.removesuffix(".json.gz"))
def transcript(request):
    return Transcript.read(request.param)


def test_there_is_a_transcript():
    assert TRANSCRIPTS


def test_each_message_of_vpp_is_decoded_and_encoded_to_the_same_bytes(transcript):
    for _, data in transcript.messages:
        message = known().message(*transcript.names[int.from_bytes(data[:2], "big")])
        fields, end = message.codec.unpack(data, 0, {})
        again = bytearray()
        message.codec.pack(fields, again, {})
        assert (end, again.hex()) == (len(data), data.hex()), message.name


async def test_the_stand_in_answers_as_vpp_did(transcript, tmp_path):
    """And we send to VPP what we sent then, byte for byte: the replay checks it."""
    replay = await Replay.of(transcript)
    recorded = await scenario.run(replay, tap=False)
    assert not replay.left
    async with (
        standing_in(tmp_path, links=set(scenario.LINKS), vhost=False) as standin,
        await VPP.connect(standin.api) as vpp,
    ):
        answers = await scenario.run(vpp, tap=False)
        assert standin.faults == []
    for place, (mine, of_vpp) in enumerate(
        zip(scenario.comparable(answers), scenario.comparable(recorded), strict=True)
    ):
        assert mine == of_vpp, f"answer {place}"


async def test_a_tap_of_the_stand_in_answers_to_all_that_is_asked_of_it(tmp_path):
    """Taps need /dev/vhost-net: see the run in a virtual machine."""
    async with standing_in(tmp_path, links=set(scenario.LINKS)) as standin, await VPP.connect(standin.api) as vpp:
        answers = await scenario.run(vpp, tap=True)
        assert standin.faults == []
    assert [answer["retval"] for name, answer in answers if name == "tap_create_v3"] == [0, -71, 0, -71]


def test_most_messages_are_in_the_transcript(transcript):
    """Those that are not need a second VPP, or hardware."""
    seen = {transcript.names[int.from_bytes(data[:2], "big")][0] for _, data in transcript.messages}
    assert set(requests()) - seen == {
        *GREETINGS,
        "af_xdp_create_v3",
        "af_xdp_delete",
        "ipsec_tunnel_protect_update",
        "sw_interface_set_tx_placement",
    }


def test_each_request_is_described_and_handled():
    for name in requests():
        assert known().service(name), name
        assert name in HANDLERS or name in GREETINGS or name.startswith("want_"), name


def test_each_version_of_vpp_has_all_that_we_use():
    lost = {
        version: [
            name
            for name in requests()
            if not any(version in known().versions_of(name, one) for one in known().variants(name))
        ]
        for version in known().versions
    }
    assert not any(lost.values()), lost


def test_the_descriptions_are_what_the_generator_writes(tmp_path, monkeypatch):
    """Reading and writing them again changes nothing; adding a version that is there neither."""
    monkeypatch.syspath_prepend(str(ROOT / "forwarder-vpp"))
    import generate

    messages, services, errors, values = generate.known()
    types, messages = generate.named(messages, values)
    text = generate.OUT.read_text()
    said = json.loads(text)
    assert (types, messages, services, errors) == (said["types"], said["messages"], said["services"], said["errors"])
    assert generate.written(said) == text


async def test_counters_are_read(tmp_path):
    async with standing_in(tmp_path) as standin, await VPP.connect(standin.api) as vpp:
        loop = (await vpp.call("create_loopback_instance")).sw_if_index
        standin.segment.count(loop, rx=(3, 300), tx=(1, 60), drops=2)
        with await Stats.open(standin.stats) as stats:
            found = stats.interfaces([loop])[loop]
            assert (found.rx_packets, found.rx_bytes, found.tx_packets, found.tx_bytes, found.drops) == (
                3,
                300,
                1,
                60,
                2,
            )
            await vpp.call("delete_loopback", sw_if_index=loop)
            assert stats.interfaces([loop])[loop].rx_packets == 0


async def test_it_is_a_process_that_can_be_killed(tmp_path):
    (tmp_path / "startup.conf").write_text(configuration(tmp_path))
    command = [sys.executable, "-m", "tests.forwarder_vpp.standin", "-c", str(tmp_path / "startup.conf")]
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert await process.stdout.readline() == b"ready\n"
        async with await VPP.connect(str(tmp_path / "api.sock")) as vpp:
            assert vpp.process_id == process.pid
            assert (await vpp.call("create_loopback_instance")).sw_if_index == 1  # nothing is left of the run before
            os.kill(process.pid, signal.SIGKILL)
            assert isinstance(await vpp.ended(), Gone)
        await process.wait()


async def test_a_client_that_misuses_it_is_found_out(tmp_path):
    async with standing_in(tmp_path) as standin, await VPP.connect(standin.api) as vpp:
        one, two = [(await vpp.call("create_loopback_instance")).sw_if_index for _ in range(2)]
        await vpp.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, tx_sw_if_index=two, enable=True)
        await vpp.call("delete_loopback", sw_if_index=two)
        (fault,) = standin.faults
        assert "loop1 was deleted while loop0 is cross-connected to it" in fault
