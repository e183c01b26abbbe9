"""Keeps the rules of a file in force, and reads what they count."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.config.watched_file import Watch
from nsm.chains.core import MeshError, NotFound
from nsm.chains.logs import log
from nsm.services import nft

from .rules import Rules, RulesError, read_rules
from .ruleset import ANSWERS, BRIDGE, INET, OTHERS, TABLE, counters_of, transaction

LOOK_EVERY = 1.0
"""Seconds between checks of the file."""


@dataclass(frozen=True, slots=True)
class Count:
    """What a rule has decided, over all wires; ``(answers)`` and ``(others)`` are those of no rule."""

    rule: str
    packets: int
    bytes: int


class Firewall:
    """The rules of the file at `path`, in this process's network namespace.

    A file that cannot be used is reported with its lines, and the rules before stay in force.
    """

    def __init__(self, path: str) -> None:
        self._path, self._watch = path, Watch(path)
        self._rules: Rules | None = None
        self._tracked: tuple[str, ...] = (BRIDGE, INET)
        self._refused = ""

    async def open(self) -> None:
        """Put the rules in force. Raises `MeshError` if that is impossible: there is no firewall without rules."""
        self._watch.has_changed()
        nft.program()
        rules = self._read()
        try:
            await self._apply(rules)
        except nft.NftError as error:  # a kernel may track only IP: `nf_conntrack_bridge` is a module of its own
            self._tracked = (INET,)
            log.info("Ethernet is filtered without tracking connections", reason=error.detail)
            await self._apply(rules)

    async def watch(self) -> None:
        """Read the file again whenever it changes, endlessly."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._watch.has_changed():
                await self.reload()

    async def reload(self) -> None:
        """Read the file now; rules that cannot be used are logged."""
        try:
            rules = self._read()
            if rules == self._rules:
                return
            await self.log_counts()
            await self._apply(rules)
        except MeshError as error:
            if str(error) != self._refused:
                log.warning("the rules cannot be used; those before stay in force", error=str(error))
            self._refused = str(error)

    async def counts(self) -> list[Count]:
        """What the rules in force have counted. Raises `MeshError`."""
        names = {**counters_of(self._rules or Rules(())), ANSWERS: f"({ANSWERS})", OTHERS: f"({OTHERS})"}
        found = dict.fromkeys(names, (0, 0))
        for family in (BRIDGE, INET):
            for item in await nft.read("counters", "table", family, TABLE):
                if (counter := item.get("counter")) is not None and counter["name"] in found:
                    packets, size = found[counter["name"]]
                    found[counter["name"]] = packets + counter["packets"], size + counter["bytes"]
        return [Count(names[counter], *numbers) for counter, numbers in found.items()]

    async def log_counts(self) -> None:
        """Log them, a line for each rule that has counted anything."""
        try:
            for count in await self.counts():
                if count.packets:
                    log.info("counted", rule=count.rule, packets=count.packets, bytes=count.bytes)
        except MeshError as error:
            log.warning("the counters of rules cannot be read", error=str(error))

    def _read(self) -> Rules:
        try:
            return read_rules(Path(self._path).read_text(encoding="utf-8"), self._path)
        except OSError as error:
            raise NotFound(f"{self._path} cannot be read: {os.strerror(error.errno or 0)}") from None
        except UnicodeDecodeError:
            raise BadRules(f"{self._path}: the file is not UTF-8 text") from None
        except RulesError as error:
            raise BadRules("; ".join(str(error).splitlines())) from None

    async def _apply(self, rules: Rules) -> None:
        former = counters_of(self._rules) if self._rules is not None else {}
        await nft.change(transaction(rules, tracked=self._tracked, former=former, is_first=self._rules is None))
        self._rules, self._refused = rules, ""
        log.info("rules in force", path=self._path, rules=len(rules.rules))


class BadRules(MeshError):
    """The file of rules cannot be used."""
