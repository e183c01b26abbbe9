"""Images of clients, and the names of their containers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nsm.chains.config import items

_CONTAINER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Image:
    """An image, and the name of its container: the last part of the image's name, without tag and digest."""

    reference: str
    container: str


def images(value: str) -> tuple[Image, ...]:
    """A list of images, comma separated. Raises ValueError if a name is invalid or occurs twice."""
    found = tuple(_image(item) for item in items(value))
    names = [image.container for image in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several images are called {twice[0]!r}; their containers need different names")
    return found


def _image(reference: str) -> Image:
    name = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    if not _CONTAINER_NAME.fullmatch(name):
        raise ValueError(
            f"{reference!r} does not end in a valid container name; expected an image such as registry.example/nsc:v1, "
            "its last part of lower-case letters, digits and dashes"
        )
    return Image(reference, name)
