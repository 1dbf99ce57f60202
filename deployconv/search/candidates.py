"""The forms that one site could take, besides staying as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import prod

from deployconv.graph.view import View
from deployconv.match import ShuffleSite, SkippedSite, UpsampleSite
from deployconv.options import Form, Shuffle
from deployconv.results import Reason
from deployconv.rewrites.joining import Peer, Planned
from deployconv.rewrites.lowering import (
    Plan,
    ShufflePlan,
    plan_matrix,
    plan_separable,
    plan_shuffle,
    plan_site,
)
from deployconv.rewrites.lowering.shuffle import ShuffleName
from deployconv.search.behind import Behind, has_integers
from deployconv.search.choice import Choice, Option

_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "two-step", "dcr", "crd", "transpose")
"""Likely winners first."""
_SPLIT_WORK = 0.9
"""Several Convs are worth their calls, and the room for parts and whole, with this much to do."""
_HALVED = 64
"""Output channels of which a half is still enough for a Conv."""
_SPLIT_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "dcr")
"""The one reads the phases of a channel side by side, the other all channels of a phase."""
_MOVED = 64
"""Multiplications of matrices that take as long as moving an element, roughly."""
_MORE_WORK = 1.6
"""A form with this many times the multiplications of the smallest is not worth a measurement."""


def options_for(
    planned: Planned,
    view: View,
    barred: Collection[int] = (),
    form: Form = "auto",
    shuffle: Shuffle = "auto",
    others: Collection[Peer] = (),
) -> list[Option]:
    """Every plan worth timing for a site, each once.

    Args:
        planned: the site.
        view: what it was found in.
        barred: ids of nodes that no chain takes in.
        form: the only one to try, where it matters to the site.
        shuffle: the only one to try, where the site needs one.
        others: the sites that may become part of a chain or region.
    """
    site = planned.site
    if isinstance(site, SkippedSite):
        return []
    apart = [*_separable(site, form, shuffle), *_matrix(site, form, shuffle)]
    if form in ("separable", "matrix"):
        if apart:
            return apart
        form = "auto"
    names: tuple[ShuffleName, ...] = _SHUFFLES if shuffle == "auto" else (shuffle,)
    if shuffle == "auto" and has_integers(site):
        names = ("channels-last", *_SHUFFLES)
    if isinstance(site, ShuffleSite):
        found = list(_shuffles(site, names))
    else:
        found = list(_forms(site, form, shuffle, names))
    spelled = {option.plan.shuffle for option in found}
    if spelled & {"dcr", "crd", "two-step"}:  # the general Transpose is slower than any of them
        found = [option for option in found if option.plan.shuffle != "transpose"]
    behind = Behind(planned, view, barred, others)
    if isinstance(site, ShuffleSite):
        return [*found, *behind.a_shuffle(names)]
    chained = list(behind.chains(found))
    if any(option.choice.chain == "grid" for option in chained):
        return chained
    # An integer layer without its QuantizeLinear is a float one.
    if shuffle == "auto":
        found = [option for option in found if option.plan.shuffle != "channels-last"]
    return [*found, *apart, *chained, *behind.regions(found)]


def _shuffles(site: ShuffleSite, names: Sequence[ShuffleName]) -> Iterator[Option]:
    for name in names:
        plan = plan_shuffle(site, name)
        if isinstance(plan, ShufflePlan) and plan.shuffle == name:
            yield Option(Choice("auto", name), site, plan)


def _forms(
    site: UpsampleSite, form: Form, shuffle: Shuffle, names: Sequence[ShuffleName]
) -> Iterator[Option]:
    plain = plan_site(site, form, shuffle)
    if isinstance(plain, Plan) and plain.shuffle is None:
        yield Option(Choice("auto", "auto"), site, plain)
        return
    seen = set()
    smallest: Plan | None = None
    forms: tuple[Form, ...] = ("crop", "pad", "split") if form == "auto" else (form,)
    for asked in forms:
        for name in names:
            plan = plan_site(site, asked, name)
            if isinstance(plan, Reason) or plan.shuffle != name:
                continue
            smallest = smallest or plan
            fits = form != "auto" or _is_worth_it(plan, smallest)
            roomy = not fits and _saves_crop(plan, smallest)
            if (fits or roomy) and (plan.form == "split", plan.axes, name) not in seen:
                seen.add((plan.form == "split", plan.axes, name))
                yield Option(Choice(asked, name), site, plan, roomy)
                if roomy and site.channels[1] >= _HALVED:
                    choice = Choice(asked, name, halves=True)
                    yield Option(choice, site, replace(plan, halves=True))


def _separable(site: UpsampleSite | ShuffleSite, form: Form, shuffle: Shuffle) -> Iterator[Option]:
    """One axis after the other, where that multiplies less: the quickest spelling, the portable."""
    if isinstance(site, ShuffleSite) or form not in ("auto", "separable"):
        return
    names: tuple[ShuffleName, ...] = ("col2im", "transpose") if shuffle == "auto" else (shuffle,)
    whole = plan_site(site, "crop", shuffle)
    for name in names:
        plan = plan_separable(site, name)
        if plan is None or plan.shuffle != name or not isinstance(whole, Plan):
            continue
        if form == "separable" or plan.macs.after < whole.macs.after:
            yield Option(Choice("separable", name), site, plan)


def _matrix(site: UpsampleSite | ShuffleSite, form: Form, shuffle: Shuffle) -> Iterator[Option]:
    """Products of matrices, where what they multiply may take less time than what others move."""
    if isinstance(site, ShuffleSite) or form not in ("auto", "matrix"):
        return
    plan, whole = plan_matrix(site), plan_site(site, "crop")
    if plan is None or not isinstance(whole, Plan) or (form == "auto" and shuffle != "auto"):
        return
    moved = site.channels[1] * site.phases
    if form == "matrix" or plan.macs.after <= whole.macs.after + _MOVED * moved:
        yield Option(Choice("matrix", "auto"), site, plan)


def _is_worth_it(plan: Plan, smallest: Plan) -> bool:
    """Whether ``plan`` may be faster than the one with the smallest kernel, judged by its work."""
    if plan.form != "split":
        return plan.macs.after <= _MORE_WORK * smallest.macs.after
    # They crop nothing; what the other crops has been multiplied, too.
    fewer = _multiplications(plan) <= _SPLIT_WORK * _multiplications(smallest)
    return fewer and plan.shuffle in _SPLIT_SHUFFLES


def _saves_crop(plan: Plan, smallest: Plan) -> bool:
    """Whether one Conv a phase may be faster only because nothing is left to crop.

    Their results are concatenated, and with them there may be more to hold at once; but a Slice
    of a large image takes longer than that.
    """
    cropped = smallest.layout.cropped and smallest.layout.stride == (2, 2)
    return plan.form == "split" and plan.shuffle == "col2im" and smallest.volume and cropped


def _multiplications(plan: Plan) -> int:
    """Of the whole layer, where its sizes are known."""
    return plan.macs.after * prod(plan.layout.static or (1,))
