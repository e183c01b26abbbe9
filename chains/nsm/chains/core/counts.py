"""The figures that a component counts for its metrics: adding is cheap, whether or not they are read."""

from __future__ import annotations

from collections.abc import Iterator


class Count:
    """One figure of this process, by the values of one label; without a label it is one number."""

    def __init__(self, name: str, about: str, *, label: str = "", goes_down: bool = False) -> None:
        self.name, self.about, self.label, self.goes_down = name, about, label, goes_down
        self._values: dict[str, int] = {} if label else {"": 0}

    def add(self, value: str = "", by: int = 1) -> None:
        """Add `by` to the number of `value`, which is one of a few known names: never a peer's text."""
        self._values[value] = self._values.get(value, 0) + by

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """The number of each value."""
        return iter(sorted(self._values.items()))

    def __getitem__(self, value: str) -> int:
        """The number of one value."""
        return self._values.get(value, 0)


LIMITS = Count("limit_refusals", "Refusals because of a limit", label="limit")
POLICIES = Count("policy_refusals", "Calls and answers that a policy refused", label="policy")
HANDSHAKES = Count("handshakes_refused", "Peers refused before their first call", label="reason")
CONNECTIONS = Count("connections", "Connections of peers", goes_down=True)
RUNNING = Count("calls_running", "Calls that are being answered, watches included", goes_down=True)
QUEUED = Count("calls_queued", "Calls that wait for their turn", goes_down=True)

ALL = (LIMITS, POLICIES, HANDSHAKES, CONNECTIONS, RUNNING, QUEUED)
