"""Records a transcript of a real VPP: every byte that the scenario sends and receives.

python -m tests.forwarder_vpp.record VPP OUT      VPP: the program `vpp`; as root, in a network namespace of its own
"""

import asyncio
import base64
import gzip
import json
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from nsm.forwarder_vpp.api import VPP, known
from tests.forwarder_vpp import scenario
from tests.forwarder_vpp.real import real_vpp

FOLDER = Path(__file__).parent / "transcripts"


class Recorder(VPP):
    """A connection that keeps what passes after the greeting."""

    def _write(self, *messages):
        if self._checksums:
            self.kept.extend((">", data) for data in messages)
        super()._write(*messages)

    def _received(self, data):
        self.kept.append(("<", data))
        super()._received(data)

    @property
    def kept(self):
        return self.__dict__.setdefault("_kept", [])

    def transcript(self):
        """All that a replay needs."""
        names = {number: [message.name, message.checksum] for number, message in self._numbered.items()}
        return Transcript(self.version, self._index, names, self.kept)


class Replay(VPP):
    """A connection to a transcript: what is sent has to be what was sent then, and is answered as then.

    `left` is what was not reached.
    """

    @classmethod
    async def of(cls, transcript):
        """A connection that answers as VPP did."""
        vpp = cls("a transcript", known(), timeout=2.0, in_flight=64)
        vpp.left = deque(transcript.messages)
        vpp._index = transcript.index
        for number, (name, checksum) in transcript.names.items():
            vpp._numbered[number] = known().message(name, checksum)
            vpp._checksums[name] = (checksum, number)
        await vpp._introduce()
        return vpp

    def _write(self, *messages):
        for data in messages:
            direction, expected = self.left.popleft()
            assert (direction, data) == (">", expected), f"{data.hex()} was sent where VPP was sent {expected.hex()}"
        while self.left and self.left[0][0] == "<":
            asyncio.get_running_loop().call_soon(self._received, self.left.popleft()[1])


@dataclass
class Transcript:
    """What passed: the version of VPP, the connection's index, names and checksums by number, (direction, bytes)."""

    version: str
    index: int
    names: dict
    messages: list

    @classmethod
    def read(cls, file):
        said = json.loads(gzip.decompress(file.read_bytes()))
        names = {int(number): name for number, name in said["names"].items()}
        messages = [(one[0], base64.b85decode(one[1:])) for one in said["messages"]]
        return cls(said["version"], said["index"], names, messages)

    def write(self, file):
        """Write it; the same messages give the same bytes."""
        lines = [direction + base64.b85encode(data).decode() for direction, data in self.messages]
        said = {"version": self.version, "index": self.index, "names": self.names, "messages": lines}
        file.write_bytes(gzip.compress(json.dumps(said, sort_keys=True).encode(), mtime=0))


async def main(program, out):
    """Start VPP, ask, and write what passed."""
    with tempfile.TemporaryDirectory() as folder:
        async with real_vpp(folder, links=scenario.LINKS, program=program) as running:
            async with await running.connect(Recorder) as vpp:
                for name, answer in await scenario.run(vpp, tap=False):
                    print(name, answer)
                vpp.transcript().write(Path(out))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
