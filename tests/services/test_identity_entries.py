"""`nsm identity` as a process: who is known can change while it runs, and its authority outlives it."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from nsm.chains.identity.source import identity_from


class Issuer:
    def __init__(self, folder):
        self.folder = folder
        self.entries = folder / "entries"
        self.process = None

    def start(self):
        environment = {
            **os.environ,
            "NSM_ENTRIES_FILE": str(self.entries),
            "NSM_AUTHORITY_FILE": f"{self.folder}/a.pem",
        }
        command = [sys.executable, "-m", "nsm.chains", "identity"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.until('"ready"')

    def until(self, text):
        for line in self.process.stderr:
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text}")

    def know(self, *names):
        self.entries.write_text("".join(f"socket:{self.socket(name)}=spiffe://test.mesh/{name}\n" for name in names))

    def socket(self, name):
        return self.folder / name

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    async def svid(self, name):
        async with asyncio.timeout(5), identity_from(f"unix://{self.socket(name)}", token_lifetime=60) as identity:
            return identity.svid

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=10)


@pytest.fixture
def issuer(tmp_path):
    issuer = Issuer(tmp_path)
    issuer.know("one")
    issuer.start()
    yield issuer
    issuer.stop()


async def test_a_hangup_has_the_entries_read_again(issuer):
    """A new one is served, one that is gone is not, the others go on."""
    issuer.know("one", "two")
    issuer.hang_up()
    assert '"sockets": 2' in issuer.until("entries read")
    assert (await issuer.svid("two")).spiffe_id == "spiffe://test.mesh/two"
    issuer.know("two")
    issuer.hang_up()
    issuer.until("entries read")
    assert not issuer.socket("one").exists()
    assert (await issuer.svid("two")).spiffe_id == "spiffe://test.mesh/two"


async def test_a_faulty_file_changes_nothing(issuer):
    issuer.entries.write_text("nonsense\n")
    issuer.hang_up()
    assert "expected socket:" in issuer.until("the entries are unchanged")
    assert (await issuer.svid("one")).spiffe_id == "spiffe://test.mesh/one"


async def test_an_entry_whose_socket_cannot_be_served_ends_none_of_the_others(issuer):
    issuer.socket("a-file").touch()
    issuer.know("a-file", "one", "two")
    issuer.hang_up()
    assert "a file is there that is not a socket" in issuer.until("not all entries can be served")
    assert '"sockets": 2' in issuer.until("entries read")
    assert (await issuer.svid("one")).spiffe_id == "spiffe://test.mesh/one"
    assert (await issuer.svid("two")).spiffe_id == "spiffe://test.mesh/two"
    issuer.socket("a-file").unlink()
    issuer.hang_up()
    assert '"sockets": 3' in issuer.until("entries read")


async def test_the_authority_is_the_same_after_a_restart(issuer):
    """Who got an identity before and who gets one after trust each other."""
    before = await issuer.svid("one")
    issuer.stop()
    issuer.start()
    after = await issuer.svid("one")
    assert before.leaf.issuer == after.leaf.issuer
    assert before.leaf.public_key() != after.leaf.public_key()
    after.leaf.verify_directly_issued_by(issuer_certificate(issuer))
    before.leaf.verify_directly_issued_by(issuer_certificate(issuer))


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("NSM_AUTHORITY_FILE", "{file}/a.pem", "NSM_AUTHORITY_FILE='{file}/a.pem' cannot be used: "),
        ("NSM_LISTEN_ON", "{file}/s", "cannot listen on unix://{file}/s: Not a directory"),
        ("NSM_LISTEN_ON", "/proc/none/s", "cannot listen on unix:///proc/none/s: No such file or directory"),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, variable, value, told):
    file = tmp_path / "a-file"
    file.touch()
    environment = {**os.environ, "NSM_LISTEN_ON": f"{tmp_path}/s", variable: value.format(file=file)}
    command = [sys.executable, "-m", "nsm.chains", "identity"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert told.format(file=file) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def issuer_certificate(issuer):
    from cryptography import x509

    return x509.load_pem_x509_certificate((issuer.folder / "a.pem").read_bytes())
