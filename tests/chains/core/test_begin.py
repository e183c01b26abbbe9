"""The door of a connection."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, PathSegment, State
from nsm.apis.connectioncontext import ConnectionContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import (
    Begin,
    Call,
    Chain,
    CloseRefused,
    Element,
    InvalidRequest,
    Key,
    Refused,
    Unavailable,
    merge_with_returned,
    reselect_everything,
)


def call(connection_id="c", **fields):
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, **fields)))


class Probe(Element):
    """Notes what passes; may fail, block, or keep things in the store."""

    def __init__(self):
        self.seen, self.fails, self.gate, self.inside, self.most = [], [], None, 0, 0
        self.key = Key("probe")
        self.stores = []

    async def request(self, call, rest):
        return await self._pass("request", call, rest.request)

    async def close(self, call, rest):
        call.live.pop(self.key)
        await self._pass("close", call, rest.close)

    async def _pass(self, what, call, go):
        self.seen.append((what, call.connection.id, call.connection.network_service_endpoint_name))
        self.stores.append(call.live)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.fails:
                raise self.fails.pop(0)
            if what == "request":
                call.live.put(self.key, "kept")
            return await go(call)
        finally:
            self.inside -= 1


async def test_events_of_one_connection_run_one_at_a_time_and_in_order():
    """Those of others do not wait for them."""
    probe = Probe()
    probe.gate = asyncio.Event()
    chain = Chain([Begin(), probe])
    first = [asyncio.ensure_future(chain.request(call("a", network_service_endpoint_name=str(n)))) for n in range(3)]
    other = asyncio.ensure_future(chain.request(call("b")))
    await asyncio.sleep(0.1)
    assert [(what, key) for what, key, _ in probe.seen] == [("request", "a"), ("request", "b")]
    probe.gate.set()
    await asyncio.gather(*first, other)
    assert [name for _, key, name in probe.seen if key == "a"] == ["0", "1", "2"]


async def test_a_request_without_an_id_is_refused():
    with pytest.raises(InvalidRequest, match="has no id"):
        await Chain([Begin()]).request(call(""))


async def test_a_failed_first_request_leaves_nothing():
    """Entry, store and what the elements registered to be undone are gone, last come first served."""
    begin, probe, undone = Begin(), Probe(), []

    class Does(Element):
        async def request(self, call, rest):
            call.undo.add(lambda: undone.append(1))
            call.undo.add(lambda: undone.append(2))
            call.live.on_end(lambda: undone.append("ended"))
            return await rest.request(call)

    probe.fails = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await Chain([begin, Does(), probe]).request(call())
    assert undone == [2, 1, "ended"]
    assert len(begin) == 0


async def test_a_failed_refresh_leaves_the_connection_as_it_was():
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    await chain.request(call())
    probe.fails = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert begin.stores()[0].get(probe.key) == "kept"
    await chain.close(call())
    assert probe.seen[-1][0] == "close"
    assert len(begin) == 0


async def test_a_cancelled_request_undoes_what_it_did_before_the_next_event_begins():
    begin, probe, order = Begin(), Probe(), []
    probe.gate = asyncio.Event()

    class SlowToUndo(Element):
        async def request(self, call, rest):
            order.append("do")

            async def undo():
                await asyncio.sleep(1)
                order.append("undone")

            call.undo.add(undo)
            return await rest.request(call)

    chain = Chain([begin, SlowToUndo(), probe])
    first = asyncio.ensure_future(chain.request(call()))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(chain.request(call()))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0.1)
    first.cancel()  # a second time, while it undoes
    probe.gate.set()
    await second
    assert order == ["do", "undone", "do"]
    assert first.cancelled()


async def test_closing_uses_the_connection_as_it_was_last_returned():
    class Renames(Element):
        async def request(self, call, rest):
            connection = await rest.request(call)
            connection.network_service_endpoint_name = "chosen"
            return connection

    probe = Probe()
    chain = Chain([Begin(), Renames(), probe])
    await chain.request(call())
    await chain.close(call(network_service_endpoint_name="something else"))
    assert probe.seen[-1] == ("close", "c", "chosen")


async def test_closing_what_is_not_known_here_passes_with_what_the_caller_says_of_it():
    """This process may have started since: those behind find nothing in the store, and nothing of it stays."""
    begin, probe = Begin(), Probe()
    closing = call(network_service_endpoint_name="as the caller has it")
    await Chain([begin, probe]).close(closing)
    assert probe.seen == [("close", "c", "as the caller has it")]
    assert closing.is_unknown
    assert len(probe.stores[0]) == len(begin) == 0


async def test_what_was_closed_a_moment_ago_is_not_closed_once_more():
    """When tokens end, all along a path close what the others close too. One that failed may be tried again."""
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    await chain.request(call())
    probe.fails = [Unavailable("gone")]
    with pytest.raises(Unavailable):
        await chain.close(call())
    for _ in range(2):
        await chain.close(call())
    assert [what for what, _, _ in probe.seen] == ["request", "close", "close"]
    await asyncio.sleep(100)
    await chain.close(call())
    assert len(probe.seen) == 4
    await chain.request(call())
    await begin.stores()[0].events.close()
    await chain.close(call())
    assert len(probe.seen) == 6


async def test_a_close_behind_a_request_that_fails_is_one_of_what_is_not_known():
    begin, probe = Begin(), Probe()
    probe.gate, probe.fails = asyncio.Event(), [Unavailable("no")]
    chain = Chain([begin, probe])
    request, close = asyncio.ensure_future(chain.request(call())), asyncio.ensure_future(chain.close(call()))
    await asyncio.sleep(0.1)
    probe.gate.set()
    with pytest.raises(Unavailable):
        await request
    await close
    assert [what for what, _, _ in probe.seen] == ["request", "close"]
    assert len(begin) == 0


async def test_an_answer_that_nobody_got_is_taken_back():
    begin, probe = Begin(), Probe()
    request = call()
    await Chain([begin, probe]).request(request)
    request.not_delivered()
    await asyncio.sleep(1)
    assert [what for what, _, _ in probe.seen] == ["request", "close"]
    assert len(begin) == 0


async def test_but_not_if_the_caller_has_asked_for_it_again():
    begin, probe = Begin(), Probe()
    chain, request = Chain([begin, probe]), call()
    await chain.request(request)
    probe.gate = asyncio.Event()
    again = call()
    asking = asyncio.ensure_future(chain.request(again))
    await asyncio.sleep(0.1)
    request.not_delivered()
    probe.gate.set()
    await asking
    await asyncio.sleep(1)
    assert [what for what, _, _ in probe.seen] == ["request", "request"]
    assert again.not_delivered is None, "what stood before stays, whoever got the answer to a refresh"


async def test_nor_what_the_caller_shows_to_have_stood_before_we_started():
    request = call()
    request.connection.path = Path(
        index=0, path_segments=[PathSegment(id="c", name="a"), PathSegment(id="n", name="b")]
    )
    await Chain([Begin(), Probe()]).request(request)
    assert request.not_delivered is None


async def test_a_close_that_fails_still_ends_the_connection():
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    await chain.request(call())
    probe.fails = [Unavailable("gone")]
    with pytest.raises(Unavailable):
        await chain.close(call())
    assert len(begin) == 0


@pytest.mark.parametrize(("error", "left"), [(CloseRefused("not yours"), 1), (Refused("by somebody further on"), 0)])
async def test_only_a_close_that_we_refuse_ourselves_changes_nothing(error, left):
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    await chain.request(call())
    probe.fails = [error]
    with pytest.raises(Refused):
        await chain.close(call())
    assert len(begin) == left


async def test_a_request_to_reselect_closes_first_even_if_that_fails():
    probe = Probe()
    chain = Chain([Begin(), probe])
    await chain.request(call())
    probe.fails = [Unavailable("gone")]
    connection = await chain.request(call(state=State.RESELECT_REQUESTED))
    assert [what for what, _, _ in probe.seen] == ["request", "close", "request"]
    assert connection.state == State.UP
    assert probe.stores[-1] is not probe.stores[0]


async def test_the_mesh_itself_can_refresh_and_close():
    """Also from a task of the connection's own store, which the close ends."""
    begin, probe, ended = Begin(), Probe(), []
    chain = Chain([begin, probe])
    await chain.request(call())
    store = begin.stores()[0]
    await store.events.request()

    async def close_myself():
        try:
            await store.events.close()
        finally:
            ended.append(True)

    task = store.spawn(close_myself(), name="closes")
    await asyncio.wait([task])
    await asyncio.sleep(0.1)
    assert [what for what, _, _ in probe.seen] == ["request", "request", "close"]
    assert ended == [True]
    assert len(begin) == 0
    await store.events.request()
    await store.events.close()
    assert len(probe.seen) == 3


async def test_a_reselection_by_the_mesh_may_be_tried_again_when_it_fails():
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    await chain.request(call(network_service_endpoint_name="old"))
    events = begin.stores()[0].events
    probe.fails = [Unavailable("close"), Unavailable("request")]
    with pytest.raises(Unavailable, match="request"):
        await events.request(reselect=reselect_everything)
    await events.request(reselect=reselect_everything)
    assert probe.seen[-1] == ("request", "c", "")
    assert len(begin) == 1


async def test_a_nested_begin_passes_on_and_shares_the_store():
    outer, inner, probe = Begin(), Begin(), Probe()
    await Chain([outer, inner, probe]).request(call())
    assert probe.stores == outer.stores()
    assert len(inner) == 0


async def test_closing_all_tells_what_went_wrong():
    begin, probe = Begin(), Probe()
    chain = Chain([begin, probe])
    for name in "abc":
        await chain.request(call(name))
    probe.fails = [Unavailable("one")]
    errors = await begin.close_all()
    assert [str(error) for error in errors] == ["one (probe)"]
    assert len(begin) == 0


async def test_the_end_of_the_service_ends_tasks_and_timers_but_not_the_wires():
    begin, probe, fired = Begin(), Probe(), []
    chain = Chain([begin, probe])
    await chain.request(call())
    store = begin.stores()[0]

    async def fire():
        fired.append(True)

    store.schedule(Key("timer"), asyncio.get_running_loop().time() + 1, fire)
    task = store.spawn(asyncio.sleep(100), name="waits")
    await chain.aclose()
    await asyncio.sleep(5)
    assert task.cancelled()
    assert fired == []
    assert [what for what, _, _ in probe.seen] == ["request"]


def test_a_client_s_changes_are_merged_with_what_the_mesh_chose():
    """The endpoint and the context are the caller's if it changed them; the rest is the mesh's."""
    returned = Connection(
        network_service_endpoint_name="a", context=ConnectionContext(extra_context={"k": "1", "gone": "x"})
    )
    current = Connection(
        network_service_endpoint_name="b",
        payload="IP",
        context=ConnectionContext(extra_context={"k": "2", "gone": "x", "own": "y"}),
    )
    asked = Connection(network_service_endpoint_name="a", context=ConnectionContext(mtu=1400, extra_context={"k": "3"}))
    merged = merge_with_returned(returned, asked, current)
    assert merged.network_service_endpoint_name == "b"
    assert merged.payload == "IP"
    assert merged.context.mtu == 1400
    assert merged.context.extra_context == {"k": "3", "own": "y"}


@pytest.mark.parametrize(
    ("got", "asked", "now", "merged"),
    [
        ({"k": "1"}, {"k": "1"}, {"k": "2"}, {"k": "2"}),
        ({"k": "1"}, {"k": "3"}, {}, {"k": "3"}),
        ({"k": "1"}, {}, {"k": "1", "own": "y"}, {"own": "y"}),
        ({}, {"new": "1"}, {"own": "y"}, {"own": "y"}),
    ],
)
def test_of_the_extra_context_a_client_changes_only_what_it_got(got, asked, now, merged):
    """As upstream's clients do: what it did not change, or never got, stays the mesh's."""
    contexts = [ConnectionContext(mtu=mtu, extra_context=extra) for mtu, extra in ((1, got), (2, asked), (1, now))]
    result = merge_with_returned(*(Connection(context=context) for context in contexts))
    assert result.context == ConnectionContext(mtu=2, extra_context=merged)


def test_a_client_that_passes_no_context_asks_for_an_empty_one():
    """But one that there was none of yet is taken as it is."""
    had = Connection(context=ConnectionContext(mtu=1400, extra_context={"k": "1"}))
    assert merge_with_returned(had, Connection(), codec.clone(had)).context == ConnectionContext()
    asked = Connection(context=ConnectionContext(extra_context={"k": "1"}))
    assert merge_with_returned(Connection(), asked, Connection()).context == asked.context
