"""The ways to write a layer: the one that was asked for, and what is tried in its place.

If a target limits what may be written (`Restrictions`), the first way that it takes is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from deployconv.match import ResampleSite, ShuffleSite, UpsampleSite
from deployconv.match.pixel_shuffle import shuffled_conv
from deployconv.options import Form, LayerRequest, Shuffle
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Reason
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.conv import plan_conv
from deployconv.rewrites.matrix import plan_matrix
from deployconv.rewrites.normalised import plan_normalised
from deployconv.rewrites.pixel_shuffle import plan_reshuffle
from deployconv.rewrites.resample import plan_products, plan_resample
from deployconv.rewrites.resample_phases import PHASE_FORMS, Border, plan_phases
from deployconv.rewrites.separable import plan_separable
from deployconv.rewrites.shuffles import SHUFFLES, in_order_of_cost
from deployconv.rewrites.within import broken_by, broken_by_nodes, first_within, listed

MAY_NOT_FIT = ("split", "separable", "matrix")
"""Forms that give way to another one if a layer has no such form."""
RESAMPLE_FORMS = ("matrix", *PHASE_FORMS)
"""The same for an interpolating Resize."""
_WITHOUT_SHUFFLE: tuple[Form, ...] = ("matrix", "normalised")
"""Forms in which no shuffle is written."""
_Plan = Callable[[Form, Shuffle], Rewrite | Reason]
_Way = Rewrite | Reason
"""The rewrite of a layer in one form, or the reason why there is none."""


def plan_form(site: UpsampleSite, form: Form, shuffle: Shuffle) -> Rewrite | Reason:
    """Plan the form that was asked for, or the form `auto` if the layer does not fit it."""
    product: Rewrite | None = None
    if form == "normalised":
        return plan_normalised(site)
    if form == "separable":
        product = plan_separable(site, shuffle)
    elif form == "matrix":
        product = plan_matrix(site)
    return product or plan_conv(site, form, shuffle)


def first_form(request: LayerRequest, restrictions: Restrictions, plan: _Plan) -> Rewrite | Reason:
    """Plan the form and shuffle of ``request``; if they may not be written, the first that may."""
    if restrictions == UNRESTRICTED:
        return plan(request.form, request.shuffle)
    return first_within(_forms(request, restrictions, plan), restrictions)


def _forms(request: LayerRequest, restrictions: Restrictions, plan: _Plan) -> Iterator[_Way]:
    """All forms of a layer, the one that was asked for and the cheapest first."""
    seen = set()
    for form, shuffle in _ways(request, restrictions):
        planned = plan(form, shuffle)
        if isinstance(planned, Reason):
            yield planned
            if form == request.form == "normalised":
                return  # the layer is to stay
            continue
        made = planned.summary
        key = made.form, made.shuffle, made.conv_kernel
        gave_way = made.shuffle not in (None, shuffle) and shuffle != "auto"
        if key not in seen and not gave_way and (form not in MAY_NOT_FIT or form == made.form):
            seen.add(key)
            yield planned


def _ways(request: LayerRequest, restrictions: Restrictions) -> Iterator[tuple[Form, Shuffle]]:
    """The forms and shuffles to try in place of those that were asked for, cheapest first."""
    rows = in_order_of_cost(restrictions)
    if request.form in _WITHOUT_SHUFFLE or not restrictions.shuffle_in_twos:
        yield request.form, request.shuffle
    forms: list[Form] = ["auto", "pad", "split"]
    if request.form not in _WITHOUT_SHUFFLE:
        forms.insert(0, request.form)
    for last_resort in (False, True):
        names: list[Shuffle] = [row.name for row in rows if row.last_resort == last_resort]
        if request.shuffle != "auto":
            names.insert(0, request.shuffle)
        yield from product(forms, names)
    for form in _WITHOUT_SHUFFLE:
        yield form, "auto"


def resampled(site: ResampleSite, request: LayerRequest) -> Rewrite | Reason:
    """A Resize in the form that was asked for, or in the first that may be written."""
    planned = plan_resample(site, request.form, request.shuffle)
    if site.restrictions == UNRESTRICTED:
        return planned
    return first_within([planned, *_resamples(site, request.form)], site.restrictions)


def _resamples(site: ResampleSite, asked: Form) -> Iterator[_Way]:
    """All forms of a Resize, the one that was asked for first."""
    if asked not in PHASE_FORMS:
        yield plan_products(site)
    borders: tuple[Border, ...] = ("pad", "slices")
    names = [row.name for row in in_order_of_cost(site.restrictions)]
    forms = sorted(PHASE_FORMS, key=lambda form: form != asked)
    for form, border, name in product(forms, borders, names):
        planned = plan_phases(site, form, name, border)
        if isinstance(planned, Reason) or planned.summary.shuffle in (None, name):
            yield planned
    yield plan_products(site)


def reencoded(site: ShuffleSite, request: LayerRequest) -> Rewrite | Reason:
    """A pixel shuffle in the encoding that was asked for, or in the first that may be written.

    One that may be written as it is stays so if the encoding may not.
    """
    planned = plan_reshuffle(site, request.shuffle)
    restrictions = site.restrictions
    if restrictions == UNRESTRICTED:
        return planned
    broken = broken_by_nodes(site.nodes, restrictions)
    if not broken:
        if not isinstance(planned, Reason) and broken_by(planned, restrictions):
            return Reason(
                "already-lowered", "it is a pixel shuffle already, which the target takes"
            )
        return planned
    if not site.movable:
        text = "its channels are the last axis, and as it stands it needs"
        return Reason("target-restrictions", f"{text} {listed(broken)}")
    names = dict.fromkeys((request.shuffle, *(row.name for row in in_order_of_cost(restrictions))))
    encoded = [(name, plan_reshuffle(site, name)) for name in names]
    possible: list[_Way] = [
        one
        for name, one in encoded
        if not isinstance(one, Reason) and name in ("auto", one.shuffle)
    ]
    possible += _phase_by_phase(site)
    return first_within(possible or [planned], restrictions)


def _phase_by_phase(site: ShuffleSite) -> Iterator[_Way]:
    """The Conv before a pixel shuffle and the shuffle, with one Conv per phase."""
    layer = shuffled_conv(site) if site.is_depth_to_space else None
    for row in SHUFFLES.values():
        if layer is not None and row.joins is not None:
            joint = replace(layer, restrictions=site.restrictions)
            planned = plan_conv(joint, "split", row.name)
            if not isinstance(planned, Reason) and planned.form == "split":
                yield planned
