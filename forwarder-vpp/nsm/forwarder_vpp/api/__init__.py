"""VPP's binary API, from asyncio: `VPP` is a connection, `stats` reads counters without it."""

from .client import VPP, Events
from .codec import Record
from .descriptions import Descriptions, Message, Service, known
from .errors import BadField, Gone, Malformed, Rejected, Silent, UnknownMessage, Unreachable, VPPError

__all__ = [
    "VPP",
    "BadField",
    "Descriptions",
    "Events",
    "Gone",
    "Malformed",
    "Message",
    "Record",
    "Rejected",
    "Service",
    "Silent",
    "UnknownMessage",
    "Unreachable",
    "VPPError",
    "known",
]
