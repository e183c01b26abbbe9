"""A registry in an SQLite file: one process, and records that survive a crash."""

from .chain import sqlite_registry

__all__ = ["sqlite_registry"]
