"""Plans of small models in which each named site has the rewrite that a test asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.match import ShuffleSite, SkippedSite
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify
from deployconv.results import Certificate, Reason
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import Chain, chain_after
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.pixel_shuffle import chain_from, plan_reshuffle, region_from
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import Planning, plan_model
from deployconv.rewrites.region import Region
from deployconv.rewrites.region_search import region_after
from deployconv.rewrites.ways import plan_form
from deployconv.search.choice import Choice, FusionScope

DEFAULTS = RewriteOptions()


def chosen(
    model: ModelProto, choices: Mapping[str, Choice], options: RewriteOptions = DEFAULTS
) -> Planning:
    """``model`` with the sites of these ids in these forms; the search need not offer them."""
    planning = plan_model(load(model), options)
    rewrites = {
        planned.id: rewrite_of(planning, planned, choices[planned.id])
        for planned in planning.default
        if planned.id in choices and planned.selected
    }
    return planning.with_rewrites({name: made for name, made in rewrites.items() if made})


def rewrite_of(planning: Planning, planned: PlannedSite, choice: Choice) -> Rewrite | None:
    """One site in this form; alone if nothing joins it, None if it has no rewrite at all."""
    site, view, excluded = planned.site, planning.view, planning.excluded
    if isinstance(site, SkippedSite):
        return None
    fusion = choice.fusion
    shuffles = planning.joinable_shuffles
    if isinstance(site, ShuffleSite):
        fused: Rewrite | None = None
        if fusion in ("pointwise", "chain"):
            fused = chain_from(site, view, fusion, choice.shuffle, shuffles, excluded)
        elif fusion == "region + conv":
            fused = region_from(site, view, choice.form, choice.shuffle, excluded)
        return fused or _made(plan_reshuffle(site, choice.shuffle))
    alone = _made(plan_form(site, choice.form, choice.shuffle))
    if not isinstance(alone, PolyphaseConv):
        return alone
    alone = replace(alone, channel_split=choice.channel_split)
    if fusion == "none":
        return alone
    if fusion in ("region", "region + conv"):
        peers = planning.joinable_layers
        joined = region_after(alone, view, peers, excluded, fusion == "region + conv")
        return joined or alone
    shuffle = alone.shuffle or "auto"
    return chain_after(alone, view, fusion, shuffle, shuffles, excluded) or alone


def _made(planned: Rewrite | Reason) -> Rewrite | None:
    return None if isinstance(planned, Reason) else planned


def with_first(
    model: ModelProto,
    form: Form = "split",
    shuffle: Shuffle = "crd",
    fusion: FusionScope = "region + conv",
) -> Planning:
    """``model`` with its first site in this form, and all that joins it."""
    site, *_ = plan_model(load(model), DEFAULTS).reports
    return chosen(model, {site.id: Choice(form, shuffle, fusion)})


def chain_of(planning: Planning, site: int = 0) -> Chain | None:
    """The chain that takes the place of a site, the first one unless said."""
    rewrite = planning.sites[site].rewrite
    return rewrite if isinstance(rewrite, Chain) else None


def region_of(planning: Planning) -> Region | None:
    """The region that takes the place of the first site."""
    rewrite = planning.sites[0].rewrite
    return rewrite if isinstance(rewrite, Region) else None


def operators_of(rewrite: Chain | Region) -> list[str]:
    """The operators of its steps, in graph order."""
    return [node.op for step in rewrite.steps for node in step.nodes]


def verdict(rewrite: Rewrite) -> Certificate:
    """What its certificate says."""
    return certify(rewrite, "main/tested").verdict
