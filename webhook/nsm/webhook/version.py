"""Features of the cluster, by the version of its API server."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .kinds import Json


@dataclass(frozen=True, order=True)
class Version:
    """The major and minor version of Kubernetes."""

    major: int
    minor: int

    @classmethod
    def of(cls, document: Json) -> Version:
        """From the response of ``/version``; some providers write minor versions like ``29+``. Raises ValueError."""
        numbers = [re.match(r"\d+", str(document.get(key, ""))) for key in ("major", "minor")]
        major, minor = (int(number[0]) if number else -1 for number in numbers)
        if major < 0 or minor < 0:
            raise ValueError(f"the API server returned no version: {document}")
        return cls(major, minor)

    @property
    def has_native_sidecars(self) -> bool:
        """Whether native sidecars work without a feature gate."""
        return self >= Version(1, 29)

    @property
    def has_match_conditions(self) -> bool:
        """Whether match conditions of webhooks work without a feature gate."""
        return self >= Version(1, 28)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"
