"""Text that is safe to print: names in a model are somebody else's."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return ``text`` on one line.

    White space collapses into single blanks; what a terminal or a log would interpret (escape
    sequences, lone surrogates) is shown as a Python escape.
    """
    visible = (c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in text)
    return " ".join("".join(visible).split())
