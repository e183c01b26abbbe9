"""The distributions as wheels: each with its own files and needs only, and usable without the others."""

import re
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["apis", "chains", "forwarder-kernel", "forwarder-sriov", "forwarder-vpp", "services", "webhook"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Built from the folders; the build backend is that of the environment."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, *[f"./{part}" for part in PARTS]], cwd=ROOT, check=True, timeout=50)
    return {path.name.split("-")[0].removeprefix("nsm_").replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """What the environment has of others: none of ours, and not what only an extra needs."""
    folder = tmp_path_factory.mktemp("libraries")
    extra = ("yaml", "PyYAML", "pyyaml", "_yaml", "pyroute2")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("nsm", "__editable__", "_nsm", *extra)) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def installed(wheels, libraries, tmp_path):
    """Runs Python with nothing but some wheels and the libraries."""

    def run(parts, *words, code=0):
        for part in parts:
            with zipfile.ZipFile(wheels[part]) as wheel:
                wheel.extractall(tmp_path)
        start = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(libraries)!r}]; "
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", start + words[0], *words[1:]],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


NSM = "from nsm.chains.cli import main; sys.exit(main())"


def metadata(wheel):
    with zipfile.ZipFile(wheel) as files:
        return files.read(next(name for name in files.namelist() if name.endswith("/METADATA"))).decode()


def files_of(wheel):
    with zipfile.ZipFile(wheel) as files:
        return [name for name in files.namelist() if ".dist-info/" not in name]


def test_every_file_is_in_one_wheel_and_the_namespace_belongs_to_none(wheels):
    assert sorted(wheels) == sorted(PARTS)
    count = Counter(name for wheel in wheels.values() for name in files_of(wheel))
    assert set(count.values()) == {1}
    assert all(name.startswith("nsm/") for name in count)
    assert "nsm/__init__.py" not in count
    for part in (
        "apis",
        "chains",
        "services",
        "kube",
        "forwarder_kernel",
        "forwarder_sriov",
        "forwarder_vpp",
        "mesh",
        "webhook",
    ):
        assert f"nsm/{part}/py.typed" in count


def test_our_own_distributions_are_pinned_to_each_other(wheels):
    for wheel in wheels.values():
        version = re.search(r"^Version: (.*)$", metadata(wheel), re.M)[1]
        for needed in re.findall(r"^Requires-Dist: (nsm-.*?)(?:;.*)?$", metadata(wheel), re.M):
            assert needed.strip().endswith(f"=={version}"), needed


def test_the_sdk_serves_without_services(installed):
    """`pip install ./apis ./chains` is all that a custom endpoint needs."""
    example = (ROOT / "examples/custom_endpoint.py").read_text()
    installed(["apis", "chains"], f"exec(compile({example!r}, 'e', 'exec'), {{'__name__': 'example'}})")
    assert "nsm health" in installed(["apis", "chains"], NSM, "--help").stdout
    refused = installed(["apis", "chains"], NSM, "registry", code=2).stderr
    assert (
        "the commands are completion, health; nsm-services, nsm-forwarder-kernel, nsm-forwarder-sriov and nsm-webhook add more"
        in refused
    )


STAGES = ["nse-passthrough", "nse-firewall", "nse-supplier"]


@pytest.mark.parametrize(
    "component", ["registry", "nsmgr", "nse", "nse-remote-vlan", "ipam", *STAGES, "nsc", "identity"]
)
def test_services_need_neither_the_mesh_nor_a_forwarder(installed, component):
    assert "NSM_NAME" in installed(["apis", "chains", "services"], NSM, component, "--help").stdout


def test_the_help_of_services_says_what_the_mesh_needs(installed):
    shown = installed(["apis", "chains", "services"], NSM, "--help").stdout
    assert re.search(r"nsm registry +Keeps|nsm registry +\w", shown)
    assert "pipinstall'nsm-services[mesh]'" in "".join(shown.split())  # wherever its line is wrapped


def test_the_webhook_is_a_command_of_its_own_distribution(installed):
    """With the API client's libraries, which an extra of the services brings."""
    parts = ["apis", "chains", "services", "webhook"]
    with_extra = f"sys.path.append({sysconfig.get_path('purelib')!r}); {NSM}"
    assert "NSM_CONTAINER_IMAGES" in installed(parts, with_extra, "webhook", "--help").stdout


@pytest.mark.parametrize("words", [["demo"], ["mesh", "up"]])
def test_a_mesh_without_what_it_needs_says_what_to_install(installed, words):
    told = installed(["apis", "chains", "services"], NSM, *words, code=1).stderr
    assert told == f"nsm {words[0]}: the module yaml is missing: pip install 'nsm-services[mesh]'\n"


def test_traces_without_what_they_need_say_what_to_install(installed, libraries):
    """An exporter that is not installed is no traceback."""
    script = (
        "import os; os.environ.update(NSM_LISTEN_ON='/proc/none/s', TELEMETRY='true'); "
        "sys.modules['opentelemetry.sdk'] = None; " + NSM
    )
    told = installed(["apis", "chains", "services"], script, "identity", code=1).stderr
    assert "install nsm-chains[otlp]" in told
    assert "Traceback" not in told


def test_every_wheel_has_the_licence(wheels):
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as files:
            (licence,) = [name for name in files.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
            assert files.read(licence) == (ROOT / "LICENSE").read_bytes()
