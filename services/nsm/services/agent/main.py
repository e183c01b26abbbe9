"""Keeps the wires of processes, containers and namespaces that know nothing of the mesh.

Each attachment has a client (`nsm nsc`) of its own, a fork of this process in the network namespace of its place. It
makes the wires, checks and heals them. If this process ends, the clients end without closing the wires; the next one
starts clients that continue them. It waits by `poll` alone, without threads, so that it can fork.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsm.chains import libc, logs
from nsm.chains.config import Common, ConfigError, flag, load, text, variable
from nsm.chains.core import Backoff, InvalidRequest, MeshError, NotFound
from nsm.chains.logs import log
from nsm.chains.terminal import escaped

from .attachments import Attachment, Folder, stored_in
from .containers import Runtimes
from .control import ATTACH, DETACH, LIST, SOCKET, receive
from .places import CONTAINER, PID, Entrance, enter
from .waiting import readable

_LISTEN, _PATIENCE = 16, 1.0
_AGAIN, _LONGEST_PAUSE = 0.5, 30.0
_LOOK = 1.0
"""Seconds between two looks for a container that has stopped, or a namespace that is gone."""
_CLOCK = 0.01
"""Seconds by which the time of a file may be behind the clock."""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_TIMEOUT = 8.0
"""Seconds that clients have to close their wires when the agent stops, and they are not kept."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig(Common):
    """What the agent of `nsm attach` keeps, and where."""

    name: str = variable("agent", text, "the name in logs")
    state_folder: str = variable(
        "/var/lib/networkservicemesh/agent", text, "its socket and its attachments; only its owner may read it"
    )
    keep_wires: bool = variable(
        "true", flag, "keep the wires when it is stopped, for its next start to continue; else close them"
    )


@dataclass
class Kept:
    """An attachment while the agent runs."""

    attachment: Attachment
    folder: Folder
    entrance: Entrance | None = None
    client: int = 0
    """The process id of its client, 0 if none runs."""
    descriptor: int = -1
    """Of that process."""
    fault: str = ""
    again_at: float = 0.0
    """When to start the client next, if none runs."""
    is_leaving: bool = False
    grown_at: float = 0.0
    """When URLs were added: its client learns of them a moment later."""
    began: float = 0.0
    """When its client was started last."""
    backoff: Backoff = field(default_factory=lambda: Backoff(_AGAIN, _LONGEST_PAUSE))

    @property
    def is_up(self) -> bool:
        """Whether all its wires are there."""
        if not self.client:
            return False
        with suppress(OSError):
            return self.folder.ready.stat().st_mtime >= self.grown_at - _CLOCK
        return False

    def state(self) -> dict[str, Any]:
        """For people and programs."""
        what = "leaving" if self.is_leaving else "up" if self.is_up else "starting" if self.client else "waiting"
        why = "" if self.is_up else self.fault or self.folder.why()
        pid = self.entrance.pid if self.entrance is not None else 0
        return {**self.attachment.plain(), "state": what, "why": why, "pid": pid, "client": self.client}


def main(arguments: list[str]) -> int:
    """Keeps the wires that `nsm attach` gives to running processes, containers and namespaces."""
    from nsm.chains.component import help_of  # noqa: PLC0415

    if arguments[:1] in (["-h"], ["--help"]):
        print(help_of("agent", AgentConfig))
        return 0
    try:
        loaded = load(AgentConfig, os.environ)
    except ConfigError as error:
        for fault in error.faults:
            print(escaped(f"nsm agent: {fault}"), file=sys.stderr)
        return 2
    logs.set_up(loaded.config.name, loaded.config.log_level)
    try:
        Agent(loaded.config, Runtimes.of_machine()).run()
    except (MeshError, OSError) as error:
        log.error("stopped", error=str(error))
        return 1
    return 0


class Agent:
    """Keeps attachments until it is stopped. Raises `InvalidRequest` if its folder cannot be used."""

    def __init__(self, config: AgentConfig, runtimes: Runtimes) -> None:
        self._config, self._runtimes = config, runtimes
        self._root = Path(config.state_folder)
        self._kept: dict[str, Kept] = {}
        self._wake, self._woken = socket.socketpair()
        self._is_stopping = False

    def run(self) -> None:
        """Serve the socket and keep what is attached, until a signal to stop."""
        from nsm.chains.component import prepare_codec  # noqa: PLC0415
        from nsm.services.nsc import main as _client  # noqa: F401, PLC0415 - imported once, for all clients

        prepare_codec()
        with closing(_listener(self._root)) as listener:
            self._heed_signals()
            gc.collect()
            gc.freeze()
            for attachment in stored_in(self._root):
                self._kept[attachment.name] = Kept(attachment, Folder(self._root / attachment.name))
            log.info("ready", attachments=len(self._kept))
            while not self._is_stopping:
                self._start_due()
                self._wait(listener)
            self._end()
        (self._root / SOCKET).unlink(missing_ok=True)

    # --- what happens

    def _wait(self, listener: socket.socket | None) -> None:
        by_client = {kept.descriptor: kept for kept in self._kept.values() if kept.client}
        by_process = {
            kept.entrance.process: kept
            for kept in self._kept.values()
            if kept.entrance is not None and kept.entrance.process is not None and not kept.is_leaving
        }
        others = [self._woken.fileno(), *([listener.fileno()] if listener is not None else [])]
        for descriptor in readable([*by_client, *by_process, *others], self._pause()):
            if descriptor in by_client:
                self._client_ended(by_client[descriptor])
            elif descriptor in by_process:
                self._place_ended(by_process[descriptor])
            elif descriptor == self._woken.fileno():
                self._is_stopping = bool(self._woken.recv(64)) or self._is_stopping
            elif listener is not None:
                self._answer(listener)

    def _pause(self) -> float | None:
        waiting = [kept.again_at for kept in self._kept.values() if not kept.client and not kept.is_leaving]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _start_due(self) -> None:
        for kept in list(self._kept.values()):
            if not kept.client and not kept.is_leaving and time.monotonic() >= kept.again_at:
                self._start(kept)

    def _start(self, kept: Kept) -> None:
        try:
            if kept.entrance is None:
                kept.entrance = enter(kept.attachment.place, self._runtimes)
            kept.folder.ready.unlink(missing_ok=True)
            kept.client, kept.descriptor = _forked(kept)
            kept.began, kept.fault = time.monotonic(), ""
        except NotFound as error:
            log.info("what wires were attached to is gone", name=kept.attachment.name, reason=str(error))
            self._forget(kept)
        except (MeshError, OSError) as error:
            if str(error) != kept.fault:
                log.warning("not attached", name=kept.attachment.name, reason=str(error))
            kept.fault, kept.again_at = str(error), time.monotonic() + _LOOK

    def _client_ended(self, kept: Kept) -> None:
        _, status = os.waitpid(kept.client, 0)
        os.close(kept.descriptor)
        kept.client, kept.descriptor = 0, -1
        if kept.is_leaving:
            self._forget(kept)
            return
        if kept.entrance is None or _is_over(kept.entrance):
            return  # its place has ended
        if time.monotonic() - kept.began > _LONGEST_PAUSE:
            kept.backoff = Backoff(_AGAIN, _LONGEST_PAUSE)
        code, pause = os.waitstatus_to_exitcode(status), kept.backoff.next()
        kept.fault, kept.again_at = (
            f"its client ended with {code}: {kept.folder.last_words()}",
            time.monotonic() + pause,
        )
        log.warning("a client ended", name=kept.attachment.name, code=code, reason=kept.fault, again_in_s=pause)

    def _place_ended(self, kept: Kept) -> None:
        """A process is gone for good; a container may be started again, and then has another namespace."""
        log.info("what wires are attached to has ended", name=kept.attachment.name, place=str(kept.attachment.place))
        if kept.entrance is not None:
            kept.entrance.close()
            kept.entrance = None
        kept.is_leaving = kept.attachment.place.kind == PID
        if kept.client:
            os.kill(kept.client, signal.SIGTERM)
        elif kept.is_leaving:
            self._forget(kept)
        kept.again_at = time.monotonic() + (_LOOK if kept.attachment.place.kind == CONTAINER else 0.0)

    def _forget(self, kept: Kept) -> None:
        if kept.entrance is not None:
            kept.entrance.close()
        kept.folder.remove()
        self._kept.pop(kept.attachment.name, None)

    # --- what is asked

    def _answer(self, listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as sock:
            sock.settimeout(_PATIENCE)
            try:
                request = receive(sock)
                answer = self._done(request) if request is not None else {}
            except (MeshError, ValueError, OSError, KeyError, TypeError) as error:
                answer = {"error": str(error) or type(error).__name__}
            sock.sendall(json.dumps(answer).encode() + b"\n")

    def _done(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request["command"]
        if command == LIST:
            return {"attachments": [kept.state() for kept in self._kept.values()]}
        if command == DETACH:
            return self._detach(request["name"])
        if command == ATTACH:
            return self._attach(Attachment.read(request["attachment"]))
        raise InvalidRequest(f"{command!r} is not a command")

    def _attach(self, attachment: Attachment) -> dict[str, Any]:
        """Begin it; if it is attached already, change its URLs, and leave alone the wires that it still wants."""
        before = self._kept.get(attachment.name)
        if before is None:
            kept = Kept(attachment, Folder(self._root / attachment.name))
            kept.entrance = enter(attachment.place, self._runtimes)
            kept.folder.write(attachment)
            self._kept[attachment.name] = kept
            return kept.state()
        if before.is_leaving or before.attachment.place != attachment.place:
            told = "it is just being detached" if before.is_leaving else f"it is {before.attachment.place}"
            raise InvalidRequest(f"{attachment.name!r} is attached already: {told}; use another --as NAME")
        if before.attachment.manager != attachment.manager:
            raise InvalidRequest(f"{attachment.name!r} has its wires from {before.attachment.manager}; detach it first")
        if set(attachment.urls) - set(before.attachment.urls):
            before.grown_at = time.time()
        before.attachment = attachment
        before.folder.write(attachment)
        return before.state()

    def _detach(self, name: str) -> dict[str, Any]:
        kept = self._kept.get(name)
        if kept is None:
            names = ", ".join(self._kept) or "nothing"
            raise InvalidRequest(f"nothing is attached as {name!r}; there is {names}")
        kept.is_leaving = True
        if kept.client:
            os.kill(kept.client, signal.SIGTERM)
        else:
            self._forget(kept)
        return {"leaving": name}

    # --- its end

    def _heed_signals(self) -> None:
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        for number in _STOPS:
            signal.signal(number, lambda *_: None)

    def _end(self) -> None:
        """End all clients; those that may not keep their wires get the time to close them."""
        log.info("stopping", attachments=len(self._kept))
        number = signal.SIGKILL if self._config.keep_wires else signal.SIGTERM
        for kept in self._kept.values():
            kept.is_leaving = kept.is_leaving or not self._config.keep_wires
            if kept.client:
                os.kill(kept.client, number)
        end = time.monotonic() + _END_TIMEOUT
        while (left := [kept for kept in self._kept.values() if kept.client]) and time.monotonic() < end:
            ready = readable([kept.descriptor for kept in left], end - time.monotonic())
            for kept in left:
                if kept.descriptor in ready:
                    os.waitpid(kept.client, 0)
                    kept.client = 0
                    if kept.is_leaving:
                        kept.folder.remove()


def _is_over(entrance: Entrance) -> bool:
    return entrance.process is not None and bool(readable([entrance.process], 0))


def _listener(root: Path) -> socket.socket:
    """The socket of the agent of `root`. Raises `InvalidRequest` if another agent has it, or others may read it."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise InvalidRequest(f"NSM_STATE_FOLDER={str(root)!r}: others may read it; chmod 700, and own it")
        path = root / SOCKET
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(path))
            raise InvalidRequest(f"another agent uses NSM_STATE_FOLDER={str(root)!r}")
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        os.chmod(path, 0o600)
        sock.listen(_LISTEN)
        sock.setblocking(False)  # a caller may be gone before it is accepted
    except OSError as error:
        raise InvalidRequest(f"NSM_STATE_FOLDER={str(root)!r} cannot be used: {error.strerror or error}") from None
    return sock


def _forked(kept: Kept) -> tuple[int, int]:
    """Start the client of an attachment in its namespace; returns its process id, and a descriptor of it."""
    assert kept.entrance is not None
    output = os.open(kept.folder.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    agent, pid = os.getpid(), os.fork()
    if pid == 0:
        code = 1
        try:
            code = _become_client(kept, output, agent)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            print(error, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(output)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _become_client(kept: Kept, output: int, agent: int) -> int:
    from nsm.services.nsc.main import main as client  # noqa: PLC0415 - imported by the agent

    assert kept.entrance is not None
    attachment, folder = kept.attachment, kept.folder
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent:
        return 1
    signal.set_wakeup_fd(-1)
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    libc.setns(kept.entrance.network, libc.CLONE_NEWNET, f"enter the network namespace of {attachment.place}")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    libc.prctl(libc.PR_SET_NAME, attachment.name.encode()[:15])
    path, log_level = os.environ.get("PATH", os.defpath), os.environ.get("NSM_LOG_LEVEL", "INFO")
    os.environ.clear()
    os.environ.update(
        {
            "PATH": path,
            "NSM_NAME": attachment.name,
            "NSM_CONNECT_TO": attachment.manager,
            "SPIFFE_ENDPOINT_SOCKET": attachment.workload_api,
            "NSM_NETWORK_SERVICES_FILE": str(folder.services),
            "NSM_STATE_FOLDER": str(folder.state),
            "NSM_READY_FILE": str(folder.ready),
            "NSM_LOCAL_DNS_SERVER_ENABLED": "false",  # /etc/resolv.conf is that of the agent
            "NSM_LABELS": ",".join(f"{key}:{value}" for key, value in attachment.labels.items()),
            "NSM_LOG_LEVEL": log_level,
            **({"NODE_NAME": attachment.node} if attachment.node else {}),
        }
    )
    return client([])
