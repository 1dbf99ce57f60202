"""List the forms that one site can take, besides staying as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TypeVar

from deployconv.match import (
    ConcatSite,
    ResampleSite,
    ShuffleSite,
    Site,
    UpsampleSite,
)
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.chain import ChainScope, chain_after
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_in_front import conv_in_front, with_products
from deployconv.rewrites.matrix import plan_matrix
from deployconv.rewrites.normalised import plan_normalised
from deployconv.rewrites.pixel_shuffle import chain_from, plan_reshuffle, region_from
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import Planning
from deployconv.rewrites.region import Region
from deployconv.rewrites.region_search import region_after
from deployconv.rewrites.resample import plan_resample
from deployconv.rewrites.resample_phases import plan_phases
from deployconv.rewrites.separable import plan_separable
from deployconv.rewrites.shared_shuffle import shared_shuffles
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.rewrites.shuffles import Shuffle as ShuffleRow
from deployconv.rewrites.split_conv import lead_of, plan_split
from deployconv.search.choice import Choice, Option
from deployconv.search.cost_terms import whole_blocks

_MOST_SPLIT_WORK = 0.9
"""One Conv per phase is listed if it multiplies at most this part of what one Conv multiplies."""
_LEAST_SPLIT_CHANNELS = 64
"""Output channels of which a half still makes a Conv efficient."""
_MACS_PER_MOVE = 64
"""Multiplications of matrices that take as long as moving one element, roughly."""
_MOST_WORK = 1.6
"""A form is listed if it multiplies at most this many times as much as the smallest."""
_BLOCK = 16
"""Output channels that runtimes compute together."""
_CHAINS: tuple[ChainScope, ...] = ("pointwise", "chain")
"""How far chains after a float layer go, the shortest first."""
_INTEGER_CHAINS: tuple[ChainScope, ...] = ("quantize", "chain")
"""The same after an integer layer."""


@dataclass(frozen=True, eq=False)
class _Conv(Option):
    """A layer by itself as a polyphase Conv, which a chain or a region can begin with."""

    rewrite: PolyphaseConv


_AnyOption = TypeVar("_AnyOption", bound=Option)


def forms_of(planned: PlannedSite, planning: Planning) -> list[Option]:
    """The forms of a site of ``planning``, whatever a target limits; none if it is not selected."""
    site = planned.site
    if not planned.selected:
        return []
    if site.pattern == "interpolating_resize":
        # It may move where its sizes are dynamic, and it is skipped otherwise.
        moved = list(_in_front(planning, site))
        if isinstance(site, ResampleSite):
            return [*_resampled(site, planning.options), *moved, *_added(planning, planned)]
        return moved
    if isinstance(site, ShuffleSite):
        return [*_Reencoded(planning, site).options(), *_added(planning, planned)]
    if isinstance(site, ConcatSite):
        return list(_split(planning, site))
    if isinstance(site, UpsampleSite):
        return list(_Upsampled(planning, site).options())
    return []


def _resampled(site: ResampleSite, options: RewriteOptions) -> Iterator[Option]:
    """The form that is asked for; else products, or phases if sizes are dynamic."""
    rewrite = plan_resample(site, options.form, options.shuffle)
    if isinstance(rewrite, Reason):
        return
    form = rewrite.summary.form
    if form != "polyphase" and form != "separable":
        yield Option(Choice("matrix", "auto"), rewrite)
        return
    # An image that is enlarged is large: the shuffle takes most of the time.
    for name in _names_to_try(options, integers=False):
        phases = plan_phases(site, form, name)
        if not isinstance(phases, Reason) and phases.summary.shuffle in (None, name):
            yield Option(Choice(form, name), phases)
        if not isinstance(phases, Reason) and phases.summary.shuffle is None:
            return


def _in_front(planning: Planning, site: Site) -> Iterator[Option]:
    """The 1x1 Convs after a Resize moved before it; it stays, or becomes products."""
    in_front = conv_in_front(site, planning.view, planning.excluded)
    if in_front is None:
        return
    yield Option(Choice("auto", "auto", "1x1 conv in front"), in_front)
    sites = [item.site for item in planning.default if isinstance(item.site, ResampleSite)]
    products = with_products(in_front, sites)
    if products is not None:
        yield Option(Choice("matrix", "auto", "1x1 conv in front"), products)


def _added(planning: Planning, planned: PlannedSite) -> Iterator[Option]:
    """Yield the forms of an added Resize and pixel shuffle, if ``planned`` is the first of both."""
    if planning.options.form not in ("auto", "polyphase"):
        return
    sites = planning.default
    place = next(at for at, item in enumerate(sites) if item.id == planned.id)
    later = [item.site for item in sites[place + 1 :] if item.selected]
    names = _names_to_try(planning.options, integers=False)
    for rewrite in shared_shuffles(planned.site, later, names):
        yield Option(Choice("polyphase", rewrite.shuffle, "add"), rewrite)


def _names_to_try(options: RewriteOptions, integers: bool) -> list[ShuffleName]:
    """The shuffles to try, likely winners first."""
    if options.shuffle != "auto":
        return [options.shuffle]
    names = options.shuffles or _ranked(SHUFFLES, lambda row: row.search_rank)
    return [name for name in names if integers or not SHUFFLES[name].integers_only]


def _ranked(
    names: Collection[ShuffleName | None], rank: Callable[[ShuffleRow], int | None]
) -> list[ShuffleName]:
    """Those of ``names`` that have a rank, the smallest first."""
    ranks = {row.name: rank(row) for row in SHUFFLES.values() if row.name in names}
    ranked = [(place, name) for name, place in ranks.items() if place is not None]
    return [name for _, name in sorted(ranked)]


def _row(option: Option) -> ShuffleRow | None:
    """The shuffle of a form; None if it has none."""
    name = option.rewrite.summary.shuffle
    return SHUFFLES[name] if name is not None else None


def _without_general(options: list[_AnyOption]) -> list[_AnyOption]:
    """``options`` without the general shuffle, if there is one that is always quicker."""
    rows = [_row(option) for option in options]
    if not any(row is not None and row.quicker_than_general for row in rows):
        return options
    return [
        option for option, row in zip(options, rows, strict=True) if row is None or not row.general
    ]


def _split(planning: Planning, site: ConcatSite) -> Iterator[Option]:
    """The forms of a Conv after a Concat: those of the smallest image that the Concat joins."""
    form = planning.options.form
    if form == "normalised":
        return
    form = "auto" if form in ("separable", "matrix", "polyphase") else form
    options = _Upsampled(planning, lead_of(site)).convs(form)
    for option in _without_general(list(options)):
        choice = option.choice
        planned = plan_split(site, choice.form, choice.shuffle, choice.channel_split)
        if not isinstance(planned, Reason):
            yield Option(choice, planned, option.needs_measurement)


@dataclass(frozen=True, eq=False)
class _Reencoded:
    """The forms of a pixel shuffle: other encodings, and chains and regions that begin with it."""

    planning: Planning
    site: ShuffleSite

    def options(self) -> Iterator[Option]:
        names = _names_to_try(self.planning.options, integers=False)
        encoded = [(name, plan_reshuffle(self.site, name)) for name in names]
        yield from _without_general(
            [
                Option(Choice("auto", name), planned)
                for name, planned in encoded
                if not isinstance(planned, Reason) and planned.shuffle == name
            ]
        )
        yield from self._chains(names)
        yield from self._regions(names)

    def _chains(self, names: Sequence[ShuffleName]) -> Iterator[Option]:
        """The Conv, its pixel shuffle and what can run after them, in two encodings."""
        planning, seen = self.planning, set()
        likely = [name for name in names if SHUFFLES[name].suits_split]
        others = planning.joinable_shuffles
        for asked, fusion in product(likely or names, _CHAINS):
            chain = chain_from(self.site, planning.view, fusion, asked, others, planning.excluded)
            if chain is None or chain.shuffle is None:
                continue
            if (chain.shuffle, len(chain.nodes)) not in seen:
                seen.add((chain.shuffle, len(chain.nodes)))
                yield Option(Choice("auto", chain.shuffle, fusion), chain)

    def _regions(self, names: Sequence[ShuffleName]) -> Iterator[Option]:
        """The Conv, its pixel shuffle and the layers up to a Conv that mixes neighbours."""
        view, excluded = self.planning.view, self.planning.excluded
        fused = _ranked(names, lambda row: row.fused_rank)
        forms: tuple[Form, ...] = ("pad", "split")
        for form in forms:
            found = (region_from(self.site, view, form, name, excluded) for name in fused)
            region = next(filter(None, found), None)
            if region is not None and _costs_no_more_blocks(region):
                yield Option(Choice(form, region.shuffle, "region + conv"), region)


@dataclass(frozen=True, eq=False)
class _Upsampled:
    """The forms of an upsampling layer."""

    planning: Planning
    site: UpsampleSite

    @property
    def _shuffle(self) -> Shuffle:
        """The shuffle that the call asks for."""
        return self.planning.options.shuffle

    def options(self) -> Sequence[Option]:
        form = self.planning.options.form
        if form == "normalised":
            planned = plan_normalised(self.site)
            return () if isinstance(planned, Reason) else (Option(Choice(form, "auto"), planned),)
        products = [*self._separable(form), *self._matrix(form)]
        if form in ("separable", "matrix") and products:
            return products
        if form in ("separable", "matrix", "polyphase"):
            form = "auto"
        convs = _without_general(list(self.convs(form)))
        chained = list(self._chains(convs))
        if any(option.choice.fusion == "quantize" for option in chained):
            return chained
        # An integer layer without its QuantizeLinear is a float one.
        if self._shuffle == "auto":
            rows = [(option, _row(option)) for option in convs]
            convs = [option for option, row in rows if row is None or not row.integers_only]
        return [*convs, *products, *chained, *self._regions(convs)]

    def convs(self, form: Form) -> Iterator[_Conv]:
        """The layer by itself as a polyphase Conv."""
        site = self.site
        plain = plan_conv(site, form, self._shuffle)
        if not isinstance(plain, Reason) and plain.shuffle is None:
            yield _Conv(Choice("auto", "auto"), plain)
            return
        seen = set()
        smallest: PolyphaseConv | None = None
        forms: tuple[Form, ...] = ("crop", "pad", "split") if form == "auto" else (form,)
        names = _names_to_try(self.planning.options, site.has_integer_weight)
        for asked, name in product(forms, names):
            planned = plan_conv(site, asked, name)
            if isinstance(planned, Reason) or planned.shuffle != name:
                continue
            smallest = smallest or planned
            fits = form != "auto" or _may_be_faster(planned, smallest)
            saves_crop = not fits and _saves_crop(planned, smallest)
            key = planned.form == "split", planned.axes, name
            if not (fits or saves_crop) or key in seen:
                continue
            seen.add(key)
            yield _Conv(Choice(asked, name), planned, saves_crop)
            if saves_crop and site.channels[1] >= _LEAST_SPLIT_CHANNELS:
                choice = Choice(asked, name, channel_split=True)
                yield _Conv(choice, replace(planned, channel_split=True))

    def _separable(self, form: Form) -> Iterator[Option]:
        """One axis after the other, if that multiplies less."""
        if form not in ("auto", "separable"):
            return
        whole = plan_conv(self.site, "crop", self._shuffle)
        if isinstance(whole, Reason):
            return
        names = _names_to_try(self.planning.options, integers=False)
        if self._shuffle == "auto":
            names = [name for name in names if SHUFFLES[name].suits_one_axis]
        for name in names:
            planned = plan_separable(self.site, name)
            if planned is None or planned.summary.shuffle != name:
                continue
            if form == "separable" or planned.macs.after < whole.macs.after:
                yield Option(Choice("separable", name), planned)

    def _matrix(self, form: Form) -> Iterator[Option]:
        """Products of matrices, if multiplying these may take less time than others move."""
        if form != "matrix" and (form, self._shuffle) != ("auto", "auto"):
            return
        planned, whole = plan_matrix(self.site), plan_conv(self.site, "crop")
        if planned is None or isinstance(whole, Reason):
            return
        moves = self.site.channels[1] * self.site.phases
        if form == "matrix" or planned.macs.after <= whole.macs.after + _MACS_PER_MOVE * moves:
            yield Option(Choice("matrix", "auto"), planned)

    def _chains(self, convs: Sequence[_Conv]) -> Iterator[Option]:
        """The Convs with the layers after the site before the shuffle.

        They are tried with a portable shuffle and with the quickest.
        """
        planning, integers = self.planning, self.site.has_integer_weight
        named = {option.rewrite.shuffle for option in convs}
        rows = SHUFFLES.values()
        portable = [row.name for row in rows if row.portable and row.name in named]
        quickest = [row.name for row in rows if row.quickest_fused]
        if integers:
            quickest = _ranked(named, lambda row: row.integer_rank)
        for option in convs:
            head, shuffle = option.rewrite, option.rewrite.shuffle
            if shuffle not in (None, *portable[:1], *quickest[:1]):
                continue
            nodes = 0
            for fusion in _INTEGER_CHAINS if integers else _CHAINS:
                chain = chain_after(
                    head,
                    planning.view,
                    fusion,
                    shuffle or "auto",
                    planning.joinable_shuffles,
                    planning.excluded,
                )
                if chain is not None and len(chain.nodes) > nodes:
                    nodes = len(chain.nodes)
                    yield Option(replace(option.choice, fusion=fusion), chain)

    def _regions(self, convs: Sequence[_Conv]) -> Iterator[Option]:
        """The Convs with all layers after the site that treat every pixel alike.

        Also with a Conv that mixes neighbours at the end, in forms that crop nothing, one Conv per
        phase included.
        """
        named = {option.rewrite.shuffle for option in convs}
        fused = _ranked(named, lambda row: row.fused_rank)
        if not fused:
            return
        quickest = fused[0]
        heads = {
            option.choice: option.rewrite for option in convs if option.rewrite.shuffle == quickest
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
            if region is not None and _costs_no_more_blocks(region):
                yield Option(replace(choice, fusion="region + conv"), region)

    def _region(self, head: PolyphaseConv, ends_in_conv: bool) -> Region | None:
        planning = self.planning
        peers, excluded = planning.joinable_layers, planning.excluded
        return region_after(head, planning.view, peers, excluded, ends_in_conv)


def _may_be_faster(planned: PolyphaseConv, smallest: PolyphaseConv) -> bool:
    """Whether a form may be faster than the one with the smallest kernel, judged by its work."""
    if planned.form != "split":
        return planned.macs.after <= _MOST_WORK * smallest.macs.after
    # The other form also multiplies what it crops.
    fewer = _multiplications(planned) <= _MOST_SPLIT_WORK * _multiplications(smallest)
    return fewer and planned.shuffle is not None and SHUFFLES[planned.shuffle].suits_split


def _saves_crop(planned: PolyphaseConv, smallest: PolyphaseConv) -> bool:
    """Whether one Conv per phase may be faster only because nothing is left to crop.

    The results are concatenated, which may need more memory, but takes less time than a Slice of a
    large image.
    """
    if planned.form != "split" or planned.shuffle is None:
        return False
    cropped = smallest.layout.cropped and smallest.layout.stride == (2, 2)
    return SHUFFLES[planned.shuffle].plain_memory and smallest.volume and cropped


def _multiplications(planned: PolyphaseConv) -> int:
    """The multiplications of the whole layer; of one input pixel if its sizes are not known."""
    return planned.macs.after * prod(planned.layout.static or (1,))


def _costs_no_more_blocks(region: Region) -> bool:
    """Whether the Conv at its end computes no more blocks for all phases than it did before.

    Runtimes compute output channels in blocks that are filled up with zeros. A Conv with few output
    channels leaves room in its block for those of other phases.
    """
    if region.last is None:
        return False
    phases, channels = region.head.copies, region.last.channels
    before = phases * region.last.taps * whole_blocks(channels, _BLOCK)
    spans = prod(form.span for form in region.last_axes)
    after = phases * spans * whole_blocks(channels * phases, _BLOCK)
    return after <= before
