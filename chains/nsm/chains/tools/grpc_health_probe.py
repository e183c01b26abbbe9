"""`grpc-health-probe`, as upstream's manifests call it in their probes: whether a component is alive.

It finishes within the one second that such a probe has; a whole call over mTLS would not. With `-service` it runs
`nsm health`. Exit codes are those of the original program: 1 for invalid arguments, 2 if nothing responds.
"""

from __future__ import annotations

import argparse
import sys

from .alive import check_alive

_UNREACHABLE = 2
_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Exits 0 if the component at `-addr` is alive. Options for TLS and timeouts are accepted and ignored."""
    parser = argparse.ArgumentParser(prog="grpc-health-probe", description=__doc__, allow_abbrev=False)
    parser.add_argument("-addr", required=True, help="unix:///path, host:port or tcp://host:port")
    parser.add_argument("-service", default="", help="one of its services")
    parsed, _ = parser.parse_known_args(arguments)
    if parsed.service:
        from .health import main as health  # noqa: PLC0415 - it takes long to import

        return health([parsed.addr, "--service", parsed.service])
    try:
        check_alive(parsed.addr, _SECONDS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{parsed.addr} does not respond: {error.strerror or error}", file=sys.stderr)
        return _UNREACHABLE
    print("status: SERVING")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
