"""The one way the data flows: view -> sites -> plans -> certificates -> splice.

What runs whole models (parity, latency) and what writes files stands in `api.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Protocol

from deployconv.errors import UsageError
from deployconv.lowering import Plan, ShufflePlan, new_nodes, plan_shuffle, plan_site
from deployconv.model.load import LoadedModel
from deployconv.model.splice import AttributeEdit, Names, Replacement, splice
from deployconv.model.view import View, view
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.results import Reason, SiteReport, Status
from deployconv.sites import Geometry, ShuffleSite, Site, SkippedSite, UpsampleSite, find_sites


class Choice(Protocol):
    """The form and the shuffle of one site."""

    @property
    def form(self) -> Form: ...
    @property
    def shuffle(self) -> Shuffle: ...


Choices = Mapping[str, Choice]
"""By the site's id."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A site with its report; ``plan`` is None where it is left alone."""

    site: Site
    report: SiteReport
    plan: Plan | ShufflePlan | None


@dataclass(frozen=True, eq=False)
class Planning:
    """All sites of a model, planned, in graph order."""

    view: View
    sites: tuple[Planned, ...]
    warnings: tuple[str, ...] = ()

    @property
    def reports(self) -> tuple[SiteReport, ...]:
        """What is known of each site so far."""
        return tuple(planned.report for planned in self.sites)


def plan_model(
    model: LoadedModel, options: RewriteOptions, choices: Choices | None = None
) -> Planning:
    """Find every site of ``model`` and decide what becomes of it.

    ``choices`` has the form of each site by its id, in place of those in ``options``; a site
    that it does not name stays as it is.

    Raises UsageError where ``options.only`` or ``skip`` has a pattern that fits no site.
    """
    seen = view(model, options.freeze_initializers)
    sites = find_sites(seen)
    _check_globs((*options.only, *options.skip), sites)
    planned = tuple(_plan(site, options, choices) for site in sites)
    return Planning(seen, planned, tuple(_fallbacks(planned, options)))


def certify_sites(planning: Planning, seed: int) -> Planning:
    """Certify every site that has a plan; the verdicts are in the reports.

    Raises BackendUnavailable where a site can be run by no runtime here.
    """
    from deployconv.proof.certificate import certify

    done = []
    for planned in planning.sites:
        if planned.plan is not None and not isinstance(planned.site, SkippedSite):
            verdict = certify(planned.site, planned.plan, seed)
            planned = replace(planned, report=planned.report.with_certificate(verdict))
        done.append(planned)
    return replace(planning, sites=tuple(done))


def failed_certificates(reports: Iterable[SiteReport]) -> list[str]:
    """Ids of the sites whose certificate failed."""
    return [report.id for report in reports if report.certificate == "failed"]


def apply(planning: Planning) -> frozenset[str]:
    """Edit the model's proto as planned; returns the names of the tensors added."""
    names = Names(planning.view.model.proto)
    edits: list[Replacement | AttributeEdit] = []
    for planned in planning.sites:
        site = planned.site
        if planned.plan is not None and not isinstance(site, SkippedSite):
            fresh = names.maker(site.scope.label(site.nodes[-1]))
            # What led to the last node goes too, unless something else reads it (`splice`).
            new = new_nodes(site, planned.plan, fresh)
            edits.append(Replacement(site.scope, site.nodes[-1:], new))
        elif isinstance(site, UpsampleSite) and site.explicit_attributes is not None:
            edits.append(AttributeEdit(site.scope, site.nodes[-1], site.explicit_attributes))
    return splice(planning.view, edits)


def _plan(site: Site, options: RewriteOptions, choices: Choices | None) -> Planned:
    if isinstance(site, SkippedSite):
        return Planned(site, _report(site, "skipped", site.reason), None)
    if not _selected(site, options):
        reason = Reason("not-selected", "left alone by --only or --skip")
        return Planned(site, _report(site, "kept", reason), None)
    if choices is not None:
        choice = choices.get(site.id)
        if choice is None:
            reason = Reason("slower", "no other form of it was measured to be faster")
            return Planned(site, _report(site, "kept", reason), None)
        options = replace(options, form=choice.form, shuffle=choice.shuffle)
    if isinstance(site, ShuffleSite):
        return _plan_shuffle(site, options)
    plan = plan_site(site, options.form, options.shuffle)
    if isinstance(plan, Reason):
        return Planned(site, _report(site, "skipped", plan), None)
    report = replace(
        _report(site, "rewritten", None),
        form=plan.form,
        shuffle=plan.shuffle,
        conv_kernel=plan.conv_kernel,
        macs=plan.macs,
    )
    return Planned(site, report, plan)


def _plan_shuffle(site: ShuffleSite, options: RewriteOptions) -> Planned:
    plan = plan_shuffle(site, options.shuffle)
    if isinstance(plan, Reason):
        return Planned(site, _report(site, "kept", plan), None)
    report = _report(site, "rewritten", None)
    return Planned(site, replace(report, shuffle=plan.shuffle, conv_kernel=report.kernel), plan)


def _report(site: Site, status: Status, reason: Reason | None) -> SiteReport:
    geometry: Geometry | None = site.geometry
    dtype = site.weight.dtype.name if isinstance(site, UpsampleSite) else site.dtype
    return SiteReport(
        id=site.id,
        pattern=site.pattern,
        nodes=tuple(site.scope.label(node) for node in site.nodes),
        scope=site.scope.path,
        stride=geometry.stride if geometry else None,
        kernel=geometry.kernel if geometry else None,
        dilation=geometry.dilation if geometry else None,
        group=geometry.group if geometry else None,
        dtype=dtype,
        status=status,
        reason=reason,
    )


def _matches(site: Site, glob: str) -> bool:
    """By id, or by the node's own name."""
    return any(fnmatchcase(name, glob) for name in (site.id, site.scope.label(site.nodes[-1])))


def _selected(site: Site, options: RewriteOptions) -> bool:
    wanted = not options.only or any(_matches(site, glob) for glob in options.only)
    return wanted and not any(_matches(site, glob) for glob in options.skip)


def _check_globs(globs: Sequence[str], sites: Sequence[Site]) -> None:
    for glob in globs:
        if not any(_matches(site, glob) for site in sites):
            known = ", ".join(site.id for site in sites) or "none"
            raise UsageError(f"no site matches '{glob}': the model's sites are {known}")


def _fallbacks(planned: Sequence[Planned], options: RewriteOptions) -> list[str]:
    if options.shuffle == "auto":
        return []
    return [
        f"{item.report.id}: shuffle '{options.shuffle}' does not fit, '{item.report.shuffle}' taken"
        for item in planned
        if item.report.shuffle not in (None, options.shuffle)
    ]
