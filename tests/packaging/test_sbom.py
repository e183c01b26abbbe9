"""What the documents of the images say, and that they say it each time in the same way."""

import json
import re
import subprocess
import sys

from packageurl import PackageURL

from scripts import sbom
from tests.docs.pages import ROOT

FOUND = {
    "python": [["nsm-chains", "0.1.0"], ["Jinja2", "3.1.6"], ["typing_extensions", "4.16.0"]],
    "debian": [["libc6", "2.36-9+deb12u10", "amd64"], ["tzdata", "2025b-0+deb12u1", "all"]],
    "distribution": "debian",
    "release": "12",
    "interpreter": "3.11.2",
}
NAME = "localhost/nsm/nsc"


def test_a_document_names_every_package_with_its_address_and_the_image_that_it_is_of():
    said = json.loads(sbom.document(NAME, "0.1.0", FOUND))
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["metadata"]["component"] == {
        "bom-ref": f"{NAME}:0.1.0",
        "name": NAME,
        "type": "container",
        "version": "0.1.0",
    }
    assert {each["purl"] for each in said["components"]} == {
        "pkg:pypi/nsm-chains@0.1.0",
        "pkg:pypi/jinja2@3.1.6",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all&distro=debian-12",
        "pkg:generic/python@3.11.2",
    }
    for each in said["components"]:
        url = PackageURL.from_string(each["purl"])
        assert (url.version, url.name) == (each["version"], each["name"].lower().replace("_", "-"))


def test_the_same_image_gives_the_same_bytes_and_another_one_another_number():
    one = sbom.document(NAME, "0.1.0", FOUND)
    turned = {**FOUND, "python": FOUND["python"][::-1], "debian": FOUND["debian"][::-1]}
    assert sbom.document(NAME, "0.1.0", turned) == one
    assert not re.search(r"20\d\d-\d\d-\d\dT", one), "no time"
    other = sbom.document(NAME, "0.1.0", {**FOUND, "interpreter": "3.11.3"})
    assert json.loads(other)["serialNumber"] != json.loads(one)["serialNumber"]


def test_an_image_says_what_is_in_it(tmp_path):
    """Here by this machine's Python, which reads the status of packages as an image's does."""
    status = tmp_path / "status"
    status.write_text(
        "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-2\nDescription: x: y\n more: z\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nVERSION_ID="12"\n')
    look = sbom.LOOK.replace("/var/lib/dpkg/status", str(status)).replace("/opt/nsm", sys.prefix)
    look = f"import platform; platform._os_release_candidates = ({str(release)!r},)\n{look}"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=20)
    found = json.loads(done.stdout)
    assert found["debian"] == [["bash", "5.2-2", "amd64"]]
    assert ["grpclib", "0.4.9"] in found["python"]
    assert json.loads(sbom.document(NAME, "0.1.0", found))["components"]


def test_an_image_that_was_not_built_is_named(tmp_path, monkeypatch, capsys):
    def fail(image):
        raise subprocess.CalledProcessError(125, ["docker"], stderr="no such image\n")

    monkeypatch.setattr(sbom, "look", fail)
    assert sbom.main(str(tmp_path), ["nsc"]) == 1
    assert "localhost/nsm/nsc:0.1.0 cannot be looked into: no such image; build it" in capsys.readouterr().err


def test_make_has_a_target_for_them():
    done = subprocess.run(["make", "-n", "sbom", "ARGS=nsc"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "scripts/images build nsc" in done.stdout
    assert "scripts.sbom .sbom nsc" in done.stdout
