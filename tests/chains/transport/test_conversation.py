"""Calls with several messages in both directions, over real sockets."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsm.apis.ipam import PrefixRequest, PrefixResponse
from nsm.chains.core import Exhausted, InvalidRequest, Unavailable
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Conversing, Pool, serve
from nsm.chains.transport.conversation import MOST_WAITING, Inflow
from nsm.chains.transport.frames import frame

AUTHORITY = Authority.create("test.mesh")
METHOD = "/ipam.IPAM/ManagePrefixes"


@asynccontextmanager
async def server(tmp_path, answer, url=None):
    """A server whose conversations `answer` leads, and a channel to it."""
    methods = {METHOD: Conversing(PrefixRequest, answer)}
    async with serve([url or f"unix://{tmp_path}/s.sock"], methods, identity_of(AUTHORITY, "s"), name="s") as (target,):
        async with Pool(identity_of(AUTHORITY, "c")) as pool:
            yield pool.channel(target)


async def echo(messages, incoming):
    async for message in messages:
        yield [PrefixResponse(prefix=message.prefix)]


async def sent(*prefixes, then=None):
    for prefix in prefixes:
        yield PrefixRequest(prefix=prefix)
    if then is not None:
        await then.wait()


@pytest.mark.parametrize("url", [None, "tcp://127.0.0.1:0"])
async def test_each_message_is_answered_while_the_caller_still_sends(tmp_path, url):
    asked, answers = asyncio.Queue(), []

    async def messages():
        while (prefix := await asked.get()) is not None:
            yield PrefixRequest(prefix=prefix)

    async with server(tmp_path, echo, url) as channel:
        asked.put_nowait("first")
        async for answer in channel.converse(METHOD, messages(), PrefixResponse):
            answers.append(answer.prefix)
            asked.put_nowait("second" if len(answers) == 1 else None)
    assert answers == ["first", "second"]


async def test_a_message_in_many_pieces_and_many_in_one_arrive_whole(tmp_path):
    async with server(tmp_path, echo) as channel:
        prefixes = ["x" * 9_000, *map(str, range(50)), ""]
        answers = [each.prefix async for each in channel.converse(METHOD, sent(*prefixes), PrefixResponse)]
    assert answers == prefixes


async def test_more_than_a_window_of_messages_passes(tmp_path):
    """The window of the stream is refilled as its messages are read."""
    async with server(tmp_path, echo) as channel:
        said = ["x" * 10_000] * 60
        asked, count = asyncio.Queue(), 0

        async def messages():
            for each in said:
                await asked.get()
                yield PrefixRequest(prefix=each)

        asked.put_nowait(None)
        async for _ in channel.converse(METHOD, messages(), PrefixResponse):
            count += 1
            asked.put_nowait(None)
    assert count == 60


async def test_an_error_of_the_server_reaches_the_caller(tmp_path):
    async def refuse(messages, incoming):
        async for message in messages:
            raise Exhausted(f"nothing is left for {message.prefix}")
        yield []

    async with server(tmp_path, refuse) as channel:
        with pytest.raises(Exhausted, match="s: nothing is left for me"):
            async for _ in channel.converse(METHOD, sent("me", then=asyncio.Event()), PrefixResponse):
                pass


async def test_a_caller_that_leaves_ends_the_conversation(tmp_path):
    ended = asyncio.Event()

    async def answer(messages, incoming):
        try:
            async for message in messages:
                yield [PrefixResponse(prefix=message.prefix)]
        finally:
            ended.set()

    async with server(tmp_path, answer) as channel:
        stream = channel.converse(METHOD, sent("a", then=asyncio.Event()), PrefixResponse)
        assert (await anext(stream)).prefix == "a"
        await stream.aclose()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_server_that_stops_ends_the_conversation_with_an_error(tmp_path):
    identity = identity_of(AUTHORITY, "s")
    async with Pool(identity_of(AUTHORITY, "c")) as pool:
        async with serve(
            [f"unix://{tmp_path}/s.sock"], {METHOD: Conversing(PrefixRequest, echo)}, identity, name="s"
        ) as (target,):
            stream = pool.channel(target).converse(METHOD, sent("a", then=asyncio.Event()), PrefixResponse)
            assert (await anext(stream)).prefix == "a"
        with pytest.raises(Unavailable):
            await anext(stream)


async def read(inflow):
    return [each.prefix async for each in inflow.messages(PrefixRequest)]


async def test_a_message_that_is_too_long_is_refused_by_its_first_bytes():
    inflow = Inflow(10, "selector")
    inflow.receive(b"\0\0\0\0\x0b")
    with pytest.raises(InvalidRequest, match=r"selector is 11, at most 10 are allowed"):
        await read(inflow)


async def test_a_caller_that_does_not_wait_for_answers_is_refused():
    inflow = Inflow(100, "selector")
    inflow.receive(frame(PrefixRequest(prefix="a")) * (MOST_WAITING + 1))
    with pytest.raises(Exhausted, match="send the next one after an answer"):
        await read(inflow)


async def test_half_a_message_and_a_compressed_one_are_refused():
    inflow = Inflow(100, "selector")
    inflow.receive(frame(PrefixRequest(prefix="a"))[:-1])
    inflow.end()
    with pytest.raises(InvalidRequest, match="in the middle of a message"):
        await read(inflow)
    inflow = Inflow(100, "selector")
    inflow.receive(b"\1\0\0\0\1x")
    with pytest.raises(InvalidRequest, match="compressed"):
        await read(inflow)
