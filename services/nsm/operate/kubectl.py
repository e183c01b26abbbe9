"""`kubectl nsm`: the operator commands against the view of a cluster, by a port-forward to it."""

from __future__ import annotations

import argparse
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nsm.chains.tools.arguments import Parser, seconds

from .errors import NOT_REACHED, USAGE, OperatorError

COMMANDS = ("bundle", "can", "check", "top", "why", "wires")
_FORWARDED = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ->")
_TARGETS = {"--view", "--url", "--name"}
_END_TIMEOUT = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Runs an nsm command against the view of a cluster: kubectl nsm wires --down.

    It only forwards a port to the view, as kubectl may: with --pod, reading that pod and pods/portforward are all the
    rights that are needed. The options of kubectl nsm stand before the command.
    """
    parser = Parser(
        prog="kubectl nsm", description=main.__doc__, epilog=f"Commands: {', '.join(COMMANDS)}.", allow_abbrev=False
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below; COMMAND --help explains it")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="what the command takes")
    parser.add_argument("-n", "--namespace", default="nsm-system", metavar="NAME", help="of the view [nsm-system]")
    parser.add_argument("--context", metavar="NAME", help="a context of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="another kubeconfig")
    parser.add_argument("--pod", metavar="NAME", help="the view's pod [one of deployment/view]")
    parser.add_argument("--port", type=int, default=7410, help="the view's port in its pod [7410]")
    parser.add_argument("--wait", type=seconds, default=20.0, metavar="SECONDS", help="for the port-forward [20]")
    parsed = parser.parse_args(arguments)
    if named := [word for word in parsed.words if word.partition("=")[0] in _TARGETS]:
        print(f"kubectl nsm: {named[0]} names another mesh: use `nsm {parsed.command}` for that", file=sys.stderr)
        return USAGE
    if {"-h", "--help"} & {*parsed.words}:
        return _nsm([parsed.command, "--help"])
    try:
        with forwarded(_port_forward(parsed), parsed.wait) as port:
            return _nsm([parsed.command, *parsed.words, "--view", f"http://127.0.0.1:{port}"])
    except OperatorError as error:
        print(f"kubectl nsm: {error}", file=sys.stderr)
        return NOT_REACHED


def _nsm(words: list[str]) -> int:
    from nsm.chains import cli  # noqa: PLC0415 - only when the command is known

    return cli.main(words)


def _port_forward(parsed: argparse.Namespace) -> list[str]:
    """The command line of kubectl."""
    command = [os.environ.get("KUBECTL", "kubectl"), "--namespace", parsed.namespace]
    for option in ("context", "kubeconfig"):
        if value := getattr(parsed, option):
            command += [f"--{option}", value]
    view = f"pod/{parsed.pod}" if parsed.pod else "deployment/view"
    return [*command, "port-forward", "--address", "127.0.0.1", view, f":{parsed.port}"]


@contextmanager
def forwarded(command: list[str], timeout: float) -> Iterator[int]:
    """The local port that `command`, a port-forward of kubectl, listens on while the context is open.

    Raises `OperatorError` if there is none after `timeout` seconds; what kubectl reports goes to standard error.
    """
    try:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        raise OperatorError(f"cannot run {command[0]}: {error.strerror}; install it, or name it in KUBECTL") from None
    try:
        yield _port(running, timeout)
    finally:
        running.terminate()
        try:
            running.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        assert running.stdout is not None
        running.stdout.close()


def _port(running: subprocess.Popen[bytes], timeout: float) -> int:
    assert running.stdout is not None
    descriptor, told, end = running.stdout.fileno(), b"", time.monotonic() + timeout
    while (found := _FORWARDED.search(told)) is None:
        if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
            raise OperatorError(f"kubectl forwarded no port within {timeout:g} s")
        if not (more := os.read(descriptor, 4096)):
            raise OperatorError("kubectl cannot reach the view; is k8s/view applied, and may you use pods/portforward?")
        told += more
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
