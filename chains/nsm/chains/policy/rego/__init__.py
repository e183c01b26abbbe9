"""Policies in files, in Rego. The engine is an optional library, loaded where a file is named and nowhere else."""

from .file import PolicyFile, refusal_by_files

__all__ = ["PolicyFile", "refusal_by_files"]
