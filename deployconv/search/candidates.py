"""The forms that one site could take, besides staying as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from math import prod
from typing import TypeVar

from deployconv.graph.load import LoadedModel
from deployconv.match import ShuffleSite, SkippedSite, UpsampleSite
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.chain import ChainScope, chain_after
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.matrix import plan_matrix
from deployconv.rewrites.pixel_shuffle import chain_from, plan_reshuffle, region_from
from deployconv.rewrites.planning import PlannedSite, Planning, plan_model
from deployconv.rewrites.region import Region, region_after
from deployconv.rewrites.separable import plan_separable
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.search.choice import Choice, Choices, Option

_SPLIT_WORK = 0.9
"""One Conv per phase is worth its calls and its memory with this part of the multiplications."""
_SPLIT_CHANNELS = 64
"""Output channels of which a half is still enough for a Conv."""
_MOVED = 64
"""Multiplications of matrices that take as long as moving one element, roughly."""
_MORE_WORK = 1.6
"""A form with this many times the multiplications of the smallest is not worth a measurement."""
_BLOCK = 16
"""Output channels that runtimes compute together."""
_CHAINS: tuple[ChainScope, ...] = ("pointwise", "chain")
_INTEGER_CHAINS: tuple[ChainScope, ...] = ("quantize", "chain")


@dataclass(frozen=True, eq=False)
class _Conv(Option):
    """A layer by itself as a polyphase Conv, which chains and regions begin with."""

    rewrite: PolyphaseConv


_AnyOption = TypeVar("_AnyOption", bound=Option)


@dataclass(frozen=True, eq=False)
class Candidates:
    """All sites of one model with their forms, each planned once.

    ``planning`` has the portable rewrite of each site.
    """

    planning: Planning
    _offered: dict[str, tuple[Option, ...]] = field(default_factory=dict)

    @property
    def model(self) -> LoadedModel:
        """The model that the sites belong to; it is not changed."""
        return self.planning.view.model

    @classmethod
    def of(cls, model: LoadedModel, options: RewriteOptions) -> Candidates:
        """The candidates of ``model``, as far as ``options`` allow them."""
        return cls(plan_model(model, options))

    def of_site(self, planned: PlannedSite) -> tuple[Option, ...]:
        """Every form of one site that is worth timing; none if it is not to be rewritten."""
        if planned.id not in self._offered:
            self._offered[planned.id] = tuple(self._options(planned))
        return self._offered[planned.id]

    def with_choices(self, choices: Choices) -> Planning:
        """The planning in which each site has the form that was chosen for it, and no others."""
        rewrites = {}
        for planned in self.planning.default:
            if planned.id in choices:
                rewrites[planned.id] = self.option(planned, choices[planned.id]).rewrite
        return self.planning.with_rewrites(rewrites)

    def option(self, planned: PlannedSite, choice: Choice) -> Option:
        """The form of this name."""
        return next(option for option in self.of_site(planned) if option.choice == choice)

    def _options(self, planned: PlannedSite) -> list[Option]:
        if not planned.selected or isinstance(planned.site, SkippedSite):
            return []
        form, shuffle = self.planning.options.form, self.planning.options.shuffle
        if isinstance(planned.site, ShuffleSite):
            return list(_Reencoded(self.planning, planned.site, _names(shuffle, False)).options())
        return _Upsampled(self.planning, planned.site, form, shuffle).options()


def _names(shuffle: Shuffle, integers: bool) -> tuple[ShuffleName, ...]:
    """The shuffles to try, likely winners first."""
    if shuffle != "auto":
        return (shuffle,)
    rows = sorted(SHUFFLES.values(), key=lambda row: row.search_rank)
    return tuple(row.name for row in rows if integers or not row.integers_only)


def _fused_names() -> list[ShuffleName]:
    """The shuffles for the end of a region, the quickest first."""
    ranked = {row.name: row.fused_rank for row in SHUFFLES.values() if row.fused_rank is not None}
    return sorted(ranked, key=ranked.__getitem__)


def _integer_names() -> list[ShuffleName]:
    """The shuffles for the end of a chain of integers, the quickest first."""
    ranked = {
        row.name: row.integer_rank for row in SHUFFLES.values() if row.integer_rank is not None
    }
    return sorted(ranked, key=ranked.__getitem__)


@dataclass(frozen=True, eq=False)
class _Reencoded:
    """The forms of a pixel shuffle: other encodings, and chains and regions that begin with it."""

    planning: Planning
    site: ShuffleSite
    names: Sequence[ShuffleName]

    def options(self) -> Iterator[Option]:
        encoded = (plan_reshuffle(self.site, name) for name in self.names)
        yield from _without_general(
            [
                Option(Choice("auto", planned.shuffle), planned)
                for name, planned in zip(self.names, encoded, strict=True)
                if not isinstance(planned, Reason) and planned.shuffle == name
            ]
        )
        yield from self._chains()
        yield from self._regions()

    def _chains(self) -> Iterator[Option]:
        """The Conv, its pixel shuffle and what can run after them, in two encodings."""
        planning, seen = self.planning, set()
        likely = [name for name in self.names if SHUFFLES[name].suits_split]
        others = [peer for peer in planning.peers if isinstance(peer, ShuffleSite)]
        for asked, fusion in product(likely or self.names, _CHAINS):
            chain = chain_from(self.site, planning.view, fusion, asked, others, planning.excluded)
            if chain is None or chain.shuffle is None:
                continue
            if (chain.shuffle, len(chain.nodes)) not in seen:
                seen.add((chain.shuffle, len(chain.nodes)))
                yield Option(Choice("auto", chain.shuffle, fusion), chain)

    def _regions(self) -> Iterator[Option]:
        """The Conv, its pixel shuffle and the layers up to a Conv that mixes neighbours."""
        planning = self.planning
        names = [name for name in _fused_names() if name in self.names]
        forms: tuple[Form, ...] = ("pad", "split")
        for form in forms:
            found = (
                region_from(self.site, planning.view, form, name, planning.excluded)
                for name in names
            )
            for region in islice(filter(None, found), 1):
                if _fills_blocks(region):
                    yield Option(Choice(form, region.shuffle, "region + conv"), region)


@dataclass(frozen=True, eq=False)
class _Upsampled:
    """The forms of an upsampling layer, as far as ``form`` and ``shuffle`` allow."""

    planning: Planning
    site: UpsampleSite
    form: Form
    shuffle: Shuffle

    def options(self) -> list[Option]:
        form, site = self.form, self.site
        products = [*self._separable(), *self._matrix()]
        if form in ("separable", "matrix"):
            if products:
                return products
            form = "auto"
        integers = site.has_integer_weight
        found = _without_general(list(self._convs(form, _names(self.shuffle, integers))))
        chained = list(self._chains(found))
        if any(option.choice.fusion == "quantize" for option in chained):
            return chained
        # An integer layer without its QuantizeLinear is a float one.
        if self.shuffle == "auto":
            found = [option for option in found if not _integers_only(option)]
        return [*found, *products, *chained, *self._regions(found)]

    def _convs(self, form: Form, names: Sequence[ShuffleName]) -> Iterator[_Conv]:
        """The layer by itself as a polyphase Conv."""
        site = self.site
        plain = plan_conv(site, form, self.shuffle)
        if not isinstance(plain, Reason) and plain.shuffle is None:
            yield _Conv(Choice("auto", "auto"), plain)
            return
        seen = set()
        smallest: PolyphaseConv | None = None
        forms: tuple[Form, ...] = ("crop", "pad", "split") if form == "auto" else (form,)
        for asked in forms:
            for name in names:
                planned = plan_conv(site, asked, name)
                if isinstance(planned, Reason) or planned.shuffle != name:
                    continue
                smallest = smallest or planned
                fits = form != "auto" or _is_worth_it(planned, smallest)
                saves_crop = not fits and _saves_crop(planned, smallest)
                key = planned.form == "split", planned.axes, name
                if (fits or saves_crop) and key not in seen:
                    seen.add(key)
                    yield _Conv(Choice(asked, name), planned, saves_crop)
                    if saves_crop and site.channels[1] >= _SPLIT_CHANNELS:
                        choice = Choice(asked, name, channel_split=True)
                        yield _Conv(choice, replace(planned, channel_split=True))

    def _separable(self) -> Iterator[Option]:
        """One axis after the other, if that multiplies less."""
        if self.form not in ("auto", "separable"):
            return
        names = _names(self.shuffle, integers=False)
        if self.shuffle == "auto":
            names = tuple(name for name in names if SHUFFLES[name].suits_one_axis)
        whole = plan_conv(self.site, "crop", self.shuffle)
        for name in names:
            planned = plan_separable(self.site, name)
            if planned is None or isinstance(whole, Reason):
                continue
            if planned.summary.shuffle != name:
                continue
            if self.form == "separable" or planned.macs.after < whole.macs.after:
                yield Option(Choice("separable", name), planned)

    def _matrix(self) -> Iterator[Option]:
        """Products of matrices, if multiplying these may take less time than others move."""
        if self.form not in ("auto", "matrix"):
            return
        planned, whole = plan_matrix(self.site), plan_conv(self.site, "crop")
        if planned is None or isinstance(whole, Reason):
            return
        if self.form == "auto" and self.shuffle != "auto":
            return
        moved = self.site.channels[1] * self.site.phases
        if self.form == "matrix" or planned.macs.after <= whole.macs.after + _MOVED * moved:
            yield Option(Choice("matrix", "auto"), planned)

    def _chains(self, plain: Sequence[_Conv]) -> Iterator[Option]:
        """``plain`` forms with the layers after the site before the shuffle.

        They are tried with a portable shuffle and with the quickest.
        """
        planning, integers = self.planning, self.site.has_integer_weight
        others = [peer for peer in planning.peers if isinstance(peer, ShuffleSite)]
        named = {option.rewrite.shuffle for option in plain}
        portable = next((row.name for row in SHUFFLES.values() if _portable(row.name, named)), None)
        quickest = next((row.name for row in SHUFFLES.values() if row.quickest_fused), None)
        if integers:
            quickest = next((name for name in _integer_names() if name in named), None)
        for option in plain:
            head = option.rewrite
            shuffle = head.shuffle
            if shuffle not in (quickest, portable):
                continue
            nodes = 0
            for fusion in _INTEGER_CHAINS if integers else _CHAINS:
                chain = chain_after(
                    head, planning.view, fusion, shuffle or "auto", others, planning.excluded
                )
                if chain is not None and len(chain.nodes) > nodes:
                    nodes = len(chain.nodes)
                    yield Option(replace(option.choice, fusion=fusion), chain)

    def _regions(self, plain: Sequence[_Conv]) -> Iterator[Option]:
        """``plain`` forms with all layers after the site that do not see positions.

        With a Conv at the end as well, in the forms that crop nothing, one Conv per phase included.
        """
        named = {option.rewrite.shuffle for option in plain}
        quickest = next((name for name in _fused_names() if name in named), None)
        if quickest is None:
            return
        heads = {
            option.choice: option.rewrite for option in plain if option.rewrite.shuffle == quickest
        }
        for choice, head in heads.items():
            region = self._region(head, ends_in_conv=False)
            if head.form != "split" and region is not None:
                yield Option(replace(choice, fusion="region"), region)
        split = plan_conv(self.site, "split", quickest)
        if not isinstance(split, Reason) and split.shuffle == quickest:
            heads.setdefault(Choice("split", quickest), split)
        for choice, head in heads.items():
            region = self._region(head, ends_in_conv=True)
            if region is not None and _fills_blocks(region):
                yield Option(replace(choice, fusion="region + conv"), region)

    def _region(self, head: PolyphaseConv, ends_in_conv: bool) -> Region | None:
        planning = self.planning
        others = [peer for peer in planning.peers if isinstance(peer, UpsampleSite)]
        return region_after(head, planning.view, others, planning.excluded, ends_in_conv)


def _without_general(options: list[_AnyOption]) -> list[_AnyOption]:
    """``options`` without the general shuffle, if there is one that is always quicker."""
    named = [option.rewrite.summary.shuffle for option in options]
    if not any(SHUFFLES[name].quicker_than_general for name in named if name is not None):
        return options
    return [
        option
        for option, name in zip(options, named, strict=True)
        if name is None or not SHUFFLES[name].general
    ]


def _portable(name: ShuffleName, named: set[ShuffleName | None]) -> bool:
    return SHUFFLES[name].portable and name in named


def _integers_only(option: Option) -> bool:
    shuffle = option.rewrite.summary.shuffle
    return shuffle is not None and SHUFFLES[shuffle].integers_only


def _is_worth_it(planned: PolyphaseConv, smallest: PolyphaseConv) -> bool:
    """Whether a form may be faster than the one with the smallest kernel, judged by its work."""
    if planned.form != "split":
        return planned.macs.after <= _MORE_WORK * smallest.macs.after
    # It crops nothing; what the other one crops has been multiplied, too.
    fewer = _multiplications(planned) <= _SPLIT_WORK * _multiplications(smallest)
    return fewer and planned.shuffle is not None and SHUFFLES[planned.shuffle].suits_split


def _saves_crop(planned: PolyphaseConv, smallest: PolyphaseConv) -> bool:
    """Whether one Conv per phase may be faster only because nothing is left to crop.

    Their results are concatenated, so there may be more to hold at once; but a Slice of a large
    image takes longer than that.
    """
    if planned.form != "split" or planned.shuffle is None:
        return False
    cropped = smallest.layout.cropped and smallest.layout.stride == (2, 2)
    return SHUFFLES[planned.shuffle].plain_memory and smallest.volume and cropped


def _multiplications(planned: PolyphaseConv) -> int:
    """Those of the whole layer, as far as its sizes are known."""
    return planned.macs.after * prod(planned.layout.static or (1,))


def _fills_blocks(region: Region) -> bool:
    """Whether the Conv at its end has so few output channels that phases cost nothing.

    Runtimes compute output channels in blocks, filled up with zeros.
    """
    if region.last is None:
        return False
    phases, channels = region.head.copies, region.last.channels
    before = phases * region.last.taps * _whole_blocks(channels)
    spans = prod(form.span for form in region.last_axes)
    after = phases * spans * _whole_blocks(channels * phases)
    return after <= before


def _whole_blocks(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK
