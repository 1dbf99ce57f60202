"""What the words of reports mean: tables of the docs, which the package carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
_DLA_TABLE = re.compile(r"^\| code \| what the DLA accepts \|\n((?:\|.*\n)+)", re.MULTILINE)


@cache
def explanations() -> Mapping[str, str]:
    """The text of every reason code and other word of a report, without the marks of Markdown."""
    dla = _DLA_TABLE.search(_page("jetson-and-dla.md"))
    rows = {code: f"What the DLA accepts: {text}." for code, text in _rows(dla[1] if dla else "")}
    return {**dict(_rows(_page("reason-codes.md"))), **rows}


def _rows(table: str) -> list[tuple[str, str]]:
    """Return the words and the texts of a Markdown table: its first and second column."""
    return [(word, _LINK.sub(r"\1", text).replace("`", "")) for word, text in _ROW.findall(table)]


def _page(name: str) -> str:
    """A page of the docs: of the package, or of a tree that is not installed."""
    packaged = files("deployconv") / "report" / name
    source = Path(__file__).parents[2] / "docs" / name
    page = packaged if packaged.is_file() else source
    return page.read_text(encoding="utf-8")
