"""Where a view learns from: the monitors of managers, and registries."""

from .manager_source import ManagerSource

__all__ = ["ManagerSource"]
