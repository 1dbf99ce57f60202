"""The forms that one site could take, besides staying as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from deployconv.joining import Peer, Planned, Reach, with_chain
from deployconv.lowering import (
    AnyPlan,
    ChainPlan,
    Plan,
    RegionPlan,
    ShufflePlan,
    Subject,
    plan_matrix,
    plan_separable,
    plan_shuffle,
    plan_site,
)
from deployconv.lowering.shuffle import ShuffleName
from deployconv.lowres.region import Region
from deployconv.model.view import View
from deployconv.options import Form, Shuffle
from deployconv.results import Reason
from deployconv.sites import ShuffleSite, SkippedSite, UpsampleSite

_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "two-step", "dcr", "crd", "transpose")
"""Likely winners first."""
_PORTABLE: tuple[ShuffleName, ...] = ("dcr", "crd", "transpose")
_QUICKEST: tuple[ShuffleName, ...] = ("col2im", "crd", "transpose")
"""Of those that read the phases of a channel side by side."""
_INTEGER_SHUFFLES: tuple[ShuffleName, ...] = ("channels-last", "two-step", "transpose")
_SPLIT_WORK = 0.9
"""Several Convs are worth their calls, and the room for parts and whole, with this much to do."""
_HALVED = 64
"""Output channels of which a half is still enough for a Conv."""
_SPLIT_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "dcr")
"""The one reads the phases of a channel side by side, the other all channels of a phase."""
_REACHES: tuple[Reach, ...] = ("pointwise", "all")
_INTEGER_REACHES: tuple[Reach, ...] = ("grid", "all")
_MOVED = 64
"""Multiplications of matrices that take as long as moving an element, roughly."""
_BLOCK = 16
"""Output channels that are computed together."""
_MORE_WORK = 1.6
"""A form with this many times the multiplications of the smallest is not worth a measurement."""


@dataclass(frozen=True)
class Choice:
    """A form and a shuffle, as the options of the same names, and how far the chain goes.

    ``halves`` as in `lowering.Plan`.
    """

    form: Form
    shuffle: Shuffle
    chain: Reach = "none"
    halves: bool = False

    @property
    def whole_split(self) -> bool:
        """Whether the results of one Conv a phase are held together with what is made of them."""
        return self.form == "split" and not self.halves

    def __str__(self) -> str:
        named = (self.form, self.shuffle, "halves" if self.halves else "auto")
        parts = [part for part in named if part != "auto"]
        return (", ".join(parts) or "conv") + _BEHIND[self.chain]


_BEHIND: dict[Reach, str] = {
    "none": "",
    "grid": " + quantize",
    "pointwise": " + pointwise",
    "all": " + chain",
    "region": " + region",
    "last": " + region + conv",
}


@dataclass(frozen=True, eq=False)
class Option:
    """A choice, what it lowers and the plan for that."""

    choice: Choice
    subject: Subject
    plan: AnyPlan
    roomy: bool = False
    """Whether it gains nothing but time and may need much more memory: not to be taken unseen."""


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
    if shuffle == "auto" and _has_integers(site):
        names = ("channels-last", *_SHUFFLES)
    if isinstance(site, ShuffleSite):
        found = list(_shuffles(site, names))
    else:
        found = list(_forms(site, form, shuffle, names))
    spelled = {option.plan.shuffle for option in found}
    if spelled & {"dcr", "crd", "two-step"}:  # the general Transpose is slower than any of them
        found = [option for option in found if option.plan.shuffle != "transpose"]
    if isinstance(site, ShuffleSite):
        return [*found, *_behind_shuffle(planned, names, view, barred, others)]
    chains = list(_chains(found, planned, view, barred, others))
    if any(option.choice.chain == "grid" for option in chains):
        return chains
    # An integer layer without its QuantizeLinear is a float one.
    if shuffle == "auto":
        found = [option for option in found if option.plan.shuffle != "channels-last"]
    return [*found, *apart, *chains, *_regions(found, planned, view, barred, others)]


def _chains(
    plain: Sequence[Option],
    planned: Planned,
    view: View,
    barred: Collection[int],
    others: Collection[Peer],
) -> Iterator[Option]:
    """The same with what can run behind the site before the shuffle, portable or quickest."""
    named = {option.plan.shuffle for option in plain}
    portable = next((name for name in _PORTABLE if name in named), None)
    integers = _has_integers(planned.site)
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


def _behind_shuffle(
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


def _regions(
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


def _has_integers(site: UpsampleSite | ShuffleSite | SkippedSite) -> bool:
    return isinstance(site, UpsampleSite) and site.weight.quantized is not None


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
