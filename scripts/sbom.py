"""What is in each image: the packages of Python and of Debian, as CycloneDX documents.

    python -m scripts.sbom FOLDER [IMAGE ...]

writes FOLDER/NAME.cdx.json for each image that was built, or for those named. The same image gives the same bytes: a
document has no time, and its number is made of what it says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).parents[1]
_NUMBERS = uuid.UUID("0f7c6e1a-6a0e-4a35-9d38-4a4f8c1f6f0b")
"""The space of names that documents' numbers are made in."""

LOOK = r"""
import importlib.metadata, json, platform, sys
paths = [path for path in sys.path if path.startswith("/opt/nsm")]
python = sorted({(each.name, each.version) for each in importlib.metadata.distributions(path=paths)})
system, debian = platform.freedesktop_os_release(), []
for block in open("/var/lib/dpkg/status", encoding="utf-8").read().split("\n\n"):
    fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != " ")
    if fields.get("Status", "").endswith(" installed"):
        debian.append((fields["Package"], fields["Version"], fields["Architecture"]))
told = {"python": python, "debian": sorted(debian), "distribution": system["ID"], "release": system["VERSION_ID"]}
print(json.dumps({**told, "interpreter": platform.python_version()}))
"""
"""What the Python of an image is to say of where it is."""


def look(image: str, docker: str = "docker") -> dict[str, Any]:
    """What an image says of itself, without network or capabilities. Raises CalledProcessError."""
    alone = ["--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--entrypoint", "python"]
    said = subprocess.run([docker, "run", *alone, image, "-c", LOOK], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def document(name: str, version: str, found: dict[str, Any]) -> str:
    """The document of one image, as JSON."""
    system = {"distro": f"{found['distribution']}-{found['release']}"}
    components = [
        _component(each, number, PackageURL("pypi", None, each.lower().replace("_", "-"), number))
        for each, number in found["python"]
    ]
    components += [
        _component(each, number, PackageURL("deb", found["distribution"], each, number, {"arch": machine, **system}))
        for each, number, machine in found["debian"]
    ]
    interpreter = found["interpreter"]
    components.append(_component("python", interpreter, PackageURL("generic", None, "python", interpreter)))
    image = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=f"{name}:{version}")
    bom = Bom(components=components, metadata=BomMetaData(component=image))
    bom.register_dependency(image, components)
    said: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    for changing in ("timestamp", "tools"):
        said["metadata"].pop(changing, None)
    del said["serialNumber"]
    said["components"].sort(key=lambda each: each["bom-ref"])
    said["dependencies"].sort(key=lambda each: each["ref"])
    for each in said["dependencies"]:
        each.get("dependsOn", []).sort()
    number = uuid.uuid5(_NUMBERS, json.dumps(said, sort_keys=True))
    return json.dumps({**said, "serialNumber": f"urn:uuid:{number}"}, indent=2, sort_keys=True) + "\n"


def _component(name: str, version: str, url: PackageURL) -> Component:
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=url.to_string())


def main(folder: str, wanted: list[str]) -> int:
    """Write the documents; returns the exit code."""
    listed = subprocess.run([ROOT / "scripts/images", "list"], capture_output=True, text=True, check=True).stdout
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for image in listed.split():
        name, _, version = image.rpartition("/")[2].partition(":")
        if wanted and name not in wanted:
            continue
        try:
            found = look(image)
        except subprocess.CalledProcessError as error:
            print(f"{image} cannot be looked into: {error.stderr.strip()}; build it by make images", file=sys.stderr)
            return 1
        file = place / f"{name}.cdx.json"
        file.write_text(document(image.rpartition(":")[0], version, found))
        print(f"{file}  {len(found['python'])} packages of Python, {len(found['debian'])} of Debian")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
