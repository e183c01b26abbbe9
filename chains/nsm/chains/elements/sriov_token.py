"""SR-IOV tokens, by which a forwarder gives a client a virtual function of a network card."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import DEVICE_TOKEN_ID, KERNEL
from nsm.chains.core import Call, Element, Exhausted, Handler, InvalidRequest, Key
from nsm.chains.core.named_files import mechanisms_of
from nsm.chains.model.sriov import DOMAIN_LABEL, TOKEN_LABEL, seen_by_others


class SriovTokenClient(Element):
    """For a client: use a token for each connection with the label `sriovToken`, whose value is the token's name.

    `tokens` are the ids by name that this process has (`tokens_in`). A connection keeps its token. Endpoints get the
    label `serviceDomain` instead. Raises `Exhausted` if there is no unused token of that name.
    """

    def __init__(self, tokens: Mapping[str, tuple[str, ...]]) -> None:
        self._tokens = tokens
        self._used: dict[str, str] = {}
        self._token: Key[str] = Key("SR-IOV token")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Put the token into the mechanisms, and exchange the labels for the time of the request."""
        if not (name := call.connection.labels.get(TOKEN_LABEL, "")):
            return await rest.request(call)
        if not all(name.partition("/")):
            raise InvalidRequest(f"{TOKEN_LABEL}={name}: expected SERVICE-DOMAIN/CAPABILITY, such as worker.domain/10G")
        token = self._take(call, name)
        labels = dict(call.connection.labels)
        for mechanism in mechanisms_of(call.request):
            mechanism.parameters[DEVICE_TOKEN_ID] = token
        call.connection.labels = seen_by_others(labels)
        try:
            connection = await rest.request(call)
        except BaseException:
            call.connection.labels = labels
            raise
        if DOMAIN_LABEL not in labels:
            connection.labels.pop(DOMAIN_LABEL, None)
        connection.labels[TOKEN_LABEL] = name
        return connection

    def _take(self, call: Call, name: str) -> str:
        """The connection's token: the one that it has, or an unused one. It is free again when the connection ends."""
        connection_id = call.live.connection_id
        chosen = call.connection.mechanism
        had = call.live.get(self._token) or (chosen.parameters.get(DEVICE_TOKEN_ID) if chosen is not None else None)
        mine = self._tokens.get(name, ())
        free = [each for each in mine if self._used.get(each, connection_id) == connection_id]
        if not free:
            there = ", ".join(f"{len(ids)} of {each}" for each, ids in self._tokens.items()) or "none at all"
            raise Exhausted(f"no free SR-IOV token {name!r}; this process has {there}: raise the pod's limit of {name}")
        token = had if had in free else free[0]
        if token not in self._used:
            self._used[token] = connection_id
            call.live.on_end(partial(self._release, token))
        return call.live.put(self._token, token)

    def _release(self, token: str) -> None:
        self._used.pop(token, None)


class SriovTokenServer(Element):
    """For an endpoint: its end of the wire is a virtual function, by a token of this process.

    A single token is used for all connections, of several each by one. Without any nothing changes.
    """

    def __init__(self, tokens: Mapping[str, tuple[str, ...]]) -> None:
        """Raises `InvalidRequest` if there are tokens of several names: it would not be known which to use."""
        if len(tokens) > 1:
            raise InvalidRequest(f"there are SR-IOV tokens of several names: {', '.join(tokens)}; expected one")
        self._ids = next(iter(tokens.values()), ())
        self._used: set[str] = set()
        self._token: Key[str] = Key("SR-IOV token")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Put a token into a KERNEL mechanism that has none."""
        mechanism = call.connection.mechanism
        if self._ids and mechanism is not None and mechanism.type == KERNEL:
            mechanism.parameters.setdefault(DEVICE_TOKEN_ID, self._take(call))
        return await rest.request(call)

    def _take(self, call: Call) -> str:
        if len(self._ids) == 1:
            return self._ids[0]
        if (token := call.live.get(self._token)) is not None:
            return token
        if (free := next((each for each in self._ids if each not in self._used), None)) is None:
            raise Exhausted(f"all {len(self._ids)} SR-IOV tokens of this endpoint are in use")
        self._used.add(free)
        call.live.on_end(partial(self._used.discard, free))
        return call.live.put(self._token, free)
