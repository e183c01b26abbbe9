"""Which clients a forwarder serves where there are virtual functions: those with an SR-IOV token, or the others."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import DEVICE_TOKEN_ID
from nsm.chains.core import Call, Element, Handler, Unsupported
from nsm.chains.model.sriov import TOKEN_LABEL, is_token


class RequireToken(Element):
    """For a forwarder of virtual functions: refuse clients without a token before anything is asked of an endpoint."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look at the mechanism that was chosen. Raises `Unsupported`."""
        token = _token(call)
        if not is_token(token):
            has = f"{token[:64]!r} is not the id of one" if token else "it has none"
            raise Unsupported(
                f"a virtual function takes an SR-IOV token, and {has}: the client needs label {TOKEN_LABEL}"
            )
        return await rest.request(call)


class RefuseToken(Element):
    """For any other forwarder: refuse clients with a token, which would not get the virtual function that they need."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look at the mechanism that was chosen. Raises `Unsupported`."""
        if _token(call):
            raise Unsupported("this forwarder has no virtual functions, and the client has an SR-IOV token for one")
        return await rest.request(call)


def _token(call: Call) -> str:
    mechanism = call.connection.mechanism
    return mechanism.parameters.get(DEVICE_TOKEN_ID, "") if mechanism is not None else ""
