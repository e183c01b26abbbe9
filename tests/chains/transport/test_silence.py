"""Callers whose process hangs are absent, although their sockets are open."""

import asyncio

import pytest

from nsm.chains.core import Presence
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, check_health, serve, server, silence
from nsm.chains.transport.silence import LOOK, PATIENCE, QUIET, Silence

AUTHORITY = Authority.create("test.mesh")
CLIENT = "spiffe://test.mesh/client"


class Peer:
    """A connection, and what is done about it."""

    def __init__(self, heard=0.0):
        self.heard, self.pinged, self.is_held_up, self.pings, self.ended = heard, 0.0, False, 0, []

    def ping(self):
        self.pings += 1

    def abort(self, reason):
        self.ended.append(reason)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(silence, "monotonic", lambda: self.now)
        self.silence = Silence()

    def look(self, peer, seconds, *, every=LOOK):
        until = self.now + seconds
        while self.now < until:
            self.now += every
            self.silence.look([peer])


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_peer_that_does_not_answer_a_ping_is_disconnected(clock):
    peer = Peer(clock.now)
    clock.look(peer, QUIET - LOOK)
    assert peer.pings == 0
    clock.look(peer, LOOK)
    assert (peer.pings, peer.ended) == (1, [])
    clock.look(peer, PATIENCE)
    assert (peer.pings, peer.ended) == (1, ["it has not responded for 45 s"])


def test_a_peer_that_answers_gets_a_ping_now_and_then_and_stays(clock):
    peer = Peer(clock.now)
    for _ in range(20):
        clock.look(peer, QUIET)
        peer.heard = clock.now
    assert (peer.pings, peer.ended) == (20, [])


def test_a_process_that_was_stopped_itself_gives_its_peers_their_time(clock):
    """Their answers wait in its sockets."""
    peer = Peer(clock.now)
    clock.look(peer, QUIET)
    clock.look(peer, 600, every=600)
    assert (peer.pings, peer.ended) == (2, [])
    clock.look(peer, PATIENCE)
    assert len(peer.ended) == 1


def test_a_peer_that_is_not_read_is_not_silent(clock):
    peer = Peer(clock.now)
    peer.is_held_up = True
    clock.look(peer, 600)
    assert (peer.pings, peer.ended) == (0, [])


async def test_a_process_that_hangs_is_absent_although_its_socket_is_open(tmp_path, monkeypatch):
    """A wire ended with the tokens of a manager that had been stopped, since that had its channel."""
    monkeypatch.setattr(server, "LOOK", 0.02)
    monkeypatch.setattr(silence, "QUIET", 0.05)
    monkeypatch.setattr(silence, "PATIENCE", 0.2)
    presence = Presence()
    async with (
        serve(
            [f"unix://{tmp_path}/s"],
            Health().methods(),
            identity_of(AUTHORITY, "server"),
            name="server",
            presence=presence,
        ) as urls,
        Pool(identity_of(AUTHORITY, "client")) as pool,
    ):
        assert await check_health(pool, urls[0])
        await asyncio.sleep(0.5)  # the time in which it would be disconnected twice
        assert presence.since(CLIENT) is not None
        hangs = pool.channel(urls[0])._protocol.connection._transport
        hangs.pause_reading()
        async with asyncio.timeout(5):
            while presence.since(CLIENT) is not None:
                await asyncio.sleep(0.01)
        hangs.resume_reading()
        while not hangs.is_closing():
            await asyncio.sleep(0.01)
        assert await check_health(pool, urls[0])
