"""A registry in an SQLite file: one process, and records that survive its death."""

from .chain import sqlite_registry

__all__ = ["sqlite_registry"]
