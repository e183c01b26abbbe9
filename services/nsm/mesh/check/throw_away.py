"""Runs checks in a child process with its own namespaces, which disappear with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from nsm.chains import libc

_PATIENCE = 20.0


class NoNamespacesError(Exception):
    """A namespace of `kind` cannot be created; `number` is the errno."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(f"{kind} namespace: {os.strerror(number)}")
        self.kind, self.number = kind, number


def tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work` (which must be JSON) in new network and mount namespaces.

    `user_namespace` in it tells whether that required a user namespace. Raises `NoNamespacesError` if they
    cannot be created, RuntimeError if the child did not finish.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(write, work)
    os.close(write)
    try:
        told = _read_all(read)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if "refused" in told:
        raise NoNamespacesError(*told["refused"])
    if "failed" in told:
        raise RuntimeError(told["failed"])
    return told


def _child(write: int, work: Callable[[], dict[str, Any]]) -> None:
    try:
        told = {"user_namespace": _enter(), **work()}
    except NoNamespacesError as error:
        told = {"refused": [error.kind, error.number]}
    except BaseException as error:
        told = {"failed": repr(error)}
    os.write(write, json.dumps(told).encode())
    os._exit(0)


def _enter() -> bool:
    """Create the namespaces; returns whether that required a user namespace."""
    with contextlib.suppress(OSError):
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
        return False
    uid, gid = os.getuid(), os.getgid()
    _unshare("user", libc.CLONE_NEWUSER)
    try:
        for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise NoNamespacesError("user", error.errno or 0) from None
    _unshare("network", libc.CLONE_NEWNET)
    _unshare("mount", libc.CLONE_NEWNS)
    return True


def _unshare(kind: str, flag: int) -> None:
    try:
        libc.unshare(flag)
    except OSError as error:
        raise NoNamespacesError(kind, error.errno or 0) from None


def _read_all(descriptor: int) -> dict[str, Any]:
    data = b""
    while select.select([descriptor], [], [], _PATIENCE)[0] and (part := os.read(descriptor, 65536)):
        data += part
    try:
        told: dict[str, Any] = json.loads(data)
    except ValueError:
        return {"failed": f"the probe did not finish within {_PATIENCE:.0f} s"}
    return told
