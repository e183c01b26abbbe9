"""Runs operator commands on a mesh in memory."""

import asyncio
import io
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from nsm.operate import why, wires
from nsm.operate.command import Command, parser_of
from nsm.operate.output import JSON, TABLE, Output
from nsm.operate.target import Target
from nsm.view.sources import ManagerSource


@asynccontextmanager
async def operator_of(mesh):
    async with ManagerSource.connect(mesh.url("nsmgr"), mesh.pool("operator")) as source:
        yield Operator(source)


class Operator:
    """Somebody who knows nothing of a mesh but its commands."""

    def __init__(self, source):
        self._source, self.now = source, datetime.now(UTC)

    async def why(self, name, *, form=TABLE):
        """What `nsm why` prints."""
        await self._settled()
        command = self._command(form)
        found = await why.look_up(command, self._source, name)
        why.show(command.output, found)
        return self._printed(command)

    async def wires(self, *words, form=TABLE):
        """What `nsm wires` prints, and its exit code."""
        await self._settled()
        parser = wires.add_options(parser_of("wires", ""))
        command = self._command(form, parser.parse_args(words))
        code = wires.show(command, await self._source.wires(), await self._source.attempts(), self.now)
        return self._printed(command), code

    @asynccontextmanager
    async def watching(self, *words, form=TABLE):
        """The output of `nsm wires --watch`, which goes on."""
        parser = wires.add_options(parser_of("wires", ""))
        command = self._command(form, parser.parse_args([*words, "--watch"]))
        following = asyncio.ensure_future(wires.follow(command, self._source))
        try:
            yield command.output.out
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _settled(self):
        await asyncio.sleep(0.5)  # of virtual time: what the manager reports has arrived

    def _command(self, form, arguments=None):
        return Command("test", Target(1.0, manager="unix:///m"), Output.to(io.StringIO(), form), arguments)

    def _printed(self, command):
        text = command.output.out.getvalue()
        return json.loads(text) if command.output.form == JSON else text
