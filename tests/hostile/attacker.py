"""What an attacker has: an identity of its own, the source, and no scruples about what it sends."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import ssl
import tempfile
import time
from array import array

import jwt
from h2.config import H2Configuration
from h2.connection import H2Connection

from nsm.apis.connection import Connection, ConnectionEvent, Mechanism, MonitorScopeSelector, Path, PathSegment
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.apis.wellknown import Empty, Timestamp
from nsm.chains.core import RegistryPath, inode_url
from nsm.chains.transport import Pool, parse_address
from nsm.chains.transport.rpc import CLOSE, MONITOR, PATH, REQUEST, TOKEN, TOKEN_EXPIRES

ENDPOINTS = "/registry.NetworkServiceEndpointRegistry"
SERVICES = "/registry.NetworkServiceRegistry"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
ANY = object()
_numbers = itertools.count()


class Attacker:
    """`workload`'s own identity, and raw calls with it; as an async context manager it closes its connections."""

    def __init__(self, target, workload="attacker", *, identity=None):
        self.target = target
        self.workload = workload
        self.identity = identity or target.identity(workload)
        self.pool = Pool(self.identity, dial_timeout=5)
        self._stack = contextlib.ExitStack()

    @property
    def spiffe_id(self):
        return self.identity.spiffe_id

    async def __aenter__(self):
        await self.pool.__aenter__()
        return self

    async def __aexit__(self, *error):
        self._stack.close()
        protocols = [channel._protocol for channel in self.pool._channels.values()]
        transports = [
            each.connection._transport for each in protocols if each is not None and not each.connection.is_closing()
        ]
        await self.pool.__aexit__(*error)
        for transport in transports:  # the farewells of TLS take as long as the other side likes
            transport.abort()
        await asyncio.sleep(0.02)

    # --- tokens

    def token(self, *, sub=None, aud=None, exp=None, key=None, header=None, **claims):
        """A token that this attacker's own key signs, with any claims; left out: its own `sub`, in ten minutes."""
        expires = int(time.time() + 600) if exp is None else exp
        claims = {
            "sub": self.spiffe_id if sub is None else sub,
            "exp": expires,
            **({"aud": aud} if aud is not None else {}),
            **claims,
        }
        return self.sign(json.dumps(claims), key=key, header=header)

    def sign(self, payload, *, key=None, header=None):
        """A JWS over any text, be it JSON or not."""
        algorithm = jwt.get_algorithm_by_name("ES256")
        parts = [
            json.dumps(header or {"alg": "ES256", "typ": "JWT"}).encode(),
            payload.encode() if isinstance(payload, str) else payload,
        ]
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = algorithm.sign(signed, key or self.identity.svid.key)
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    async def peer(self, url):
        """Whom it sees at `url`."""
        return await self.pool.channel(url).peer()

    async def own_token(self, url):
        """The token that an honest client would send there."""
        return self.identity.token(await self.peer(url))

    # --- calls

    async def call(
        self, url, method, message, kind, *, token=ANY, expires=ANY, path=None, metadata=(), files=(), timeout=10.0
    ):
        """One call with any metadata. `token`: text or None; left out: an honest one. `path`: a `RegistryPath` or text."""
        honest = await self.own_token(url)
        token = honest.token if token is ANY else token
        expires = honest.expires.to_rfc3339() if expires is ANY else expires
        sent = [(TOKEN, token)] if token is not None else []
        sent += [(TOKEN_EXPIRES, expires)] if expires is not None else []
        if path is not None:
            sent.append((PATH, path if isinstance(path, str) else path.to_metadata()))
        deadline = asyncio.get_running_loop().time() + timeout
        answer, _ = await self.pool.channel(url).unary(
            method, message, kind, metadata=[*sent, *metadata], deadline=deadline, files=files
        )
        return answer

    async def request(self, connection, *preferences, url=None, **options):
        message = NetworkServiceRequest(connection=connection, mechanism_preferences=list(preferences))
        return await self.call(url or self.target.urls["nsmgr"], REQUEST, message, Connection, **options)

    async def close(self, connection, *, url=None, **options):
        return await self.call(url or self.target.urls["nsmgr"], CLOSE, connection, Empty, **options)

    async def register(self, record, *, url=None, **options):
        options.setdefault("path", RegistryPath())
        return await self.call(
            url or self.target.urls["nsmgr"], f"{service_of(record)}/Register", record, type(record), **options
        )

    async def register_socket(self, record, **options):
        """Register at the manager under a socket of one's own, as an honest endpoint does."""
        path = f"{self._stack.enter_context(tempfile.TemporaryDirectory())}/endpoint.sock"
        self._stack.enter_context(socket.socket(socket.AF_UNIX)).bind(path)
        record.url = inode_url(path)
        return await self.register(record, files=[path], **options)

    async def unregister(self, record, *, url=None, **options):
        options.setdefault("path", RegistryPath())
        return await self.call(
            url or self.target.urls["nsmgr"], f"{service_of(record)}/Unregister", record, Empty, **options
        )

    async def find(self, query, *, url=None, watch=False, timeout=5.0):
        """What one Find gives; with `watch` whatever comes within `timeout` seconds."""
        is_endpoint = isinstance(query, NetworkServiceEndpoint)
        service, response = (
            (ENDPOINTS, NetworkServiceEndpointResponse) if is_endpoint else (SERVICES, NetworkServiceResponse)
        )
        asked = (
            NetworkServiceEndpointQuery(network_service_endpoint=query, watch=watch)
            if is_endpoint
            else NetworkServiceQuery(network_service=query, watch=watch)
        )
        url = url or self.target.urls["nsmgr"]
        honest = await self.own_token(url)
        metadata = [(TOKEN, honest.token), (TOKEN_EXPIRES, honest.expires.to_rfc3339())]
        found = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                async for batch in self.pool.channel(url).stream(f"{service}/Find", asked, response, metadata=metadata):
                    found += batch
        return found

    async def monitor(self, selector=None, *, url=None, seconds=0.3):
        """What the monitor shows within some time: its events."""
        seen = []
        url = url or self.target.urls["nsmgr"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for batch in self.pool.channel(url).stream(
                    MONITOR, selector or MonitorScopeSelector(), ConnectionEvent
                ):
                    seen += batch
        return seen

    # --- what it asks for

    def connection(self, connection_id, *, name=None, service="icmp", token="", segments=(), index=0, **fields):
        """A connection as a client sends it: one segment of its own (and any `segments` behind it)."""
        own = PathSegment(name=name or self.workload, id=connection_id, token=token)
        path = Path(index=index, path_segments=[own, *segments])
        return Connection(id=connection_id, network_service=service, path=path, **fields)

    def kernel(self, name="", inode_url=None, **parameters):
        """A KERNEL preference; a name that nobody has, its own network namespace unless `inode_url` says otherwise."""
        name = name or f"evil{next(_numbers)}"
        url = inode_url if inode_url is not None else inode_url_of(self.network)
        return Mechanism(cls=LOCAL, type=KERNEL, parameters={INTERFACE_NAME: name, INODE_URL: url, **parameters})

    @property
    def network(self):
        """The path of its network namespace."""
        return self.target.networks.get(self.workload, "/proc/self/ns/net")

    # --- bytes

    async def speak(self, url, data, *, wait=0.03, context=ANY):
        """Say bytes inside TLS (or, `context` None, without), as a peer that is known; gives what came back."""
        address = parse_address(url)
        context = self.identity.client_context() if context is ANY else context
        if address.is_unix:
            reader, writer = await asyncio.open_unix_connection(
                address.path, ssl=context, server_hostname="" if context else None
            )
        else:
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        heard = b""
        with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
            async with asyncio.timeout(wait):
                while chunk := await reader.read(65536):
                    heard += chunk
        writer.transport.abort()
        await asyncio.sleep(0)
        return heard

    def socket(self, url):
        """A connected socket on which nothing has been said yet."""
        address = parse_address(url)
        family = socket.AF_UNIX if address.is_unix else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(5)
        sock.connect(address.path if address.is_unix else (address.host, address.port))
        return sock


def service_of(record):
    return ENDPOINTS if isinstance(record, NetworkServiceEndpoint) else SERVICES


def inode_url_of(path):
    """How a message names a file whose descriptor travels beside it."""
    status = os.stat(path)
    return f"inode://{status.st_dev}/{status.st_ino}"


def send_files(sock, data, descriptors):
    """Bytes, and descriptors beside the first of them."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors).tobytes())
    return sock.sendmsg([data], [rights] if descriptors else [])


def frame(kind, flags, stream, body=b""):
    """An HTTP/2 frame."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def headers_of(method, stream=1, extra=()):
    """A preface and the headers of a call, as the first bytes of a connection."""
    h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    h2.initiate_connection()
    plain = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "x"),
        (":path", method),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    h2.send_headers(stream, [*plain, *extra])
    return h2.data_to_send()


def seconds_from_now(seconds):
    return Timestamp.from_seconds(time.time() + seconds).to_rfc3339()


def endpoint_record(name, service="icmp", url="tcp://127.0.0.1:9", **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=[service], url=url, **fields)


def service_record(name, **fields):
    return NetworkService(name=name, payload="IP", **fields)
