"""The forms of a site with the layers behind it run at low resolution."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from math import prod

from deployconv.graph.view import View
from deployconv.match import Site, UpsampleSite
from deployconv.options import Form
from deployconv.rewrites.joining import Peer, Planned, Reach, with_chain
from deployconv.rewrites.lowering import AnyPlan, Plan, RegionPlan, plan_site
from deployconv.rewrites.lowering.shuffle import ShuffleName
from deployconv.rewrites.lowres.region import Region
from deployconv.search.choice import Choice, Option

_PORTABLE: tuple[ShuffleName, ...] = ("dcr", "crd", "transpose")
_QUICKEST: tuple[ShuffleName, ...] = ("col2im", "crd", "transpose")
"""Of those that read the phases of a channel side by side."""
_INTEGER_SHUFFLES: tuple[ShuffleName, ...] = ("channels-last", "two-step", "transpose")
_REACHES: tuple[Reach, ...] = ("pointwise", "all")
_INTEGER_REACHES: tuple[Reach, ...] = ("grid", "all")
_BLOCK = 16
"""Output channels that are computed together."""


@dataclass(frozen=True, eq=False)
class Behind:
    """One site, and what may be taken in with it: not what is ``barred``, of sites ``others``."""

    planned: Planned
    view: View
    barred: Collection[int]
    others: Collection[Peer]

    def chains(self, plain: Sequence[Option]) -> Iterator[Option]:
        """``plain`` with what can run behind the site before the shuffle, portable or quickest."""
        named = {option.plan.shuffle for option in plain}
        portable = next((name for name in _PORTABLE if name in named), None)
        integers = has_integers(self.planned.site)
        quickest: ShuffleName | None = "col2im"
        if integers:  # which Col2Im does not move
            quickest = next((name for name in _INTEGER_SHUFFLES if name in named), None)
        for option in plain:
            if option.plan.shuffle not in (quickest, portable):
                continue
            links = 0
            for reach in _INTEGER_REACHES if integers else _REACHES:
                chained = self._option(replace(option.choice, chain=reach), option.plan)
                if chained is not None and len(chained.subject.nodes) > links:
                    links = len(chained.subject.nodes)
                    yield chained

    def a_shuffle(self, names: Sequence[ShuffleName]) -> Iterator[Option]:
        """A pixel shuffle with its Conv and what can run behind that, in two spellings likewise.

        With a Conv that mixes neighbours at the end as well.
        """
        seen: set[tuple[ShuffleName, int]] = set()
        likely = [name for name in names if name in ("col2im", "dcr")]
        for asked, reach in product(likely or names, _REACHES):
            chained = self._spelled(Choice("auto", asked, reach))
            if chained is None or chained.plan.shuffle is None:
                continue
            if (chained.plan.shuffle, len(chained.subject.nodes)) not in seen:
                seen.add((chained.plan.shuffle, len(chained.subject.nodes)))
                yield chained
        forms: tuple[Form, ...] = ("pad", "split")
        for form in forms:
            asked_for = (Choice(form, name, "last") for name in _QUICKEST if name in names)
            ended = map(self._spelled, asked_for)
            yield from filter(_fills_blocks, islice(filter(None, ended), 1))

    def regions(self, plain: Sequence[Option]) -> Iterator[Option]:
        """``plain`` with all that does not see positions, in the quickest spelling.

        With a Conv at the end as well, in the forms that crop nothing, among them one Conv a phase.
        """
        site, named = self.planned.site, {option.plan.shuffle for option in plain}
        quickest = next((name for name in _QUICKEST if name in named), None)
        if quickest is None or not isinstance(site, UpsampleSite):
            return
        plans = {
            option.choice: option.plan
            for option in plain
            if option.plan.shuffle == quickest and isinstance(option.plan, Plan)
        }
        for choice, plan in plans.items():
            region = self._option(replace(choice, chain="region"), plan)
            if plan.form != "split" and region is not None:
                yield region
        split = plan_site(site, "split", quickest)
        if isinstance(split, Plan) and split.shuffle == quickest:
            plans.setdefault(Choice("split", quickest), split)
        for choice, plan in plans.items():
            ended = self._option(replace(choice, chain="last"), plan)
            if ended is not None and _fills_blocks(ended):
                yield ended

    def _spelled(self, choice: Choice) -> Option | None:
        """The same for a pixel shuffle: one that was asked for and does not fit gives way."""
        found = self._option(choice)
        if found is None or found.plan.shuffle is None:
            return found
        return replace(found, choice=replace(choice, shuffle=found.plan.shuffle))

    def _option(self, choice: Choice, plan: AnyPlan | None = None) -> Option | None:
        """The site in ``plan`` with what is behind it; None where nothing joins as asked."""
        planned = self.planned if plan is None else replace(self.planned, plan=plan)
        found = with_chain(
            replace(planned, chain=None), self.view, choice, self.barred, self.others
        )
        if found.chain is None or found.plan is None:
            return None
        return Option(choice, found.chain, found.plan)


def _fills_blocks(option: Option) -> bool:
    """Whether the Conv at the end of a region has so few output channels that phases cost nothing.

    Runtimes compute output channels in blocks, filled up with zeros.
    """
    region, plan = option.subject, option.plan
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
