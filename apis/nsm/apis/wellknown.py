"""google.protobuf.Timestamp and Empty, as messages that keep what is on the wire."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import betterproto2

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 to 9999: what a protobuf Timestamp may say."""
_REMEMBERED = 1024
"""Times whose texts are kept: each call tells when its caller's token ends, which stays the same for a while."""


@dataclass(eq=False, repr=False)
class Empty(betterproto2.Message):
    """The answer that says nothing."""


@dataclass(eq=False, repr=False)
class Timestamp(betterproto2.Message):
    """A point in time: seconds since the epoch (UTC) and nanoseconds, 0 to 999,999,999."""

    seconds: int = betterproto2.field(1, betterproto2.TYPE_INT64)
    nanos: int = betterproto2.field(2, betterproto2.TYPE_INT32)

    @classmethod
    def from_seconds(cls, seconds: float) -> Timestamp:
        """From seconds since the epoch, as `time.time()` gives them."""
        return cls.from_nanoseconds(round(seconds * 1_000_000_000))

    @classmethod
    def from_nanoseconds(cls, nanoseconds: int) -> Timestamp:
        """From nanoseconds since the epoch, as `time.time_ns()` gives them."""
        seconds, nanos = divmod(nanoseconds, 1_000_000_000)
        return cls(seconds=seconds, nanos=nanos)

    @classmethod
    def now(cls) -> Timestamp:
        """The present moment of the system's clock."""
        return cls.from_nanoseconds(time.time_ns())

    @classmethod
    def from_rfc3339(cls, text: str) -> Timestamp:
        """From RFC 3339 with up to nine digits of a second, of the years 1 to 9999 (UTC). Raises ValueError."""
        seconds, nanos = _read_rfc3339(text)
        return cls(seconds=seconds, nanos=nanos)

    def to_seconds(self) -> float:
        """Seconds since the epoch; fractions finer than a float's are lost."""
        return self.seconds + self.nanos / 1_000_000_000

    def to_rfc3339(self) -> str:
        """RFC 3339 in UTC with 0, 3, 6 or 9 digits of a second, as protobuf's JSON form has it.

        What no calendar has, since whoever sent it made it up, is shown as the nearest moment of the years 1 to 9999.
        """
        return _rfc3339(self.seconds, self.nanos)

    def to_dict(self, **_options: Any) -> Any:
        """The JSON form is a string."""
        return self.to_rfc3339()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any] | Any, *, ignore_unknown_fields: bool = False) -> Timestamp:
        """From the JSON form. Raises ValueError."""
        return cls.from_rfc3339(str(value))


@lru_cache(maxsize=_REMEMBERED)
def _read_rfc3339(text: str) -> tuple[int, int]:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time in RFC 3339, such as 2026-01-31T12:00:00.5Z")
    day, clock, fraction, zone = match.groups()
    moment = datetime.datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    whole = (moment - _EPOCH) // datetime.timedelta(seconds=1)
    if not _FIRST <= whole <= _LAST:
        raise ValueError(f"{text!r} is not a time of the years 1 to 9999 in UTC")
    return whole, int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=_REMEMBERED)
def _rfc3339(seconds: int, nanos: int) -> str:
    seconds = min(max(seconds, _FIRST), _LAST)
    whole = (_EPOCH + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    digits = f"{min(max(nanos, 0), 999_999_999):09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"
