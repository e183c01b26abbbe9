"""Where a view learns from: the monitors of managers, and registries."""

from .manager_source import ManagerSource
from .watch import Watch

__all__ = ["ManagerSource", "Watch"]
