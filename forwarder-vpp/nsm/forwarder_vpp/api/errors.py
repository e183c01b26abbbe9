"""What can go wrong between this process and VPP.

    VPPError                  any error of VPP's binary API; a `MeshError`, so it travels to the client
    ├── Unreachable           nothing answers at the API socket, or what answers is not VPP
    ├── Gone                  VPP closed the connection: it ended, or was restarted
    ├── Silent                VPP did not answer in time
    ├── Rejected              VPP answered with a negative return value
    ├── UnknownMessage        the running VPP does not have a message, or has another version of it
    └── Malformed             bytes that do not follow the description of their message

`BadField` is a defect of the caller: a value that no message can carry.
"""

from __future__ import annotations

from nsm.chains.core import MeshError


class VPPError(MeshError):
    """Base of all that VPP's API reports; `message` names the API message that was sent, if there was one."""

    code = 14  # UNAVAILABLE

    def __init__(self, detail: str, *, message: str = "") -> None:
        super().__init__(detail)
        self.message = message


class Unreachable(VPPError):
    """Nothing answers at the API socket, or what answers is not VPP."""


class Gone(VPPError):
    """VPP closed the connection, before or during a call. Whether the call took effect is not known."""


class Silent(VPPError):
    """VPP did not answer in time. The call may still take effect later; see `VPP.call`, `late`."""

    code = 4  # DEADLINE_EXCEEDED


class Rejected(VPPError):
    """VPP rejected a call: `number` is its return value (negative), `name` what VPP's sources call it."""

    code = 9  # FAILED_PRECONDITION

    def __init__(self, message: str, number: int, name: str) -> None:
        super().__init__(f"VPP rejected {message}: {name} ({number})", message=message)
        self.number = number
        self.name = name


class UnknownMessage(VPPError):
    """The running VPP lacks a message, or its fields differ from all versions that we know."""

    code = 12  # UNIMPLEMENTED


class Malformed(VPPError):
    """Bytes from VPP that do not follow the description of their message; the connection is closed."""

    code = 13  # INTERNAL


class BadField(ValueError):
    """A call names a field that its message does not have, or gives it a value that it cannot carry."""
