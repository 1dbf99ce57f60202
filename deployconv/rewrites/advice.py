"""What a caller asks for one site, such as what its target needs there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployconv.match import Site
from deployconv.options import RewriteOptions
from deployconv.results import Reason, TargetSite


@dataclass(frozen=True)
class Advice:
    """What is asked for one site.

    Attributes:
        options: the options to plan it with, the preferred ones first. Options whose form or
            shuffle does not fit the site give way to the next.
        keep: why it is left alone; None if it is not.
        required: True if it is rewritten whatever a policy finds faster.
        targets: what each target says of it, for reports.
    """

    options: tuple[RewriteOptions, ...]
    keep: Reason | None = None
    required: bool = False
    targets: tuple[TargetSite, ...] = ()


Advise = Callable[[Site], Advice]
"""Returns what is asked for a site."""
