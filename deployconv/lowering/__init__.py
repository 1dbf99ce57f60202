"""From a site and a form to nodes and weights. Knows nothing of how sites are found."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from deployconv.lowering.lower import lower
from deployconv.lowering.plan import Plan, plan_site
from deployconv.lowering.reshuffle import ShufflePlan, plan_shuffle, reshuffle
from deployconv.sites import ShuffleSite, UpsampleSite

__all__ = ["Plan", "ShufflePlan", "lower", "new_nodes", "plan_shuffle", "plan_site", "reshuffle"]


def new_nodes(
    site: UpsampleSite | ShuffleSite, plan: Plan | ShufflePlan, fresh: Callable[[str], str]
) -> list[gs.Node]:
    """The nodes that take the place of ``site``; ``plan`` is one for its kind of site."""
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        return lower(site, plan, fresh)
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        return reshuffle(site, plan, fresh)
    raise TypeError(f"{type(plan).__name__} is no plan for {type(site).__name__}")
