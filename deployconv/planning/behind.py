"""The forms of a site with the layers behind it run at low resolution."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import prod

from deployconv.joining import Peer, Planned, Reach, with_chain
from deployconv.lowering import AnyPlan, ChainPlan, Plan, RegionPlan, Subject, plan_site
from deployconv.lowering.shuffle import ShuffleName
from deployconv.lowres.region import Region
from deployconv.model.view import View
from deployconv.options import Form
from deployconv.planning.choice import Choice, Option
from deployconv.sites import Site, UpsampleSite

_PORTABLE: tuple[ShuffleName, ...] = ("dcr", "crd", "transpose")
_QUICKEST: tuple[ShuffleName, ...] = ("col2im", "crd", "transpose")
"""Of those that read the phases of a channel side by side."""
_INTEGER_SHUFFLES: tuple[ShuffleName, ...] = ("channels-last", "two-step", "transpose")
_REACHES: tuple[Reach, ...] = ("pointwise", "all")
_INTEGER_REACHES: tuple[Reach, ...] = ("grid", "all")
_BLOCK = 16
"""Output channels that are computed together."""


def chains(
    plain: Sequence[Option],
    planned: Planned,
    view: View,
    barred: Collection[int],
    others: Collection[Peer],
) -> Iterator[Option]:
    """The same with what can run behind the site before the shuffle, portable or quickest."""
    named = {option.plan.shuffle for option in plain}
    portable = next((name for name in _PORTABLE if name in named), None)
    integers = has_integers(planned.site)
    quickest: ShuffleName | None = "col2im"
    if integers:  # which Col2Im does not move
        quickest = next((name for name in _INTEGER_SHUFFLES if name in named), None)
    for option in plain:
        if option.plan.shuffle not in (quickest, portable):
            continue
        links = 0
        for reach in _INTEGER_REACHES if integers else _REACHES:
            whole = replace(planned, plan=option.plan, chain=None)
            chained = with_chain(whole, view, reach, barred, others)
            if chained.chain is not None and len(chained.chain.nodes) > links:
                links = len(chained.chain.nodes)
                assert chained.plan is not None
                yield Option(replace(option.choice, chain=reach), chained.chain, chained.plan)


def behind_shuffle(
    planned: Planned,
    names: Sequence[ShuffleName],
    view: View,
    barred: Collection[int],
    others: Collection[Peer],
) -> Iterator[Option]:
    """A pixel shuffle with its Conv and what can run behind that, in two spellings likewise.

    With a Conv that mixes neighbours at the end as well.
    """
    seen: set[tuple[ShuffleName, int]] = set()
    likely = [name for name in names if name in ("col2im", "dcr")]
    for asked in likely or names:
        for reach in _REACHES:
            found = with_chain(planned, view, reach, barred, others, asked)
            spelled = found.plan.shuffle if isinstance(found.plan, ChainPlan) else None
            if found.chain is None or found.plan is None or spelled is None:
                continue
            if (spelled, len(found.chain.nodes)) not in seen:
                seen.add((spelled, len(found.chain.nodes)))
                yield Option(Choice("auto", spelled, reach), found.chain, found.plan)
    forms: tuple[Form, ...] = ("pad", "split")
    for form in forms:
        for asked in (name for name in _QUICKEST if name in names):
            found = with_chain(planned, view, "last", barred, others, asked, form)
            if isinstance(found.plan, RegionPlan) and found.chain is not None:
                option = Option(Choice(form, asked, "last"), found.chain, found.plan)
                if found.plan.shuffle == asked and _fills_blocks(option.subject, option.plan):
                    yield option
                break


def regions(
    plain: Sequence[Option],
    planned: Planned,
    view: View,
    barred: Collection[int],
    others: Collection[Peer],
) -> Iterator[Option]:
    """The same with all that does not see positions, in the quickest spelling.

    With a Conv at the end as well, in the forms that crop nothing, among them one Conv a phase.
    """
    site, named = planned.site, {option.plan.shuffle for option in plain}
    quickest = next((name for name in _QUICKEST if name in named), None)
    if quickest is None or not isinstance(site, UpsampleSite):
        return

    def behind(choice: Choice, plan: Plan, reach: Reach) -> Iterator[Option]:
        found = with_chain(replace(planned, plan=plan, chain=None), view, reach, barred, others)
        if isinstance(found.chain, Region) and isinstance(found.plan, RegionPlan):
            yield Option(replace(choice, chain=reach), found.chain, found.plan)

    whole: dict[Choice, Plan] = {}
    for option in plain:
        plan = option.plan
        if plan.shuffle != quickest or not isinstance(plan, Plan) or plan.halves:
            continue
        if plan.form != "split":
            yield from behind(option.choice, plan, "region")
        if not plan.layout.cropped:
            whole[option.choice] = plan
    split = plan_site(site, "split", quickest)
    if isinstance(split, Plan) and split.shuffle == quickest and not split.layout.cropped:
        whole.setdefault(Choice("split", quickest), split)
    for choice, plan in whole.items():
        for option in behind(choice, plan, "last"):
            if _fills_blocks(option.subject, option.plan):
                yield option


def _fills_blocks(region: Subject, plan: AnyPlan) -> bool:
    """Whether the Conv at the end of a region has so few output channels that phases cost nothing.

    Runtimes compute output channels in blocks, filled up with zeros.
    """
    if not isinstance(region, Region) or not isinstance(plan, RegionPlan) or region.last is None:
        return False
    phases, channels = plan.head.copies, region.last.channels
    before = phases * region.last.taps * _whole_blocks(channels)
    after = phases * prod(form.span for form in plan.last) * _whole_blocks(channels * phases)
    return after <= before


def _whole_blocks(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK


def has_integers(site: Site) -> bool:
    """Whether its weight is integers."""
    return isinstance(site, UpsampleSite) and site.weight.quantized is not None
