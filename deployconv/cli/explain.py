"""``deployconv explain``: what a reason code or another word of a report means."""

from __future__ import annotations

import click

from deployconv.errors import UsageError


@click.command
@click.argument("code", metavar="CODE")
def explain(code: str) -> None:
    """Explain why a layer was left alone, and what helps.

    CODE is a reason code such as runtime-weight, or a verdict of a target such as misread, as
    inspect and rewrite show it.
    """
    from deployconv.report.reasons import explanations

    known = explanations()
    if code not in known:
        from difflib import get_close_matches

        near = get_close_matches(code.lower(), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise UsageError(f"{code!r} is not known: {hint}")
    print(f"{code}: {known[code]}")
