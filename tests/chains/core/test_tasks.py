"""Work that is run beside other work."""

import asyncio

import pytest

from nsm.chains.core import both_to_the_end, together


async def test_two_pieces_of_work_take_as_long_as_the_longer_one():
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert await together(asyncio.sleep(2, "a"), asyncio.sleep(3, "b")) == ("a", "b")
    assert loop.time() - begin == 3


async def test_when_one_fails_the_other_does_not_go_on():
    ended = []

    async def other():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def one():
        await asyncio.sleep(1)
        raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        await together(one(), other())
    assert ended
    assert len(asyncio.all_tasks()) == 1


async def test_neither_goes_on_when_the_caller_is_cancelled():
    task = asyncio.ensure_future(together(asyncio.sleep(60), asyncio.sleep(60)))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(("one", "other"), [(None, None), ("one", None), (None, "other"), ("one", "other")])
async def test_both_come_to_their_end_also_if_one_fails(one, other):
    ended = []

    async def work(name, seconds, error):
        await asyncio.sleep(seconds)
        ended.append(name)
        if error:
            raise ValueError(error)

    both = both_to_the_end(work("one", 2, one), work("other", 1, other))
    if one or other:
        with pytest.raises(ValueError, match=one or other):
            await both
    else:
        await both
    assert ended == ["other", "one"]
