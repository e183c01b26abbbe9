"""The attachments of an agent, and their files: what it continues after a restart."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nsm.chains.core import InvalidRequest, MeshError
from nsm.chains.logs import log

from .control import SOCKET
from .places import Place

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_FILE, _SERVICES = "attachment.json", "services"
ISSUER = "issuer"
"""A file in an agent's folder that exists while a process issues identities to its attachments."""
_RESERVED = {ISSUER, SOCKET, "log"}


@dataclass(frozen=True)
class Attachment:
    """Wires of one place: its name in the mesh, which URLs it wants, from which manager, with which identity."""

    name: str
    place: Place
    urls: tuple[str, ...]
    manager: str
    workload_api: str
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Attachment:
        """From JSON. Raises `InvalidRequest`."""
        try:
            attachment = cls(**{**found, "place": Place.read(found["place"]), "urls": tuple(found["urls"])})
        except (KeyError, TypeError):
            raise InvalidRequest("an attachment has name, place, urls, manager and workload_api") from None
        if not _NAME.fullmatch(attachment.name):
            raise InvalidRequest(f"name {attachment.name[:80]!r}: expected up to 63 letters, digits, -, _ and .")
        if attachment.name in _RESERVED:
            raise InvalidRequest(f"{attachment.name!r} is the name of a file of the agent; use another name")
        if not attachment.urls:
            raise InvalidRequest("which wires? write at least one URL, such as kernel://service/nsm-1")
        return attachment

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "place": self.place.plain(), "urls": [*self.urls]}


@dataclass(frozen=True)
class Folder:
    """The files of one attachment."""

    path: Path

    @property
    def services(self) -> Path:
        """The file with its URLs, which its client follows."""
        return self.path / _SERVICES

    @property
    def state(self) -> Path:
        """Where its client keeps connections."""
        return self.path / "state"

    @property
    def ready(self) -> Path:
        """A file that exists while all its wires are up."""
        return self.path / "ready"

    @property
    def identity(self) -> Path:
        """The socket at which its client gets its identity, if there is an issuer."""
        return self.path / "id.sock"

    @property
    def log(self) -> Path:
        """What its client has logged since it was started last."""
        return self.path / "log"

    def why(self) -> str:
        """What its client waits for; empty if it waits for nothing."""
        with suppress(OSError):
            return Path(f"{self.ready}.why").read_text().strip()
        return ""

    def last_words(self) -> str:
        """The last line of the log."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return _sentence(lines[-1]) if lines else ""
        return ""

    def write(self, attachment: Attachment) -> None:
        """Store the attachment. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, text in (
            (self.services, "\n".join(attachment.urls) + "\n"),
            (self.path / _FILE, json.dumps(attachment.plain())),
        ):
            new = file.with_name(f"{file.name}.new")
            new.write_text(text)
            new.replace(file)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.path, ignore_errors=True)


def names_in(folder: Path) -> list[str]:
    """The names of the attachments in an agent's folder."""
    return sorted(file.parent.name for file in folder.glob(f"*/{_FILE}") if _NAME.fullmatch(file.parent.name))


def stored_in(folder: Path) -> list[Attachment]:
    """The attachments in an agent's folder; those that cannot be read are logged, and left alone."""
    found = []
    for file in sorted(folder.glob(f"*/{_FILE}")):
        try:
            found.append(Attachment.read(json.loads(file.read_text())))
        except (OSError, ValueError, MeshError) as error:
            log.error("an attachment cannot be read; its wires are not kept", file=str(file), error=str(error))
    return found


def _sentence(line: str) -> str:
    try:
        told = json.loads(line)
        return ": ".join(str(told[key]) for key in ("event", "error", "reason") if told.get(key))
    except (ValueError, AttributeError, TypeError, KeyError):
        return line
