"""From a site and a form to nodes and weights. Knows nothing of how sites are found."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from deployconv.match import ShuffleSite, UpsampleSite
from deployconv.rewrites.lowering.chain import ChainPlan, lower_chain, plan_chain
from deployconv.rewrites.lowering.lower import lower, with_folded
from deployconv.rewrites.lowering.matrix import MatrixPlan, lower_matrix, plan_matrix
from deployconv.rewrites.lowering.plan import Plan, plan_site
from deployconv.rewrites.lowering.region import RegionPlan, lower_region, plan_region
from deployconv.rewrites.lowering.reshuffle import ShufflePlan, plan_shuffle, reshuffle
from deployconv.rewrites.lowering.separable import SeparablePlan, lower_separable, plan_separable
from deployconv.rewrites.lowres.chain import Chain
from deployconv.rewrites.lowres.region import Region

__all__ = [
    "AnyPlan",
    "ChainPlan",
    "MatrixPlan",
    "Plan",
    "RegionPlan",
    "SeparablePlan",
    "ShufflePlan",
    "Subject",
    "lower",
    "lower_chain",
    "lower_matrix",
    "lower_region",
    "lower_separable",
    "new_nodes",
    "plan_chain",
    "plan_matrix",
    "plan_region",
    "plan_separable",
    "plan_shuffle",
    "plan_site",
    "reshuffle",
    "with_folded",
]


Subject = UpsampleSite | ShuffleSite | Chain | Region
"""What can be lowered."""

AnyPlan = Plan | SeparablePlan | MatrixPlan | ShufflePlan | ChainPlan | RegionPlan
"""How, each kind for its own kind of subject."""


def new_nodes(site: Subject, plan: AnyPlan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that take the place of ``site``; ``plan`` is one for its kind."""
    if isinstance(site, Chain) and isinstance(plan, ChainPlan):
        return lower_chain(site, plan, fresh)
    if isinstance(site, Region) and isinstance(plan, RegionPlan):
        return lower_region(site, plan, fresh)
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        return lower(site, plan, fresh)
    if isinstance(site, UpsampleSite) and isinstance(plan, SeparablePlan):
        return lower_separable(site, plan, fresh)
    if isinstance(site, UpsampleSite) and isinstance(plan, MatrixPlan):
        return lower_matrix(site, plan, fresh)
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        return reshuffle(site, plan, fresh)
    raise TypeError(f"{type(plan).__name__} is no plan for {type(site).__name__}")
