"""Which devices of the node control groups may open."""

from .permissions import Permissions
from .program import Device

__all__ = ["Device", "Permissions"]
