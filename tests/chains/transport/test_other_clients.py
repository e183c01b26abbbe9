"""gRPC's own library as a client of ours: it cuts messages into pieces of 16 KiB, and sends those of all calls in turn."""

import asyncio

import grpc
import pytest

from nsm.apis import codec
from nsm.apis.health import HealthCheckRequest
from nsm.chains.transport import SocketAccess, Streaming, Unary, serve_plain


async def echo(message, _incoming):
    return message


async def many(_message, _incoming):
    for number in range(300):
        yield [HealthCheckRequest(service=f"{number}")]


METHODS = {"/t/Echo": Unary(HealthCheckRequest, echo), "/t/Many": Streaming(HealthCheckRequest, many)}
HOW = {
    "request_serializer": codec.encode,
    "response_deserializer": lambda data: codec.decode(HealthCheckRequest, data),
}


async def beside(tmp_path, work):
    """`work` with a channel, in a thread."""
    path = f"{tmp_path}/s"

    def run():
        with grpc.insecure_channel(f"unix:{path}") as channel:
            return work(channel, channel.unary_unary("/t/Echo", **HOW))

    async with serve_plain(path, METHODS, name="s", access=SocketAccess()):
        return await asyncio.to_thread(run)


async def test_a_first_burst_is_answered(tmp_path):
    """The limit of streams is one that the client has not heard of yet."""

    def burst(_channel, call):
        calls = [call.future(HealthCheckRequest(service=f"{n}"), timeout=30) for n in range(300)]
        return [each.result().service for each in calls]

    assert await beside(tmp_path, burst) == [f"{n}" for n in range(300)]


async def test_many_long_messages_at_once_do_not_wait_for_each_other(tmp_path):
    """None of them would be whole, were there no more room than for the first pieces of each."""

    def burst(_channel, call):
        calls = [call.future(HealthCheckRequest(service="x" * 60_000), timeout=30) for _ in range(100)]
        return sum(len(each.result().service) for each in calls)

    assert await beside(tmp_path, burst) == 6_000_000


async def test_a_stream_is_read_to_its_end(tmp_path):
    def read(channel, _call):
        return len(list(channel.unary_stream("/t/Many", **HOW)(HealthCheckRequest(), timeout=30)))

    assert await beside(tmp_path, read) == 300


@pytest.mark.parametrize(("size", "metadata"), [(3_000_000, 1), (1, 20_000)])
async def test_what_is_too_long_is_refused_with_the_reason(tmp_path, size, metadata):
    def call_twice(_channel, call):
        with pytest.raises(grpc.RpcError) as refusal:
            call(HealthCheckRequest(service="x" * size), timeout=10, metadata=[("x", "y" * metadata)])
        assert call(HealthCheckRequest(service="fine"), timeout=10).service == "fine"
        return refusal.value

    refusal = await beside(tmp_path, call_twice)
    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "NSM_LIMITS=" in refusal.details()
