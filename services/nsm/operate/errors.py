"""Errors of operator commands, and their exit codes."""

from __future__ import annotations

OK, DOWN, USAGE, NOT_REACHED = 0, 1, 2, 3
"""Exit codes: everything is well, something is down, wrong usage (as of argparse), the mesh cannot be reached."""


class OperatorError(Exception):
    """A command cannot do its work; the text says why and what to do. Most often the mesh cannot be reached."""

    code = NOT_REACHED


class DownError(OperatorError):
    """A command cannot do its work because what it needs is down, as the mesh reports."""

    code = DOWN


class UsageError(OperatorError):
    """The arguments name something that does not exist, or are ambiguous."""

    code = USAGE
