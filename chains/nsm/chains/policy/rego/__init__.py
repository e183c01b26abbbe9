"""Policies in files, in Rego. The engine is an optional library, loaded only if a file is configured."""

from .file import PolicyFile, refusal_by_files

__all__ = ["PolicyFile", "refusal_by_files"]
