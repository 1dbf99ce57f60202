"""Plans of small models whose first site takes a region with it."""

from __future__ import annotations

from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.pipeline import Planning, plan_model
from deployconv.rewrites.joining import Reach
from deployconv.rewrites.lowres.region import Region
from deployconv.search.choice import Choice


def planned(
    model: ModelProto, form: Form = "split", shuffle: Shuffle = "crd", chain: Reach = "last"
) -> Planning:
    """``model`` with its first site in this form, and all that joins."""
    loaded = load(model)
    site, *_ = plan_model(loaded, RewriteOptions()).reports
    return plan_model(loaded, RewriteOptions(), {site.id: Choice(form, shuffle, chain)})


def region_of(planning: Planning) -> Region | None:
    """That of the first site."""
    chain = planning.sites[0].chain
    return chain if isinstance(chain, Region) else None
