"""Plan what becomes of one upsampling layer, in the form that the call or a target asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import inf

from deployconv.graph.view import View
from deployconv.match import (
    ConcatSite,
    Geometry,
    ResampleSite,
    ShuffleSite,
    Site,
    SkippedSite,
    UpsampleSite,
)
from deployconv.options import LayerRequest, RewriteOptions, Shuffle
from deployconv.results import Reason, SiteReport, Status
from deployconv.rewrites.asked import is_considered, is_selected
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.fold import fold_after
from deployconv.rewrites.moved import MOVES, moved_after
from deployconv.rewrites.split_conv import plan_split
from deployconv.rewrites.trim import trim_after
from deployconv.rewrites.ways import first_form, plan_form, reencoded, resampled

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


def plan_site(
    site: Site, request: LayerRequest, options: RewriteOptions, seen: View
) -> PlannedSite:
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
    """The multiplications for one input pixel; infinity if they are not known."""
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
        return PlannedSite(site, site, report_on(site, "skipped", site.reason))
    if not is_selected(site, options):
        return _left_alone(site, Reason("not-selected", "left alone by --only or --skip"))
    if request.keep is not None:
        return _left_alone(site, request.keep)
    if request.form == "normalised" and not isinstance(site, UpsampleSite):
        return _left_alone(site, Reason("already-explicit", "it is no ConvTranspose"))
    if site.unless_faster is not None and not is_considered(site, request, options):
        return PlannedSite(site, site, report_on(site, "kept", site.unless_faster))
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
        return PlannedSite(site, site, report_on(site, status, rewrite))
    return planned_as(site, longer, rewrite)


def _left_alone(site: Site, reason: Reason) -> PlannedSite:
    return PlannedSite(site, site, report_on(site, "kept", reason), selected=False)


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


def planned_as(found: Site, site: Site, rewrite: Rewrite) -> PlannedSite:
    """The site ``found``, to be replaced by ``rewrite``; ``site`` includes what that absorbs."""
    summary = rewrite.summary
    report = replace(
        report_on(site, "rewritten", None),
        nodes=tuple(rewrite.scope.label(node) for node in rewrite.nodes),
        requantized=summary.requantized,
        form=summary.form,
        shuffle=summary.shuffle,
        conv_kernel=summary.conv_kernel,
        macs=summary.macs,
    )
    return PlannedSite(found, site, report, rewrite)


def report_on(site: Site, status: Status, reason: Reason | None) -> SiteReport:
    """The report of a site that is not rewritten, or of which the rewrite is not known yet."""
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
