"""``deployconv explain``: what a reason code means, and what helps."""

from __future__ import annotations

import click

from deployconv.errors import UsageError


@click.command
@click.argument("code", metavar="CODE")
def explain(code: str) -> None:
    """Explain why a layer was left alone, and what helps.

    CODE is a reason code such as runtime-weight, as inspect and rewrite show it.
    """
    from deployconv.report.reasons import reasons

    known = reasons()
    if code not in known:
        from difflib import get_close_matches

        near = get_close_matches(code, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise UsageError(f"reason code {code!r} is not known: {hint}")
    print(f"{code}: {known[code]}")
