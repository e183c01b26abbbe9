"""One monitor stream for each peer, whatever peers do: what a manager hears of a thousand connections."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, ConnectionEvent, ConnectionEventType, Path, PathSegment, State
from nsm.chains.core import Refused, Unavailable, Unsupported
from nsm.chains.transport import Monitors

INITIAL, UPDATE, DELETE = ConnectionEventType


def connection(number=0, *, at=1, state=State.UP, **changed):
    """One as the manager has it, at place 1 of its path; at 2 as the forwarder does."""
    names = ["client", "nsmgr", "forwarder"]
    segments = [PathSegment(name=name, id=f"{name}-{number}") for name in names]
    for name, value in changed.items():
        setattr(segments[1], name, value)
    return Connection(id=segments[at].id, state=state, path=Path(index=at, path_segments=segments))


def event(kind, *connections):
    return codec.decode(
        ConnectionEvent, codec.encode(ConnectionEvent(type=kind, connections={each.id: each for each in connections}))
    )


class Peer:
    """The monitor of a forwarder; `refuses` is what it does with a selector by name, `mine` what it has."""

    def __init__(self, *mine, by_name=True, refuses=None, marks=True):
        self.mine, self.by_name, self.refuses, self.marks = [*mine], by_name, refuses, marks
        self.opened, self.streams, self.error, self.at = [], [], None, []

    async def __call__(self, target, selector):
        segment = selector.path_segments[0]
        self.opened.append((segment.name, segment.id))
        self.at.append(asyncio.get_running_loop().time())
        if self.error is not None:
            raise self.error
        if self.refuses is not None and not segment.id:
            raise self.refuses
        queue = asyncio.Queue()
        self.streams.append(queue)
        shown = [
            each
            for each in self.mine
            if (segment.id and segment.id == each.path.path_segments[1].id) or (self.by_name and not segment.id)
        ]
        yield event(INITIAL, *shown)
        if self.marks and shown:
            yield event(INITIAL)
        while (told := await queue.get()) is not None:
            yield told
        raise Unavailable("the forwarder went away")

    def tell(self, kind, *connections):
        for stream in self.streams:
            stream.put_nowait(event(kind, *connections))

    def end(self):
        for stream in self.streams:
            stream.put_nowait(None)
        self.streams.clear()


class Heard:
    def __init__(self):
        self.states, self.reasons = [], []

    def heard(self, kind, theirs):
        if kind != INITIAL:
            self.states.append((kind, theirs.state))

    def lost(self, reason):
        self.reasons.append(reason)


@pytest.fixture
async def listen():
    opened = []

    def start(peer, *numbers):
        monitors, heard = Monitors(peer), [Heard() for _ in numbers]
        opened.append(monitors)
        for number, each in zip(numbers, heard, strict=True):
            monitors.listen("unix:///forwarder", connection(number), each)
        return monitors, *heard

    yield start
    for monitors in opened:
        await monitors.aclose()


async def test_a_thousand_connections_to_one_peer_need_one_stream(listen):
    peer = Peer(*(connection(number, at=2) for number in range(1000)))
    monitors, *heard = listen(peer, *range(1000))
    await asyncio.sleep(1)
    assert (len(monitors), peer.opened) == (1, [("nsmgr", "")])
    peer.tell(UPDATE, connection(7, at=2, state=State.DOWN))
    await asyncio.sleep(1)
    assert [number for number, each in enumerate(heard) if each.states] == [7]


async def test_two_peers_need_two_streams_and_who_left_none(listen):
    peer = Peer()
    monitors, _ = listen(peer, 0)
    other = monitors.listen("unix:///other", connection(1), Heard())
    await asyncio.sleep(1)
    assert len(monitors) == 2
    other.end()
    await asyncio.sleep(60)
    assert len(monitors) == 1


@pytest.mark.parametrize("peer", [Peer(connection(0, at=2), refuses=Refused("no")), None])
async def test_a_peer_that_wants_ids_gets_one_stream_for_each_connection_and_that_is_remembered(listen, peer):
    """As upstream's managers do by their default policy: they refuse, or show nothing."""
    peer = peer or Peer(connection(0, at=2), connection(1, at=2), by_name=False)
    monitors, first, second = listen(peer, 0, 1)
    await asyncio.sleep(5)
    assert set(peer.opened) == {("nsmgr", ""), ("nsmgr", "nsmgr-0"), ("nsmgr", "nsmgr-1")}
    assert len(monitors) == 2
    peer.tell(UPDATE, connection(1, at=2, state=State.DOWN))
    await asyncio.sleep(1)
    assert (first.states, second.states) == ([], [(UPDATE, State.DOWN)] * 2)
    peer.opened.clear()
    monitors.listen("unix:///forwarder", connection(2), Heard())
    await asyncio.sleep(1)
    assert peer.opened == [("nsmgr", "nsmgr-2")]


async def test_a_peer_that_shows_neither_by_name_nor_by_id_keeps_its_one_stream(listen):
    monitors, heard, _ = listen(Peer(), 0, 1)
    await asyncio.sleep(60)
    assert (len(monitors), heard.reasons) == (1, [])


@pytest.mark.parametrize("error", [Unsupported("no such method"), Refused("nobody may watch")])
async def test_a_peer_that_cannot_be_monitored_is_not_taken_for_lost(listen, error):
    peer = Peer()
    peer.error = error
    _, heard = listen(peer, 0)
    await asyncio.sleep(600)
    assert heard.reasons == []
    assert len(peer.opened) <= 2


@pytest.mark.parametrize(
    "strange",
    [
        connection(5, at=2, state=State.DOWN),  # somebody else's
        connection(0, at=2, state=State.DOWN, id="another"),
        connection(0, at=0, state=State.DOWN),  # what is before us
        Connection(id="x", state=State.DOWN, path=Path(index=9, path_segments=connection(0).path.path_segments)),
        Connection(id="x", state=State.DOWN, path=Path(index=2**31, path_segments=[])),
        Connection(id="x", state=State.DOWN),
        connection(0, at=2, state=77),  # of the future
    ],
)
async def test_an_event_that_cannot_be_of_our_connection_is_ignored(listen, strange, capsys):
    peer = Peer(connection(0, at=2))
    _, heard = listen(peer, 0)
    await asyncio.sleep(1)
    for _ in range(10):
        peer.tell(UPDATE, strange)
        peer.tell(44, connection(0, at=2, state=State.DOWN))  # a kind of the future
    peer.tell(UPDATE, connection(0, at=2, state=State.REFRESH_REQUESTED))
    await asyncio.sleep(1)
    assert heard.states == [(UPDATE, State.REFRESH_REQUESTED)]
    assert capsys.readouterr().out.count("a monitor event is ignored") == 1


async def test_a_stream_that_ends_with_its_channel_is_opened_again_and_nobody_is_told(listen):
    peer = Peer(connection(0, at=2))
    _, heard = listen(peer, 0)
    for _ in range(5):
        await asyncio.sleep(600)
        peer.end()
    await asyncio.sleep(1)
    assert (heard.reasons, len(peer.opened)) == ([], 6)


@pytest.mark.parametrize("marks", [True, False])
async def test_what_a_peer_that_was_started_again_does_not_have_is_lost(listen, marks):
    peer = Peer(connection(0, at=2), connection(1, at=2), marks=marks)
    _, kept, gone = listen(peer, 0, 1)
    await asyncio.sleep(600)
    peer.mine.pop()
    peer.end()
    await asyncio.sleep(1)
    assert (kept.reasons, gone.reasons) == ([], ["the peer no longer has the connection"])


async def test_a_peer_that_does_not_come_back_is_lost_within_seconds(listen):
    """Also one that takes the call and then hangs."""

    async def hangs(target, selector):
        opened.append(target)
        if len(opened) == 1:
            yield event(INITIAL, connection(0, at=2))
            await asyncio.sleep(600)
            raise Unavailable("it went away")
        await asyncio.sleep(3600)

    opened = []
    _, heard = listen(hangs, 0)
    await asyncio.sleep(605)
    assert heard.reasons == ["it sent no event within 3.0 s"]


async def test_a_peer_that_ends_each_stream_at_once_is_asked_ever_less_often():
    """However often its connections are requested anew: no more than a few times a minute."""
    peer = Peer()
    peer.error = Unavailable("not for you")
    monitors = Monitors(peer)

    class Again(Heard):
        def lost(self, reason):
            super().lost(reason)
            asyncio.get_running_loop().call_soon(monitors.listen, "unix:///forwarder", connection(0), self)

    monitors.listen("unix:///forwarder", connection(0), heard := Again())
    await asyncio.sleep(60)
    assert 3 < len(peer.opened) < 10
    await asyncio.sleep(600)
    assert max(b - a for a, b in zip(peer.at, peer.at[1:], strict=False)) <= 36
    assert len(heard.reasons) == len(peer.opened)
    await monitors.aclose()
