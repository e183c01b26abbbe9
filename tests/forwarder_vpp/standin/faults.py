"""What a stand-in does wrong when it is told to."""

import enum
from dataclasses import dataclass


class Fault(enum.Enum):
    """Instead of answering a message."""

    REFUSE = "refuse"
    """Answer with an error, and change nothing."""
    IGNORE = "ignore"
    """Do what was asked, and never answer."""
    HANG = "hang"
    """Do not do it, and answer nothing any more."""
    DIE_BEFORE = "die before"
    """End before it is done."""
    DIE_AFTER = "die after"
    """End when it is done, without an answer."""
    GARBAGE = "garbage"
    """Answer with bytes that do not follow the description of the reply."""


@dataclass
class Plan:
    """A fault for the `count`-th message from now on, of a name or of any."""

    fault: Fault
    name: str = ""
    count: int = 1
    number: int = -1

    def meets(self, name):
        """Whether it is this message's turn."""
        if self.name and self.name != name:
            return False
        self.count -= 1
        return self.count == 0
