"""The one way the data flows: view -> sites -> plans -> certificates -> splice.

What runs whole models (parity, latency) and what writes files stands in `api.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from deployconv.errors import UsageError
from deployconv.graph.load import LoadedModel
from deployconv.graph.splice import AttributeEdit, Names, Replacement, Spliced, splice
from deployconv.graph.view import View, view
from deployconv.match import Geometry, ShuffleSite, Site, SkippedSite, UpsampleSite, find_sites
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.results import Reason, SiteReport, Status
from deployconv.rewrites.joining import Choice, Planned, Reach, not_selected, peers, with_chain
from deployconv.rewrites.lowering import (
    MatrixPlan,
    Plan,
    SeparablePlan,
    new_nodes,
    plan_matrix,
    plan_separable,
    plan_shuffle,
    plan_site,
    with_folded,
)
from deployconv.rewrites.lowering.requantize import requantization
from deployconv.rewrites.lowres.fold import folded
from deployconv.rewrites.lowres.trim import trimmed

Choices = Mapping[str, Choice]
"""By the site's id."""


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
    sites = tuple(_as_asked(site, options) for site in sites)
    _check_globs((*options.only, *options.skip), sites)
    planned = [_plan(site, options, choices, seen) for site in sites]
    planned = _chained(planned, _integers(planned) if choices is None else choices, seen)
    warnings = (*_fallbacks(planned, options), *_requantized(planned))
    return Planning(seen, tuple(planned), warnings)


def certify_sites(planning: Planning, seed: int) -> Planning:
    """Certify every site that has a plan; the verdicts are in the reports.

    Raises BackendUnavailable where a site can be run by no runtime here.
    """
    from deployconv.proof.certificate import Verdict, certify

    done = []
    verdicts: dict[str, Verdict] = {}
    for planned in planning.sites:
        name, verdict = planned.report.id, verdicts.get(planned.head or "")
        if planned.subject is not None and planned.plan is not None:
            verdict = verdicts[name] = certify(planned.subject, planned.plan, seed)
        if verdict is not None:
            planned = replace(planned, report=planned.report.with_certificate(verdict))
        done.append(planned)
    return replace(planning, sites=tuple(done))


def failed_certificates(reports: Iterable[SiteReport]) -> list[str]:
    """Ids of the sites whose certificate failed."""
    return [report.id for report in reports if report.certificate == "failed"]


def apply(planning: Planning) -> Spliced:
    """Make a copy of the model with what is planned; the model itself is not changed."""
    names = Names(planning.view.names)
    edits: list[Replacement | AttributeEdit] = []
    for planned in planning.sites:
        site, subject = planned.site, planned.subject
        if subject is not None and planned.plan is not None:
            fresh = names.maker(site.scope.label(site.layer))
            # What led to the last node goes too, unless something else reads it (`splice`).
            new = new_nodes(subject, planned.plan, fresh)
            edits.append(Replacement.of(site.scope, subject.nodes[-1:], new))
        elif planned.head is not None or not isinstance(site, UpsampleSite):
            continue
        elif _is_slower(planned) and folds_in_place(site):
            fresh = names.maker(site.scope.label(site.layer))
            new = with_folded(site, fresh)
            edits.append(Replacement.of(site.scope, site.nodes[-1:], new))
        elif site.explicit_attributes is not None:
            place = site.scope.index(site.layer)
            edits.append(AttributeEdit(site.scope, place, site.explicit_attributes))
    return splice(planning.view, edits)


def folds_in_place(site: UpsampleSite) -> bool:
    """True for a layer that takes the affine layers behind it where it is kept as the faster."""
    return bool(site.folds) and not site.trims


def _is_slower(planned: Planned) -> bool:
    return planned.report.reason is not None and planned.report.reason.code == "slower"


def _plan(site: Site, options: RewriteOptions, choices: Choices | None, seen: View) -> Planned:
    if isinstance(site, SkippedSite):
        return Planned(site, _report(site, "skipped", site.reason), None)
    if not _selected(site, options):
        reason = Reason("not-selected", "left alone by --only or --skip")
        return Planned(site, _report(site, "kept", reason), None)
    if choices is not None:
        choice = choices.get(site.id)
        if choice is None:
            asked = _plan(site, options, None, seen)
            if asked.plan is None:
                return asked  # there was nothing to choose from
            how = "predicted" if options.policy == "cost" else "measured"
            reason = Reason("slower", f"no other form of it was {how} to be faster")
            kept = replace(_report(site, "kept", reason), nodes=asked.report.nodes)
            return replace(asked, report=kept, plan=None, chain=None)
        options = replace(options, form=choice.form, shuffle=choice.shuffle)
    if isinstance(site, ShuffleSite):
        return _plan_shuffle(site, options)
    found, site = site, _with_tail(site, seen)
    plan: Plan | SeparablePlan | MatrixPlan | Reason | None = None
    if options.form == "separable":
        plan = plan_separable(site, options.shuffle)
    elif options.form == "matrix":
        plan = plan_matrix(site)
    plan = plan or plan_site(site, options.form, options.shuffle)
    if isinstance(plan, Plan) and choices is not None:
        plan = replace(plan, halves=choices[site.id].halves)
    if isinstance(plan, Reason):
        return Planned(found, _report(found, "skipped", plan), None)
    report = replace(
        _report(site, "rewritten", None),
        requantized=requantization(site, plan) if isinstance(plan, Plan) else None,
        form=plan.form,
        shuffle=plan.shuffle,
        conv_kernel=plan.conv_kernel,
        macs=plan.macs,
    )
    return Planned(site, report, plan, found=found)


def _with_tail(site: UpsampleSite, view: View) -> UpsampleSite:
    """``site`` with the Slices and affine layers behind it, in whatever order they come."""
    while True:
        longer = folded(trimmed(site, view), view)
        if longer.nodes == site.nodes:
            return site
        site = longer


def _chained(planned: Sequence[Planned], choices: Choices, view: View) -> list[Planned]:
    """Give the sites whose choice says so their chains; those that join one have no plan."""
    barred = not_selected(planned)
    others = peers(planned, barred)
    joined: dict[int, str] = {}
    found = []
    for item in planned:
        last, choice = id(item.site.layer), choices.get(item.report.id)
        if last in joined:
            item = Planned(item.site, _report(item.site, "rewritten", None), head=joined[last])
        elif choice is not None and choice.chain != "none":
            item = with_chain(item, view, choice, barred, others)
            behind = item.chain.nodes if item.chain else ()
            joined.update((id(node), item.report.id) for node in behind)
        found.append(item)
    return found


@dataclass(frozen=True)
class _OnGrid:
    """A layer of integer weights takes its QuantizeLinear in, or it would be no integer layer."""

    form: Form = "auto"
    shuffle: Shuffle = "auto"
    chain: Reach = "grid"
    halves: bool = False


def _integers(planned: Iterable[Planned]) -> Choices:
    sites = (item.site for item in planned if isinstance(item.site, UpsampleSite))
    return {site.id: _OnGrid() for site in sites if site.weight.quantized is not None}


def _plan_shuffle(site: ShuffleSite, options: RewriteOptions) -> Planned:
    plan = plan_shuffle(site, options.shuffle)
    if isinstance(plan, Reason):
        return Planned(site, _report(site, "kept", plan), None)
    report = _report(site, "rewritten", None)
    return Planned(site, replace(report, shuffle=plan.shuffle, conv_kernel=report.kernel), plan)


def _report(site: Site, status: Status, reason: Reason | None) -> SiteReport:
    geometry: Geometry | None = site.geometry
    dtype = site.weight.stored.name if isinstance(site, UpsampleSite) else site.dtype
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
    return any(fnmatchcase(name, glob) for name in (site.id, site.scope.label(site.layer)))


def _selected(site: Site, options: RewriteOptions) -> bool:
    wanted = not options.only or any(_matches(site, glob) for glob in options.only)
    return wanted and not any(_matches(site, glob) for glob in options.skip)


def _check_globs(globs: Sequence[str], sites: Sequence[Site]) -> None:
    for glob in globs:
        if not any(_matches(site, glob) for site in sites):
            known = ", ".join(site.id for site in sites) or "none"
            raise UsageError(f"no site matches '{glob}': the model's sites are {known}")


def _as_asked(site: Site, options: RewriteOptions) -> Site:
    """The site with what the call says of integer weights and biases."""
    if not isinstance(site, UpsampleSite):
        return site
    bias = site.bias
    if options.float_bias and bias is not None:
        bias = replace(bias, quantized=None)
    return replace(site, requantize=options.allow_requantize, bias=bias)


def _requantized(planned: Sequence[Planned]) -> list[str]:
    """What is no longer exact, as the call allowed."""
    return [
        f"{item.report.id}: new scales, as --allow-requantize says: its weights move by up to"
        f" {error.max_error:.2%} of the largest ({error.rms_error:.2%} rms)"
        for item in planned
        if (error := item.report.requantized) is not None
    ]


_MAY_NOT_FIT = ("split", "separable", "matrix")


def _fallbacks(planned: Sequence[Planned], options: RewriteOptions) -> Iterator[str]:
    """What was asked for by name and gave way."""
    for item in planned:
        found = {"form": item.report.form, "shuffle": item.report.shuffle}
        asked = {
            "shuffle": options.shuffle,
            "form": options.form if options.form in _MAY_NOT_FIT else "auto",
        }
        for kind, name in asked.items():
            if name != "auto" and found[kind] not in (None, name):
                yield f"{item.report.id}: {kind} '{name}' does not fit, '{found[kind]}' taken"
