"""Peers take turns."""

import asyncio
import time

from nsm.chains.core import counts
from nsm.chains.transport.turns import HELD, MOST_UNREAD, NOTHING, Turns


async def test_so_many_calls_of_a_peer_are_begun_and_the_rest_waits_in_order():
    """Another peer's are begun at once."""
    turns, begun = Turns(calls=2), []
    one, other = turns.share("one"), turns.share("other")

    def call(name):
        def start(place):
            begun.append((name, place))
            return True

        return start

    for number in range(5):
        one.begin(call(number))
    other.begin(call("other"))
    assert [name for name, _ in begun] == [0, 1, "other"]
    queued = counts.QUEUED[()]
    begun[1][1].leave()
    begun[1][1].leave()
    begun[0][1].leave()
    assert [name for name, _ in begun] == [0, 1, "other", 2, 3]
    assert counts.QUEUED[()] == queued - 2
    for _, place in list(begun):
        place.leave()


async def test_what_one_peer_queues_is_in_no_other_peer_s_queue():
    """A peer that has never queued has no queue of its own, which a thousand idle channels would pay for."""
    turns = Turns(calls=1)
    one, other = turns.share("one"), turns.share("other")
    for _ in range(3):
        one.begin(lambda place: True)
        one.read_later(lambda: None)
    assert len(one.readers) == 3
    assert one.is_hungry is False
    assert other.readers is NOTHING
    assert not NOTHING
    await asyncio.sleep(0)


async def test_so_many_calls_of_all_peers_are_begun_and_one_peer_s_turn_comes_after_the_other_s():
    """Who has one call waits for one of each peer that came before, and not for all that it has."""
    turns, begun = Turns(calls=10, work=2), []
    shares = [turns.share(name) for name in ("many", "few", "one")]

    def call(name):
        def start(place):
            begun.append((name, place))
            return True

        return start

    for share, count in zip(shares, (5, 2, 1), strict=True):
        for _ in range(count):
            share.begin(call(share.who))
    assert [name for name, _ in begun] == ["many", "many"]
    for number in range(8):
        begun[number][1].leave()
    assert [name for name, _ in begun] == ["many", "many", "many", "few", "one", "many", "few", "many"]


async def test_a_peer_whose_calls_are_slow_waits_for_its_own_while_others_begin():
    turns, begun = Turns(calls=1, work=3), []
    one, other = turns.share("one"), turns.share("other")
    for _ in range(2):
        one.begin(lambda place: begun.append(("one", place)) or True)
    other.begin(lambda place: begun.append(("other", place)) or True)
    assert [name for name, _ in begun] == ["one", "other"]
    begun[1][1].leave()
    async with asyncio.timeout(5):
        while len(begun) < 3:  # it makes room for its own after a while
            await asyncio.sleep(0.01)
    for _, place in begun:
        place.leave()


async def test_where_too_many_calls_are_here_only_who_has_more_than_its_part_comes_again():
    turns = Turns(calls=1, here=4)
    many, few = turns.share("many"), turns.share("few")
    turns.take(few, 1)
    for _ in range(3):
        assert not turns.is_full_for(many)
        turns.take(many, 1)
    assert turns.is_full_for(many)
    assert not turns.is_full_for(few)
    for _ in range(4):
        turns.take(few, 1)
    assert turns.is_full_for(few)  # twice as many are too many for all
    turns.take(many, -3)
    turns.take(few, -4)
    assert not turns.is_full_for(many)


async def test_a_call_that_was_taken_back_while_it_waited_takes_nobody_s_place():
    turns, begun = Turns(calls=1), []
    share = turns.share("one")
    share.begin(lambda place: begun.append(place) or True)
    share.begin(lambda _: False)
    share.begin(lambda place: begun.append(place) or True)
    begun[0].leave()
    assert len(begun) == 2
    begun[1].leave()


async def test_a_call_that_takes_long_makes_room():
    turns, begun = Turns(calls=1), []
    share = turns.share("one")
    for _ in range(3):
        share.begin(lambda place: begun.append(time.monotonic()) or True)
    async with asyncio.timeout(5):
        while len(begun) < 3:
            await asyncio.sleep(0.01)
    assert begun[1] - begun[0] > 0.8 * HELD
    assert begun[2] - begun[1] > 0.8 * HELD


async def test_each_peer_reads_once_before_the_first_reads_again():
    turns, read = Turns(calls=1), []
    one, other = turns.share("one"), turns.share("other")
    for number in range(3):
        one.read_later(lambda number=number: read.append(f"one {number}"))
    other.read_later(lambda: read.append("other 0"))
    assert not one.may_read()
    async with asyncio.timeout(2):
        while len(read) < 4:
            await asyncio.sleep(0)
    assert read == ["one 0", "other 0", "one 1", "one 2"]
    assert one.may_read()


async def test_peers_do_not_wait_for_a_round_of_the_loop_each_when_its_other_work_takes_long():
    """A hundred watchers of ten thousand records: a call that began then did not arrive within ten seconds."""
    turns, read, rounds = Turns(calls=1), [], 0
    for number in range(100):
        turns.share(str(number)).read_later(lambda number=number: read.append(number))
    while len(read) < 100:
        time.sleep(0.01)  # the loop's other work
        rounds += 1
        await asyncio.sleep(0)
    assert read == list(range(100))
    assert rounds <= 10


async def test_a_share_is_kept_as_long_as_there_is_a_connection():
    turns = Turns(calls=1)
    share = turns.share("one")
    assert turns.share("one") is share
    turns.leave(share)
    turns.leave(share)
    assert turns.share("one") is not share


async def test_of_a_thousand_streams_with_the_same_news_one_tells_each_time_the_loop_comes_by():
    """One that gave up loses its turn to the next; a stream of its own waits for nobody."""
    share, told, iterations = Turns(calls=1).share("one"), [], 0

    async def tell(number):
        await share.turn_to_tell()
        told.append((number, iterations))

    await asyncio.wait_for(tell("alone"), 1)
    await asyncio.sleep(0)
    streams = [asyncio.ensure_future(tell(number)) for number in range(1000)]
    await asyncio.sleep(0)
    streams[500].cancel()
    while not all(stream.done() for stream in streams):
        iterations += 1
        await asyncio.sleep(0)
    numbers, times = zip(*told, strict=True)
    assert numbers == ("alone", *range(500), *range(501, 1000))
    assert len(set(times[2:])) == 998


async def test_for_a_peer_that_reads_nothing_no_more_is_done_until_it_does():
    share, begun = Turns(calls=10).share("one"), []
    share.unread += MOST_UNREAD
    share.begin(lambda place: begun.append(place) or True)
    telling = asyncio.ensure_future(share.turn_to_tell())
    await asyncio.sleep(0.01)
    assert not begun
    assert not telling.done()
    share.has_written(1)
    assert len(begun) == 1
    await asyncio.wait_for(telling, 1)
