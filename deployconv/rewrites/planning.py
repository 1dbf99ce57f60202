"""Plan what becomes of every upsampling layer of a model, and make the model that was planned.

model -> view -> sites -> a rewrite per site -> new model
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf

from deployconv.graph.declared import forget_symbols
from deployconv.graph.load import LoadedModel
from deployconv.graph.splice import AttributeEdit, Names, Replacement, Spliced, splice
from deployconv.graph.view import View, view
from deployconv.match import (
    ConcatSite,
    Geometry,
    ResampleSite,
    ShuffleSite,
    Site,
    SkippedSite,
    UpsampleSite,
    find_sites,
)
from deployconv.options import LayerRequest, RewriteOptions, Shuffle
from deployconv.results import Reason, SiteReport, Status
from deployconv.rewrites.asked import (
    as_asked,
    check_globs,
    is_considered,
    is_listed,
    is_selected,
    request_for,
    with_options,
    with_restrictions,
)
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import chain_after
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.conv_in_front import conv_in_front, with_products
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.fold import fold_after
from deployconv.rewrites.kept import folded_in_place
from deployconv.rewrites.moved import MOVES, moved_after
from deployconv.rewrites.split_conv import plan_split
from deployconv.rewrites.trim import trim_after
from deployconv.rewrites.ways import (
    MAY_NOT_FIT,
    RESAMPLE_FORMS,
    first_form,
    plan_form,
    reencoded,
    resampled,
)
from deployconv.rewrites.within import broken_by, write

_NOTHING_TO_DO = ("already-explicit", "already-lowered")
"""Reasons why a layer is written as it should be."""


@dataclass(frozen=True, eq=False)
class PlannedSite:
    """One upsampling layer and what becomes of it.

    Attributes:
        found: the layer as it was recognised.
        site: the same, with the layers after it that it absorbs if it is rewritten.
        report: what is known of it so far.
        rewrite: what takes its place, which may be the same layer with folded weights; None if it
            is left alone or belongs to another rewrite.
        joined: id of the site whose rewrite replaces this one too.
        required: True if it is rewritten even if that is slower.
        shuffles: the shuffles that a target names for it; empty for any.
        selected: False if an option or a target asks to leave it alone.
    """

    found: Site
    site: Site
    report: SiteReport
    rewrite: Rewrite | None = None
    joined: str | None = None
    required: bool = False
    shuffles: tuple[Shuffle, ...] = ()
    selected: bool = True

    @property
    def id(self) -> str:
        return self.found.id


@dataclass(frozen=True, eq=False)
class Planning:
    """All sites of a model, planned, in graph order."""

    view: View
    options: RewriteOptions
    sites: tuple[PlannedSite, ...]
    default: tuple[PlannedSite, ...]
    """The same as planned if nothing is known of their speed."""
    warnings: tuple[str, ...] = ()

    @property
    def reports(self) -> tuple[SiteReport, ...]:
        """What is known of each site so far."""
        return tuple(planned.report for planned in self.sites)

    @cached_property
    def excluded(self) -> frozenset[int]:
        """Ids of nodes that no other rewrite may replace.

        They are those of sites that are not selected, and of nearest Resizes that are written anew.
        """
        return frozenset(
            id(item.found.layer)
            for item in self.default
            if not item.selected or (isinstance(item.site, ResampleSite) and item.site.is_nearest)
        )

    @cached_property
    def joinable_layers(self) -> tuple[UpsampleSite, ...]:
        """The selected upsampling layers, which the rewrite of another one may include."""
        selected = (item.site for item in self.default if item.selected)
        return tuple(site for site in selected if isinstance(site, UpsampleSite))

    @cached_property
    def joinable_shuffles(self) -> tuple[ShuffleSite, ...]:
        """The selected pixel shuffles, which the rewrite of a layer before them may include."""
        selected = (item.site for item in self.default if item.selected)
        return tuple(site for site in selected if isinstance(site, ShuffleSite))

    def with_rewrites(self, chosen: Mapping[str, Rewrite]) -> Planning:
        """The same sites, each with the rewrite that was chosen by its id, and no others.

        A site that must be rewritten keeps its default rewrite if none was chosen.
        """
        return _planning(self.view, self.options, self.default, chosen)


def plan_model(model: LoadedModel, options: RewriteOptions) -> Planning:
    """Find every site of ``model`` and plan its portable rewrite.

    Raises UsageError if ``options.only`` or ``skip`` has a pattern that fits no site.
    """
    seen = view(model, options.freeze_initializers)
    asked = [
        (
            with_restrictions(with_options(as_asked(site, request, options), options), request),
            request,
        )
        for site in find_sites(seen)
        if is_listed(site, request := request_for(site, options), options)
    ]
    if not options.may_match_nothing:
        check_globs((*options.only, *options.skip), [site for site, _ in asked])
    default = tuple(_plan(site, request, options, seen) for site, request in asked)
    planning = Planning(seen, options, default, default)
    chosen = _integer_chains(planning)
    if options.policy == "all":
        chosen |= _products_after_convs(planning)
    return _planning(seen, options, default, chosen, keep_others=True)


def _integer_chains(planning: Planning) -> dict[str, Rewrite]:
    """The integer layers with the QuantizeLinear after them, by id.

    Without its QuantizeLinear a layer would not run on integers.
    """
    chains: dict[str, Rewrite] = {}
    for item in planning.default:
        if item.site.has_integer_weight and isinstance(item.rewrite, PolyphaseConv):
            chain = chain_after(
                item.rewrite,
                planning.view,
                "quantize",
                item.rewrite.shuffle or "auto",
                planning.joinable_shuffles,
                planning.excluded,
            )
            if chain is not None and not broken_by(chain, item.found.restrictions):
                chains[item.id] = chain
    return chains


def _products_after_convs(planning: Planning) -> dict[str, Rewrite]:
    """Resizes as products of matrices, with the 1x1 Convs after them moved before them.

    They are named by the id of the first Resize.
    """
    products = (item.site for item in planning.default if item.report.form == "matrix")
    sites = [one for one in products if isinstance(one, ResampleSite) and not one.is_nearest]
    found: dict[str, Rewrite] = {}
    for site in sites:
        moved = conv_in_front(site, planning.view, planning.excluded)
        whole = None if moved is None else with_products(moved, sites, every=True)
        if whole is not None and not broken_by(whole, site.restrictions):
            found[site.id] = whole
    return found


def apply(planning: Planning) -> Spliced:
    """Make a copy of the model with what is planned; the model itself is not changed."""
    names = Names(planning.view.names)
    edits: list[Replacement | AttributeEdit] = []
    for planned in planning.sites:
        scope, layer = planned.found.scope, planned.found.layer
        if planned.rewrite is not None:
            emitter = Emitter(scope.opset, names.maker(scope.label(layer)))
            nodes = write(planned.rewrite, emitter, planned.found.restrictions)
            # The nodes before the last one go too, unless something else reads them (`splice`).
            edits.append(Replacement(scope, planned.rewrite.nodes[-1:], nodes))
        elif planned.joined is None and planned.found.explicit_attributes is not None:
            place = scope.index(layer)
            edits.append(AttributeEdit(scope, place, planned.found.explicit_attributes))
    spliced = splice(planning.view, edits)
    if edits and not all(item.found.restrictions.symbolic_shapes for item in planning.sites):
        forget_symbols(spliced.proto)
    return spliced


def _planning(
    seen: View,
    options: RewriteOptions,
    default: tuple[PlannedSite, ...],
    chosen: Mapping[str, Rewrite],
    keep_others: bool = False,
) -> Planning:
    """Give each site the rewrite that was chosen for it; others are kept, or stay as planned."""
    joined: dict[int, str] = {}
    sites = []
    for item in default:
        layer = id(item.found.layer)
        made = item
        if layer in joined:
            made = PlannedSite(
                item.found,
                item.site,
                _report(item.site, "rewritten", None),
                joined=joined[layer],
            )
        elif item.id in chosen:
            made = _rewritten(item.found, item.site, chosen[item.id])
            joined |= {id(node): item.id for node in chosen[item.id].nodes}
        elif not keep_others and item.rewrite is not None and not item.required:
            made = _kept_as_faster(item, options)
        report = replace(made.report, targets=item.report.targets)
        sites.append(replace(made, report=report, required=item.required, shuffles=item.shuffles))
    warnings = (*_fallbacks(sites, options), *_requantized(sites), *_dequantized(sites))
    return Planning(seen, options, tuple(sites), default, warnings)


def _rewritten(found: Site, site: Site, rewrite: Rewrite) -> PlannedSite:
    summary = rewrite.summary
    report = replace(
        _report(site, "rewritten", None),
        nodes=tuple(rewrite.scope.label(node) for node in rewrite.nodes),
        requantized=summary.requantized,
        form=summary.form,
        shuffle=summary.shuffle,
        conv_kernel=summary.conv_kernel,
        macs=summary.macs,
    )
    return PlannedSite(found, site, report, rewrite)


def _kept_as_faster(item: PlannedSite, options: RewriteOptions) -> PlannedSite:
    measured = "no other form was measured to be faster"
    predicted = "no other form is predicted to save enough"
    reason = Reason("slower", predicted if options.policy == "cost" else measured)
    folded = folded_in_place(item.site) if isinstance(item.site, UpsampleSite) else None
    status: Status = "kept" if folded is None else "folded"
    kept = replace(_report(item.found, status, reason), nodes=item.report.nodes)
    return replace(item, report=kept, rewrite=folded)


def _plan(site: Site, request: LayerRequest, options: RewriteOptions, seen: View) -> PlannedSite:
    """Plan one site in the first form that is preferred and fits, or in the one that is asked for.

    The result has no rewrite if there is none; it then has the reason.
    """
    planned = _plan_form(site, request, options, seen)
    if planned.selected:
        preferred = _preferred(site, request, options, seen)
        planned = (
            min(preferred, key=_multiplications, default=planned)
            if request.fewest
            else next(preferred, planned)
        )
    return replace(
        planned,
        report=replace(planned.report, targets=request.targets),
        required=request.required and planned.rewrite is not None,
        shuffles=tuple(shuffle for _, shuffle in request.preferred if shuffle != "auto"),
    )


def _preferred(
    site: Site, request: LayerRequest, options: RewriteOptions, seen: View
) -> Iterator[PlannedSite]:
    """Plan one site in each form that is preferred and fits, the best first."""
    for form, shuffle in request.preferred:
        way = replace(request, form=form, shuffle=shuffle)
        planned = _plan_form(site, way, options, seen)
        if planned.rewrite is not None and _is_as_asked(planned.rewrite, way):
            yield planned


def _multiplications(planned: PlannedSite) -> float:
    """Those for one input pixel; infinitely many if they are not known."""
    macs = None if planned.rewrite is None else planned.rewrite.summary.macs
    return inf if macs is None else macs.after


def _is_as_asked(rewrite: Rewrite, request: LayerRequest) -> bool:
    """Whether a rewrite has the form and shuffle that were asked for, as far as it has any."""
    made = rewrite.summary
    formed = request.form in ("auto", "crop", "pad") or made.form == request.form
    return formed and (request.shuffle == "auto" or made.shuffle in (None, request.shuffle))


def _plan_form(
    site: Site, request: LayerRequest, options: RewriteOptions, seen: View
) -> PlannedSite:
    """Plan one site in the form that is asked for, or say why there is none."""
    if isinstance(site, SkippedSite):
        return PlannedSite(site, site, _report(site, "skipped", site.reason))
    if not is_selected(site, options):
        return _left_alone(site, Reason("not-selected", "left alone by --only or --skip"))
    if request.keep is not None:
        return _left_alone(site, request.keep)
    if request.form == "normalised" and not isinstance(site, UpsampleSite):
        return _left_alone(site, Reason("already-explicit", "it is no ConvTranspose"))
    if site.unless_faster is not None and not is_considered(site, request, options):
        return PlannedSite(site, site, _report(site, "kept", site.unless_faster))
    longer: Site = site
    if isinstance(site, ResampleSite):
        rewrite = resampled(site, request)
    elif isinstance(site, ShuffleSite):
        rewrite = reencoded(site, request)
    elif isinstance(site, ConcatSite):
        conv = absorbing(site.conv, seen)
        longer = replace(site, conv=conv, nodes=(*site.nodes, *conv.nodes[1:]))
        rewrite = first_form(request, site.restrictions, partial(plan_split, longer))
    else:
        longer = absorbing(site, seen)
        rewrite = first_form(request, site.restrictions, partial(plan_form, longer))
    if isinstance(rewrite, Reason):
        status: Status = "kept" if rewrite.code in _NOTHING_TO_DO else "skipped"
        return PlannedSite(site, site, _report(site, status, rewrite))
    return _rewritten(site, longer, rewrite)


def _left_alone(site: Site, reason: Reason) -> PlannedSite:
    return PlannedSite(site, site, _report(site, "kept", reason), selected=False)


def absorbing(site: UpsampleSite, seen: View) -> UpsampleSite:
    """``site`` with the Slices and affine layers after it, in whatever order they come.

    What stands between them and only moves the axes, or does nothing, is taken in as well. After
    the last of them it is only if it undoes a move.
    """
    longest = site
    while True:
        layer = trim_after(site, seen) or fold_after(site, seen) or moved_after(site, seen)
        if layer is None:
            return longest
        site = layer.into(site)
        op = site.nodes[-1].op
        if op != "Identity" and (op not in MOVES or not site.tail):
            longest = site


def _report(site: Site, status: Status, reason: Reason | None) -> SiteReport:
    geometry: Geometry | None = site.geometry
    return SiteReport(
        id=site.id,
        pattern=site.pattern,
        nodes=tuple(site.scope.label(node) for node in site.nodes),
        scope=site.scope.path,
        stride=geometry.stride if geometry else None,
        kernel=geometry.kernel if geometry else None,
        dilation=geometry.dilation if geometry else None,
        group=geometry.group if geometry else None,
        dtype=site.dtype,
        status=status,
        reason=reason,
    )


def _requantized(planned: Iterable[PlannedSite]) -> list[str]:
    """Warnings about weights that are no longer exact, as the call allowed."""
    return [
        f"{item.report.id}: new scales, as --allow-requantize says: its weights move by up to"
        f" {error.max_error:.2%} of the largest ({error.rms_error:.2%} rms)"
        for item in planned
        if (error := item.report.requantized) is not None
    ]


def _dequantized(planned: Iterable[PlannedSite]) -> list[str]:
    """Warnings about integer weights that became floats, as the call allowed."""
    return [
        f"{item.report.id}: its weight is stored as {item.site.dtype} and the layer runs in it, as"
        " --dequantize-weights says"
        for item in planned
        if isinstance(item.site, UpsampleSite) and item.site.dequantized and item.rewrite
    ]


def _fallbacks(planned: Sequence[PlannedSite], options: RewriteOptions) -> Iterator[str]:
    """Warn about each requested form or shuffle that did not fit, or was of no use."""
    if options.shuffle != "auto" and not any(item.report.shuffle for item in planned):
        yield f"shuffle '{options.shuffle}' has no effect: no layer is rewritten with a shuffle"
    for item in planned:
        found = {"form": item.report.form, "shuffle": item.report.shuffle}
        expected = RESAMPLE_FORMS if isinstance(item.site, ResampleSite) else MAY_NOT_FIT
        asked = {
            "shuffle": options.shuffle,
            "form": options.form if options.form in expected else "auto",
        }
        for kind, name in asked.items():
            if name != "auto" and found[kind] not in (None, name):
                yield f"{item.report.id}: {kind} '{name}' does not fit, '{found[kind]}' taken"
