"""`grpc-health-probe`, as manifests of upstream's call it in their probes: whether a component is alive.

It says so within the second that such a probe has, which a whole call over mTLS would not. With `-service` it is
`nsm health` that asks. Exit codes are those of the program of that name: 1 for arguments, 2 if nobody is there.
"""

from __future__ import annotations

import argparse
import sys

from .alive import check_alive

_UNREACHABLE = 2
_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Exits 0 if who serves at `-addr` is alive. Options about TLS and time are accepted, and change nothing."""
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
        print(f"{parsed.addr} does not answer: {error.strerror or error}", file=sys.stderr)
        return _UNREACHABLE
    print("status: SERVING")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
