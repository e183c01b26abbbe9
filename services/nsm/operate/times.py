"""How commands print times."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def age(at: datetime | None, now: datetime) -> str:
    """How long ago `at` was, in one or two units: ``12s``, ``3m20s``, ``2h5m``, ``4d``; empty if it is unknown."""
    if at is None:
        return ""
    seconds = max(0.0, (now - at).total_seconds())
    for place, (length, unit) in enumerate(_UNITS):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            smaller, name = _UNITS[place + 1] if place + 1 < len(_UNITS) else (1.0, "s")
            more = int(rest / smaller)
            return f"{whole:.0f}{unit}" + (f"{more}{name}" if more and whole < 10 else "")
    return f"{seconds:.0f}s"


def clock(at: datetime | None) -> str:
    """The time of day of `at`, in the zone of this machine; with the day if that is not today."""
    if at is None:
        return ""
    here = at.astimezone()
    is_today = here.date() == datetime.now().astimezone().date()
    return here.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")
