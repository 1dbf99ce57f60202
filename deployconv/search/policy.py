"""Plan every site of a model as the policy says, and raise the opset if that is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import ModelProto

from deployconv.errors import CheckFailed
from deployconv.graph.load import LoadedModel
from deployconv.graph.opset import lift, why_not_lifted
from deployconv.options import Policy, RewriteOptions
from deployconv.results import Candidate, NotRun, Prediction, Reason, Rewriting, Step
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import Planning
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.runtimes import Runtime, get_runtime
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.machine import usable_cpus
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Decision, TunerOptions
from deployconv.search.cost_model import predict
from deployconv.search.cost_table import TABLES

if TYPE_CHECKING:
    from deployconv.search.workbench import FormFailed

_HIGHEST_OPSET = max(shuffle.min_opset for shuffle in SHUFFLES.values())
"""The first opset that has all shuffles."""
_UNCONFIRMED = (
    "--policy fastest: there was no time to compare the model with the original, so what is"
    " predicted to be faster was taken: give a larger --budget"
)


def plan_by_policy(
    model: LoadedModel,
    original: ModelSource,
    options: RewriteOptions,
    tuner: TunerOptions,
    upgrade_opset: bool | None,
) -> Planning:
    """Plan every site of ``model``; the planning may be of a copy at a later opset.

    Args:
        model: what is rewritten.
        original: the same model, as the backend takes it.
        options: the policy and which sites it is for.
        tuner: how ``fastest`` measures; for what backend, threads and sizes ``cost`` predicts.
        upgrade_opset: raise the model to the opset of Col2Im if nothing else changes; None does so
            for ``cost`` and ``fastest`` if the backend has a fast Col2Im.
    """
    chooses = options.policy != "all"
    runtime = get_runtime(tuner.backend)
    wanted = upgrade_opset or (upgrade_opset is None and chooses and runtime.prefers_col2im)
    obstacle = why_not_lifted(model.proto, _HIGHEST_OPSET) if wanted else None
    lifted = _lifted(model) if wanted and obstacle is None else model
    warnings: tuple[str, ...] = ()
    if upgrade_opset and obstacle is not None:
        warnings = (f"opset not raised: {obstacle}",)
    candidates, tuned = Candidates.of(lifted, options), Decision()
    fitted = TABLES[runtime.cost_table].fitted
    if options.policy == "fastest":
        # They import what runs and times models.
        from deployconv.search.tuner import tune
        from deployconv.search.workbench import FormFailed

        try:
            tuned = tune(candidates, original, tuner, predict if fitted else None)
        except FormFailed as failure:
            raise CheckFailed(str(failure), _failed(candidates, failure, warnings)) from failure
        if tuned.choices.keys() - tuned.compared:
            warnings += (_UNCONFIRMED,)
    elif options.policy == "cost":
        tuned = predict(candidates, tuner)
        if doubt := _doubt(runtime, tuner):
            warnings += (f"--policy cost: {doubt}",)
    planning = candidates.with_choices(tuned.choices) if chooses else candidates.planning
    if lifted is not model and not _needs_later_opset(planning, model):
        candidates = Candidates.of(model, options)
        if not chooses:
            planning = candidates.planning
        # This plans only the sites that were chosen.
        elif candidates.offer(tuned.choices):
            planning = candidates.with_choices(tuned.choices)
    sites = tuple(_with_findings(site, tuned, options.policy, tuner) for site in planning.sites)
    return replace(planning, sites=sites, warnings=(*planning.warnings, *warnings))


def _doubt(runtime: Runtime, tuner: TunerOptions) -> str | None:
    """Why the predictions may be worse than usual; None if nothing is known against them."""
    table, threads = TABLES[runtime.cost_table], tuner.threads or usable_cpus()
    if not table.fitted:
        return f"its constants for '{runtime.name}' are chosen, not fitted"
    if table.most_threads is not None and threads > table.most_threads:
        return (
            f"its constants were fitted with up to {table.most_threads} threads, and it"
            f" extrapolates to {threads}: Col2Im, for one, runs on one thread however many there"
            " are; --policy fastest measures"
        )
    return None


def _failed(candidates: Candidates, failure: FormFailed, warnings: tuple[str, ...]) -> Rewriting:
    """What is known when a form fails its proof before anything was chosen."""
    planning = candidates.with_choices(failure.choices)
    in_doubt = failure.site is not None
    reports = tuple(
        replace(
            report,
            certificate="failed" if report.id == failure.site else None if in_doubt else "exact",
            certificate_failure=failure.failure if report.id == failure.site else None,
        )
        if report.status == "rewritten"
        else report
        for report in planning.reports
    )
    steps: tuple[Step, ...] = ("parity", "latency") if in_doubt else ("latency",)
    reason = "a certificate failed" if in_doubt else "parity failed"
    return Rewriting(
        candidates.model.info,
        reports,
        parity=failure.parity,
        not_run=tuple(NotRun(step, reason) for step in steps),
        warnings=(*planning.warnings, *warnings),
    )


def _with_findings(
    planned: PlannedSite, tuned: Decision, policy: Policy, tuner: TunerOptions
) -> PlannedSite:
    """The site with what was measured or predicted for it in its report."""
    report = planned.report
    candidates = tuned.candidates.get(report.id, ())
    slower = report.reason is not None and report.reason.code == "slower"
    reason = report.reason
    if slower and policy == "cost" and not candidates:
        text = "sizes that the prediction needs do not follow from those of the inputs"
        if tuned.not_observed is not None:
            text += f", nor does one run show them: {tuned.not_observed}"
        reason = Reason("unpredicted", text)
    if slower and policy == "fastest":
        reason = _measured(report.id, candidates, tuned)
    if report.id in tuned.over_memory and report.status != "rewritten":
        text = f"faster forms take the model more than {tuner.max_memory:g} times the memory"
        reason = Reason("slower", text)
    return replace(planned, report=replace(report, reason=reason, candidates=candidates))


def _measured(site: str, candidates: Sequence[Candidate | Prediction], tuned: Decision) -> Reason:
    """Why ``fastest`` leaves a site as it was."""
    if any(isinstance(entry, Candidate) for entry in candidates):
        return Reason("slower", "no other form was measured to be faster")
    if site in tuned.compared:
        return Reason("slower", "together with the other sites it was not measured to be faster")
    if candidates and site not in tuned.predicted:
        return Reason("slower", "no other form is predicted to save enough")
    return Reason("no-time", "there was no time to measure any form: give a larger --budget")


def _needs_later_opset(planning: Planning, model: LoadedModel) -> bool:
    """Whether a site takes a shuffle that the opset of ``model`` does not have."""
    taken = (planned.report.shuffle for planned in planning.sites)
    return any(name is not None and SHUFFLES[name].min_opset > model.info.opset for name in taken)


def _lifted(model: LoadedModel) -> LoadedModel:
    """A copy at the opset of Col2Im, or the model itself if it has that opset already."""
    if model.info.opset >= _HIGHEST_OPSET:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    lift(proto, _HIGHEST_OPSET)
    return replace(model, proto=proto, info=replace(model.info, opset=_HIGHEST_OPSET))
