"""What all operator commands share: options, targets, errors and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from nsm.chains.errors import Conflict, InvalidRequest, MeshError, NotFound
from nsm.chains.terminal import escaped_lines
from nsm.chains.tools.arguments import Parser, seconds

from .errors import NOT_REACHED, OK, USAGE, OperatorError, UsageError
from .output import JSON, TABLE, WIDE, Output
from .target import Target, target_of

EXIT_CODES = "Exit code: 0 everything is well, 1 something is down, 2 wrong usage, 3 the mesh cannot be reached."
_ANSWER_TIMEOUT = 10.0


@dataclass(frozen=True)
class Command:
    """A command that was called: whom it asks, where it prints, and its own arguments."""

    name: str
    target: Target
    output: Output
    arguments: argparse.Namespace


Work = Callable[[Command], int]


def parser_of(name: str, about: str | None) -> Parser:
    """The parser of `nsm NAME`, with the options that all operator commands have; the command adds its own."""
    parser = Parser(prog=f"nsm {name}", description=about, epilog=EXIT_CODES, allow_abbrev=False)
    parser.set_defaults(command_name=name)
    return parser


def run(parser: Parser, words: list[str], work: Work) -> int:
    """Parse `words`, do `work`, and return the exit code; errors are one line on standard error."""
    _add_common(parser)
    arguments = parser.parse_intermixed_args(words)
    name = arguments.command_name
    output = Output.to(sys.stdout, JSON if arguments.json else arguments.output)
    try:
        target = target_of(arguments.name, arguments.url, arguments.view, arguments.timeout)
        return work(Command(name, target, output, arguments))
    except (OperatorError, MeshError) as error:
        print(escaped_lines(f"nsm {name}: {error}"), file=sys.stderr)
        return error.code if isinstance(error, OperatorError) else _code_of(error)


def _code_of(error: MeshError) -> int:
    """The exit code for what a view or a manager answered."""
    return USAGE if isinstance(error, InvalidRequest | NotFound | Conflict) else NOT_REACHED


def _add_common(parser: Parser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o", dest="output", choices=[TABLE, WIDE, JSON], default=TABLE, help="how much to print [table]"
    )
    output.add_argument("--json", action="store_true", help="machine-readable: the same as -o json")
    target = parser.add_argument_group("which mesh (default: the local mesh of this machine)")
    which = target.add_mutually_exclusive_group()
    which.add_argument("--name", metavar="MESH", help="another local mesh, as `nsm mesh ls` shows it")
    which.add_argument("--url", metavar="URL", help="a node's manager: unix:///path or tcp://host:port")
    which.add_argument("--view", metavar="URL", help="a view (`nsm view`): http://host:port or unix:///path")
    target.add_argument(
        "--timeout", type=seconds, default=_ANSWER_TIMEOUT, metavar="SECONDS", help="wait that long for an answer [10]"
    )


__all__ = ["EXIT_CODES", "NOT_REACHED", "OK", "Command", "OperatorError", "UsageError", "Work", "parser_of", "run"]
