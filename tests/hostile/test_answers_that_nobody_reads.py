"""A peer asks for much, and lets nothing of the answers be sent."""

import asyncio
import contextlib

import hpack

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceLabels
from nsm.chains.transport.rpc import TOKEN, TOKEN_EXPIRES

from .attacker import ENDPOINTS, PREFACE, Attacker, endpoint_record, frame

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
NO_WINDOW = frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0")
RECORDS, CALLS = 20, 950


def finds(service, token):
    """The bytes of many Finds, each of all records of `service`."""
    query = NetworkServiceEndpointQuery(
        network_service_endpoint=NetworkServiceEndpoint(network_service_names=[service])
    )
    body, encoder = codec.encode(query), hpack.Encoder()
    headers = [
        (":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", f"{ENDPOINTS}/Find"),
        ("te", "trailers"), ("content-type", "application/grpc"),
        (TOKEN, token.token), (TOKEN_EXPIRES, token.expires.to_rfc3339()),
    ]  # fmt: skip
    message = b"\0" + len(body).to_bytes(4, "big") + body
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, encoder.encode(headers)) + frame(DATA, END_STREAM, stream, message)
        for stream in range(1, 2 * CALLS, 2)
    )


async def test_a_megabyte_for_each_of_a_thousand_finds_is_not_kept_for_who_takes_none(mesh, bystander):
    """It took a manager a gigabyte in twelve seconds."""
    url = mesh.urls["nsmgr"]
    async with Attacker(mesh) as attacker, contextlib.AsyncExitStack() as stack:
        for number in range(RECORDS):
            has = {"big": NetworkServiceLabels(labels={f"k{n}": "v" * 900 for n in range(48)})}
            made = await attacker.register_socket(endpoint_record(f"big-{number}", "big", network_service_labels=has))
            stack.push_async_callback(attacker.unregister, made)
        asked = finds("big", await attacker.own_token(url))
        async with bystander.watching(peak=32):
            await asyncio.gather(*(attacker.speak(url, PREFACE + NO_WINDOW + asked, wait=3) for _ in range(2)))
