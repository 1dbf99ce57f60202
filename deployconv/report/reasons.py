"""What each reason code means: the table of docs/reason-codes.md, which the package carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
_PAGE = "reason-codes.md"


@cache
def reasons() -> Mapping[str, str]:
    """The text of every reason code, without the marks of Markdown."""
    packaged = files("deployconv") / "report" / _PAGE
    source = Path(__file__).parents[2] / "docs" / _PAGE  # of a tree that is not installed
    page = packaged if packaged.is_file() else source
    rows = _ROW.findall(page.read_text(encoding="utf-8"))
    return {code: _LINK.sub(r"\1", text).replace("`", "") for code, text in rows}
