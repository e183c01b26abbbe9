"""Printing for people and for programs: tables, colours on terminals only, JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from nsm.chains.terminal import escaped

TABLE, WIDE, JSON = "table", "wide", "json"
GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"
_GAP = "  "


@dataclass(frozen=True)
class Cell:
    """A text of a table with its colour."""

    text: str
    color: str = ""


@dataclass(frozen=True)
class Output:
    """Where and how a command prints. Every text is escaped: names come from workloads."""

    out: TextIO
    form: str
    is_colored: bool

    @classmethod
    def to(cls, out: TextIO, form: str = TABLE, environment: Mapping[str, str] | None = None) -> Output:
        """For `out`; coloured if that is a terminal and NO_COLOR is not set."""
        environment = os.environ if environment is None else environment
        return cls(out, form, out.isatty() and not environment.get("NO_COLOR"))

    @property
    def is_json(self) -> bool:
        """Whether the output is for programs."""
        return self.form == JSON

    @property
    def is_wide(self) -> bool:
        """Whether tables have all columns."""
        return self.form == WIDE

    @property
    def has_marks(self) -> bool:
        """Whether the output can show more than ASCII."""
        try:
            "√→".encode(getattr(self.out, "encoding", None) or "utf-8")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def line(self, text: str = "", color: str = "") -> None:
        """Print one line."""
        print(self.painted(escaped(text), color), file=self.out, flush=True)

    def parts(self, parts: Iterable[str | Cell]) -> None:
        """Print one line that consists of `parts`."""
        cells = [part if isinstance(part, Cell) else Cell(part) for part in parts]
        print("".join(self.painted(escaped(cell.text), cell.color) for cell in cells), file=self.out, flush=True)

    def json(self, value: Any) -> None:
        """Print `value` as JSON, on one line: a stream of values has one on each."""
        print(json.dumps(value), file=self.out, flush=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> None:
        """Print a table; columns that are empty in all rows are left out."""
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        texts = [[escaped(cell.text) for cell in row] for row in cells]
        used = [place for place in range(len(heads)) if any(row[place] for row in texts)] or [*range(len(heads))]
        widths = {place: max(len(heads[place]), *(len(row[place]) for row in texts), 0) for place in used}
        print(_GAP.join(f"{heads[place]:<{widths[place]}}" for place in used).rstrip(), file=self.out)
        for row, shown in zip(cells, texts, strict=True):
            line = (self.painted(f"{shown[place]:<{widths[place]}}", row[place].color) for place in used)
            print(_GAP.join(line).rstrip(), file=self.out)
        self.out.flush()

    def painted(self, text: str, color: str) -> str:
        """`text` in a colour, if the output is coloured."""
        return f"\033[{color}m{text}\033[0m" if color and self.is_colored else text
