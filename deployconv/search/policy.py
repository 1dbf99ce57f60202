"""Plan every site of a model as the policy says, and raise the opset if that is worth it."""

from __future__ import annotations

from dataclasses import replace

from onnx import ModelProto

from deployconv.graph.load import LoadedModel
from deployconv.graph.opset import lift, why_not_lifted
from deployconv.options import Policy, RewriteOptions
from deployconv.results import Candidate, Prediction, Reason
from deployconv.rewrites.planning import PlannedSite, Planning
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.runtimes import get_runtime
from deployconv.runtimes.base import ModelSource
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Decision, TunerOptions
from deployconv.search.cost_model import predict
from deployconv.search.cost_table import TABLES

_HIGHEST_OPSET = max(shuffle.min_opset for shuffle in SHUFFLES.values())
"""The first opset that has all shuffles."""


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
        # It imports what runs and times models.
        from deployconv.search.tuner import tune

        tuned = tune(candidates, original, tuner, predict if fitted else None)
    elif options.policy == "cost":
        tuned = predict(candidates, tuner)
        if not fitted:
            text = f"its constants for '{runtime.name}' are chosen, not fitted"
            warnings += (f"--policy cost: {text}",)
    planning = candidates.with_choices(tuned.choices) if chooses else candidates.planning
    if lifted is not model and not _needs_later_opset(planning, model):
        candidates = Candidates.of(model, options)
        # This plans only the sites that were chosen.
        planning = candidates.with_choices(tuned.choices) if chooses else candidates.planning
    sites = tuple(_with_findings(site, tuned, options.policy, tuner) for site in planning.sites)
    return replace(planning, sites=sites, warnings=(*planning.warnings, *warnings))


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
        reason = Reason("unpredicted", text)
    if slower and policy == "fastest" and _only_predicted(candidates):
        text = "predicted to be slower, or not measured to be faster beside other sites"
        reason = Reason("slower", f"{text}: no time for a race of its own")
    if report.id in tuned.over_memory and report.status != "rewritten":
        text = f"faster forms take the model more than {tuner.max_memory:g} times the memory"
        reason = Reason("slower", text)
    return replace(planned, report=replace(report, reason=reason, candidates=candidates))


def _only_predicted(candidates: tuple[Candidate | Prediction, ...]) -> bool:
    """Whether there was no time to time any form of the site by itself."""
    return bool(candidates) and all(isinstance(entry, Prediction) for entry in candidates)


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
