"""The webhook's figures for metrics."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

from nsm.chains.core.counts import COUNTER, GAUGE, HISTOGRAM, Buckets, Family
from nsm.chains.metrics import Read

from .counters import BOUNDS, Admissions

_PREFIX = "nsm_webhook_"


def figures(
    admissions: Admissions,
    expires: Callable[[], datetime.datetime | None],
    registered: Callable[[], bool | None],
) -> Read:
    """What there is to tell. `registered` returns None if SPIRE registers us."""

    async def read() -> list[Family]:
        ends = expires()
        return families(admissions, None if ends is None else ends.timestamp(), registered())

    return read


def families(admissions: Admissions, expires: float | None, registered: bool | None) -> list[Family]:
    """The figures by what is known now; `expires` in seconds since 1970."""
    return [*_of_admissions(admissions), *_of_trust(expires, registered)]


def _of_admissions(admissions: Admissions) -> Iterator[Family]:
    about = "Reviews that were answered, by the object's kind"
    yield Family(COUNTER, f"{_PREFIX}admissions", about, ("kind", "result"), [*admissions.results.items()])
    durations = Buckets(BOUNDS, admissions.within, admissions.seconds)
    yield Family(HISTOGRAM, f"{_PREFIX}admission_duration_seconds", "Duration of reviews", (), [((), durations)])


def _of_trust(expires: float | None, registered: bool | None) -> Iterator[Family]:
    """Figures of the certificate; unknown ones are left out."""
    if expires is not None:
        name = f"{_PREFIX}certificate_expiration_timestamp_seconds"
        about = "When the presented certificate expires, in seconds since 1970"
        yield Family(GAUGE, name, about, (), [((), expires)])
    if registered is not None:
        about = "1 if the API server knows this replica's certificate, else 0"
        yield Family(GAUGE, f"{_PREFIX}registered", about, (), [((), int(registered))])
