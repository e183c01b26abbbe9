"""Makes pages of a site of what is written for the repository: see mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")
_PAGE = re.compile(r"\]\(docs/([^)]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """The README is the first page."""
    text = _PAGE.sub(r"](\1)", (ROOT / "README.md").read_text())
    text = re.sub(r"!\[([^\]]*)\]\(docs/", r"![\1](", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a file beside docs/ names the file, since it is no page; `from=FILE` of a block is for tests."""
    named = _OUTSIDE.sub(lambda found: found[1] if found[2] in found[1] else f"{found[1]} (`{found[2]}`)", markdown)
    return re.sub(r"^```(\w+) from=\S+$", r"```\1", named, flags=re.MULTILINE)
