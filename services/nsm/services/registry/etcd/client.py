"""Calls to an etcd cluster, on any member that responds, with TLS and authentication."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from betterproto2 import Message
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from nsm.apis.codec import Codec
from nsm.apis.etcd import (
    AuthenticateRequest,
    AuthenticateResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from nsm.chains.core import InvalidRequest, MeshError, Unavailable
from nsm.services.registry.store_url import EtcdStore

T = TypeVar("T", bound=Message)

_PATIENCE = 3.0
"""Seconds that one member has to respond, before the next one is tried."""
_OF_A_LOGIN = ("auth", "user")
"""Words that every error of etcd about the caller contains; its status is the same as for any invalid request."""
_CLOSED = (OSError, ProtocolError, StreamTerminatedError, TimeoutError)


class Compacted(Exception):
    """etcd no longer has the revision at which a watch should start."""


class Denied(MeshError):
    """etcd rejects the user, or the user has no permission."""


class Etcd:
    """An etcd cluster; uses one channel, to the last member that responded.

    Each call raises `Unavailable` if no member responds or the cluster has no leader, `Denied` for wrong credentials or
    a missing role, `InvalidRequest` for a request that etcd rejects from any caller.
    """

    def __init__(self, store: EtcdStore) -> None:
        """Raises ValueError if a file of `store` cannot be read."""
        self._store = store
        self._tls = _tls(store)
        self._password = _password(store)
        self._token: str | None = None
        self._channel: Channel | None = None
        self._at = 0

    def __str__(self) -> str:
        members = ",".join(f"{host}:{port}" for host, port in self._store.members)
        return f"etcd at {members}"

    async def __aenter__(self) -> Etcd:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop(self._channel)

    async def range(self, request: RangeRequest) -> RangeResponse:
        """Read keys."""
        return await self._call("/etcdserverpb.KV/Range", request, RangeResponse)

    async def transact(self, request: TxnRequest) -> TxnResponse:
        """Compare, then write. If the connection breaks, the outcome is unknown: `Unavailable`."""
        return await self._call("/etcdserverpb.KV/Txn", request, TxnResponse, again=False)

    async def grant(self, request: LeaseGrantRequest) -> LeaseGrantResponse:
        """Create a lease."""
        return await self._call("/etcdserverpb.Lease/LeaseGrant", request, LeaseGrantResponse)

    async def watch(self, create: WatchCreateRequest) -> AsyncIterator[WatchResponse]:
        """Changes, until the stream breaks (`Unavailable`). Raises `Compacted`, `Denied`, `InvalidRequest`."""
        channel = self._opened()
        method = StreamStreamMethod(channel, "/etcdserverpb.Watch/Watch", WatchRequest, WatchResponse)
        try:
            metadata = {"hasleader": "true", **await self._credentials()}  # a member without leader ends the stream
            async with method.open(metadata=metadata) as stream:
                await stream.send_message(WatchRequest(create_request=create))
                async for response in stream:
                    if response.compact_revision:
                        raise Compacted
                    if response.canceled:
                        raise Unavailable(f"{self} ended the watch: {response.cancel_reason or 'no reason given'}")
                    yield response
                raise Unavailable(f"{self} ended the watch")
        except GRPCError as error:
            raise self._said(error, channel) from error
        except _CLOSED as error:
            self._drop(channel)
            raise Unavailable(f"{self} cannot be reached: {_reason(error)}") from error

    async def _call(self, path: str, request: Message, answer: type[T], *, again: bool = True) -> T:
        """Try the members in turn, starting with the last one that responded."""
        fault: MeshError | None = None
        for _ in self._store.members:
            channel = self._opened()
            was_connected = channel._connected
            try:
                return await self._ask(channel, path, request, answer, await self._credentials())
            except _CLOSED as error:
                self._drop(channel)
                fault = Unavailable(f"{self} cannot be reached: {_reason(error)}")
                if not again and was_connected:
                    break
            except GRPCError as error:
                fault = self._said(error, channel)
                if not isinstance(fault, Unavailable):
                    break
        assert fault is not None
        raise fault

    async def _ask(
        self, channel: Channel, path: str, request: Message, answer: type[T], metadata: Mapping[str, str]
    ) -> T:
        async with asyncio.timeout(_PATIENCE):
            method: UnaryUnaryMethod[Message, T] = UnaryUnaryMethod(channel, path, type(request), answer)
            return await method(request, metadata=dict(metadata))

    async def _credentials(self) -> dict[str, str]:
        if not self._store.user:
            return {}
        if self._token is None:
            request = AuthenticateRequest(name=self._store.user, password=self._password)
            method = "/etcdserverpb.Auth/Authenticate"
            found = await self._ask(self._opened(), method, request, AuthenticateResponse, {})
            self._token = found.token
        return {"token": self._token}

    def _said(self, error: GRPCError, channel: Channel) -> MeshError:
        """The error for a status; if it may help, the next call uses another member."""
        told = error.message or error.status.name
        if error.status is Status.PERMISSION_DENIED:
            who = f"the user {self._store.user!r}" if self._store.user else "a caller without a user"
            return Denied(
                f"{self} denies access to {who}: {told}; grant a role with readwrite on {self._store.prefix}/"
            )
        is_invalid = error.status is Status.INVALID_ARGUMENT
        if is_invalid and not any(word in told for word in _OF_A_LOGIN):
            return InvalidRequest(f"{self} rejects the request: {told}")
        if is_invalid or error.status is Status.UNAUTHENTICATED:
            expired, self._token = self._token is not None, None
            if expired:  # etcd forgets tokens, by default after five minutes
                return Unavailable(f"{self} no longer accepts the session: {told}")
            return Denied(f"{self} rejects our user and password: {told}")
        self._drop(channel)
        return Unavailable(f"{self} failed: {told}")

    def _opened(self) -> Channel:
        if self._channel is None:
            host, port = self._store.members[self._at % len(self._store.members)]
            self._channel = Channel(host, port, ssl=self._tls, codec=Codec())
        return self._channel

    def _drop(self, channel: Channel | None) -> None:
        """Close the channel; the next call goes to the next member."""
        if channel is None:
            return
        channel.close()
        if channel is self._channel:
            self._channel = None
            self._at += 1


def _tls(store: EtcdStore) -> ssl.SSLContext | None:
    if not store.ca:
        return None
    try:
        context = ssl.create_default_context(cafile=store.ca)
        if store.certificate:
            context.load_cert_chain(store.certificate, store.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (store.ca, store.certificate, store.key) if name)
        raise ValueError(f"cannot read {files}: {error}") from error
    context.set_alpn_protocols(["h2"])
    return context


def _password(store: EtcdStore) -> str:
    if not store.password_file:
        return ""
    try:
        return Path(store.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the password: {error}") from error


def _reason(error: BaseException) -> str:
    return "it did not respond in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys with `prefix`: the `range_end` of etcd's API."""
    with contextlib.suppress(ValueError):
        last = max(at for at, byte in enumerate(prefix) if byte < 0xFF)
        return prefix[:last] + bytes([prefix[last] + 1])
    return b"\0"


__all__: Sequence[str] = ["Compacted", "Denied", "Etcd", "prefix_end"]
