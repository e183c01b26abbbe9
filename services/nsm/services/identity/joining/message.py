"""One exchange between a node and the server that it joins at: a line of JSON each way, over TLS.

    {"join": {"node", "secret", "trust_domain"}, "requests": {"": PEM}}       by a token
    {"requests": {"": PEM, "shop": PEM}}                                      by the node's certificate
    {"chains": {"": PEM, "shop": PEM}, "bundles": {DOMAIN: PEM}, "settings": {..}}
    {"error": {"kind": "Refused", "detail": ".."}}

The keys of `requests` are paths below the node's SPIFFE ID; the empty one is the node itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any

from nsm.chains.core import (
    Conflict,
    Exhausted,
    Internal,
    InvalidRequest,
    MeshError,
    Refused,
    TimedOut,
    Unavailable,
)

ALPN = "nsm-join/1"
LARGEST = 256 * 1024
"""Bytes of a line."""
MOST_REQUESTS = 32
"""Certificates that one exchange may bring."""
WORKLOAD = re.compile(r"[A-Za-z0-9._-]{1,63}(?:/[A-Za-z0-9._-]{1,63}){0,3}")
"""The path of a workload below its node."""
_KINDS: dict[str, type[MeshError]] = {
    kind.__name__: kind for kind in (Conflict, Exhausted, Internal, InvalidRequest, Refused, TimedOut, Unavailable)
}


def is_workload(path: str) -> bool:
    """Whether `path` can be that of a workload."""
    return WORKLOAD.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))


async def send(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    """Write one message."""
    writer.write(json.dumps(value).encode() + b"\n")
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read one message. Raises `InvalidRequest`, or `Unavailable` if the peer has ended the connection."""
    try:
        line = await reader.readuntil(b"\n")
        value = json.loads(line)
    except asyncio.LimitOverrunError:
        raise InvalidRequest(f"the message is longer than {LARGEST} bytes") from None
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
        why = f" ({error})" if isinstance(error, ssl.SSLError) else ""
        raise Unavailable(f"the other end closed the connection without an answer{why}") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("the message is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the message is not an object")
    return value


def of_error(error: MeshError) -> dict[str, Any]:
    """The answer that carries an error."""
    kind = type(error).__name__
    return {"error": {"kind": kind if kind in _KINDS else "Internal", "detail": error.detail}}


def raise_if_error(answer: dict[str, Any]) -> None:
    """Raise the error in an answer, if it is one."""
    error = answer.get("error")
    if isinstance(error, dict):
        raise _KINDS.get(str(error.get("kind")), Internal)(str(error.get("detail")))


def texts(value: object, what: str) -> dict[str, str]:
    """A map of texts by text. Raises `InvalidRequest`."""
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InvalidRequest(f"{what} is not a map of texts")
    return value
