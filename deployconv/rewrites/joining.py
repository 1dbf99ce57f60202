"""A planned site, and the layers behind it that are lowered with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from deployconv.graph.view import View
from deployconv.match import ShuffleSite, Site, SkippedSite, UpsampleSite
from deployconv.match.pixel_shuffle import shuffled_conv
from deployconv.options import Form, Shuffle
from deployconv.results import SiteReport
from deployconv.rewrites.lowering import (
    AnyPlan,
    ChainPlan,
    Plan,
    RegionPlan,
    Subject,
    plan_chain,
    plan_region,
    plan_site,
)
from deployconv.rewrites.lowres.chain import Chain, chain_behind
from deployconv.rewrites.lowres.quantized import first_grid, without_last_dequantize
from deployconv.rewrites.lowres.region import Region, region_behind

Reach = Literal["none", "grid", "pointwise", "all", "region", "last"]
"""Which layers behind a site run before its shuffle.

``grid``: up to the first QuantizeLinear; ``pointwise``, ``all``: a chain, the latter with
layers that mix channels; ``region``: see `lowres.region`; ``last``: that with a Conv that mixes
neighbours at its end.
"""


class Choice(Protocol):
    """The form and the shuffle of one site, and which layers behind it run before the shuffle."""

    @property
    def form(self) -> Form: ...
    @property
    def shuffle(self) -> Shuffle: ...
    @property
    def chain(self) -> Reach: ...
    @property
    def halves(self) -> bool: ...


Peer = UpsampleSite | ShuffleSite
"""What may be lowered together with another site."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A site with its report; ``plan`` is None where it is left alone.

    ``chain`` has the layers behind the site that are lowered with it; ``head`` names the site
    whose chain this one has joined; ``found`` is the site as it was recognised, where Slices
    behind it are lowered with it.
    """

    site: Site
    report: SiteReport
    plan: AnyPlan | None = None
    chain: Chain | Region | None = None
    head: str | None = None
    found: Site | None = None

    @property
    def subject(self) -> Subject | None:
        """What ``plan`` is for."""
        if self.plan is None or isinstance(self.site, SkippedSite):
            return None
        return self.chain or self.site


def not_selected(planned: Iterable[Planned]) -> set[int]:
    """The nodes, by id, of the sites that the call leaves alone: no chain may take them in."""
    return {
        id(item.site.layer)
        for item in planned
        if item.report.reason is not None and item.report.reason.code == "not-selected"
    }


def peers(planned: Iterable[Planned], barred: Collection[int] = ()) -> tuple[Peer, ...]:
    """The sites that a chain or a region may take in."""
    sites = (item.site for item in planned if id(item.site.layer) not in barred)
    return tuple(site for site in sites if not isinstance(site, SkippedSite))


def with_chain(
    planned: Planned,
    view: View,
    choice: Choice,
    barred: Collection[int] = (),
    others: Collection[Peer] = (),
) -> Planned:
    """The site with the layers behind it, as far as ``choice`` says; as it is where none join.

    ``others`` are the sites that may become part of a region, pixel shuffles of a chain. Shuffle
    and form of ``choice`` are for a site that is a pixel shuffle itself, and for its Conv; others
    have them in their plan.
    """
    site, plan, reach = planned.site, planned.plan, choice.chain
    if isinstance(site, ShuffleSite) and reach in ("pointwise", "all"):
        return _with_shuffle_first(planned, site, view, choice, barred, others)
    if isinstance(site, ShuffleSite) and reach == "last":
        return _with_last_behind_shuffle(planned, site, view, choice, barred)
    if reach == "none" or not isinstance(site, UpsampleSite) or not isinstance(plan, Plan):
        return planned
    chain: Chain | Region | None
    whole: ChainPlan | RegionPlan | None
    if reach in ("region", "last"):
        sites = [other for other in others if isinstance(other, UpsampleSite)]
        cropped = plan.layout.cropped
        chain = region_behind(site, view, sites, barred, last=reach == "last", cropped=cropped)
        whole = plan_region(chain, plan) if chain is not None else None
    else:
        shuffles = [other for other in others if isinstance(other, ShuffleSite)]
        chain = chain_behind(site, view, reach == "all", shuffles, barred)
        chain, whole = _longest(chain, plan, plan.shuffle or "auto", reach)
    if chain is None or whole is None:
        return planned
    return _with(planned, chain, whole)


def _with(planned: Planned, chain: Chain | Region, whole: ChainPlan | RegionPlan) -> Planned:
    nodes = tuple(chain.scope.label(node) for node in chain.nodes)
    report = replace(planned.report, nodes=nodes, shuffle=whole.shuffle)
    return replace(planned, report=report, plan=whole, chain=chain)


def _with_shuffle_first(
    planned: Planned,
    site: ShuffleSite,
    view: View,
    choice: Choice,
    barred: Collection[int],
    others: Collection[Peer],
) -> Planned:
    """A Conv, its pixel shuffle and what is behind: the Conv heads a chain as one of stride 1."""
    layer = site.conv.layer if site.conv is not None else None
    head = plan_site(layer) if layer is not None else None
    if layer is None or not isinstance(head, Plan):
        return planned
    shuffles = [site, *(other for other in others if isinstance(other, ShuffleSite))]
    chain = chain_behind(layer, view, choice.chain == "all", shuffles, barred)
    chain, whole = _longest(chain, head, choice.shuffle, choice.chain)
    if chain is None or whole is None or len(chain.links) < 2:
        return planned
    report = replace(
        planned.report, status="rewritten", reason=None, conv_kernel=planned.report.kernel
    )
    return _with(replace(planned, report=report), chain, whole)


def _with_last_behind_shuffle(
    planned: Planned,
    site: ShuffleSite,
    view: View,
    choice: Choice,
    barred: Collection[int],
) -> Planned:
    """A Conv and its pixel shuffle as one layer, with what is behind up to a Conv at the end."""
    layer = shuffled_conv(site)
    plan = plan_site(layer, choice.form, choice.shuffle) if layer is not None else None
    if layer is None or not isinstance(plan, Plan):
        return planned
    region = region_behind(layer, view, (), barred, last=True, cropped=plan.layout.cropped)
    whole = plan_region(region, plan) if region is not None else None
    if region is None or whole is None:
        return planned
    report = replace(
        planned.report,
        status="rewritten",
        reason=None,
        form=plan.form,
        conv_kernel=plan.conv_kernel,
    )
    return _with(replace(planned, report=report), region, whole)


def _longest(
    chain: Chain | None, head: Plan, shuffle: Shuffle, reach: Reach
) -> tuple[Chain | None, ChainPlan | None]:
    """As much of ``chain`` as there is a plan for, and the plan."""
    while chain is not None:
        cut = first_grid(chain) if reach == "grid" else without_last_dequantize(chain)
        whole = plan_chain(cut, head, shuffle) if cut is not None else None
        if whole is not None:
            return cut, whole
        chain = chain.before_last_level()
    return None, None
