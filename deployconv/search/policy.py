"""From a policy to a plan for each site, and to the opset that the plans need."""

from __future__ import annotations

from dataclasses import replace

from onnx import ModelProto

from deployconv.graph.load import LoadedModel
from deployconv.graph.opset import lift, why_not_lifted
from deployconv.options import Policy, RewriteOptions
from deployconv.results import Candidate, Prediction, Reason
from deployconv.rewrites.planning import PlannedSite, Planning, plan_model
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.runtimes import Runtime, get_runtime
from deployconv.runtimes.base import ModelSource
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Tuned, TunerOptions
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
        original: the same for the backend.
        options: the policy and which sites it is for.
        tuner: how ``fastest`` measures; for what backend, threads and sizes ``cost`` predicts.
        upgrade_opset: raise the model to the opset of Col2Im where that changes nothing; None
            does so for ``cost`` and ``fastest`` if the backend has a fast Col2Im.
    """
    chooses = options.policy != "all"
    runtime = get_runtime(tuner.backend)
    wanted = upgrade_opset or (upgrade_opset is None and chooses and runtime.prefers_col2im)
    obstacle = why_not_lifted(model.proto, _HIGHEST_OPSET) if wanted else None
    lifted = _lifted(model) if wanted and obstacle is None else model
    warnings: tuple[str, ...] = ()
    if upgrade_opset and obstacle is not None:
        warnings = (f"opset not raised: {obstacle}",)
    if not chooses:
        planning = plan_model(lifted, options)
        if lifted is not model and not _needs(planning, model):
            planning = plan_model(model, options)
        return replace(planning, warnings=(*planning.warnings, *warnings))
    candidates = Candidates.of(lifted, options)
    if options.policy == "cost":
        tuned = predict(candidates, tuner)
        warnings += _unfitted(runtime)
    else:
        # It imports what runs and times models.
        from deployconv.search.tuner import tune

        fitted = TABLES[runtime.cost_table].fitted
        tuned = tune(candidates, original, tuner, predict if fitted else None)
    planning = candidates.with_choices(tuned.choices)
    if lifted is not model and not _needs(planning, model):
        planning = Candidates.of(model, options).with_choices(tuned.choices)
    sites = tuple(_shown(site, tuned, options.policy, tuner) for site in planning.sites)
    return replace(planning, sites=sites, warnings=(*planning.warnings, *warnings))


def _unfitted(runtime: Runtime) -> tuple[str, ...]:
    """A warning where the predictions rest on nothing that was measured."""
    if TABLES[runtime.cost_table].fitted:
        return ()
    return (f"--policy cost: its constants for '{runtime.name}' are chosen, not fitted",)


def _shown(planned: PlannedSite, tuned: Tuned, policy: Policy, tuner: TunerOptions) -> PlannedSite:
    """The site with what was measured or predicted for it in its report."""
    report = planned.report
    found = tuned.candidates.get(report.id, ())
    reason = report.reason
    if policy == "cost" and not found and reason is not None and reason.code == "slower":
        text = "sizes that the prediction needs do not follow from those of the inputs"
        report = replace(report, reason=Reason("unpredicted", text))
    if policy == "fastest" and reason is not None and reason.code == "slower" and _untimed(found):
        text = "predicted to be slower, or not measured to be faster beside other sites"
        report = replace(report, reason=Reason("slower", f"{text}: no time for a race of its own"))
    if report.id in tuned.over_memory and report.status == "kept":
        text = f"faster forms take the model more than {tuner.max_memory:g} times the memory"
        report = replace(report, reason=Reason("slower", text))
    return replace(planned, report=replace(report, candidates=found))


def _untimed(found: tuple[Candidate | Prediction, ...]) -> bool:
    """True where the time was too short for any form of the site by itself."""
    return bool(found) and all(isinstance(entry, Prediction) for entry in found)


def _needs(planning: Planning, model: LoadedModel) -> bool:
    """True if a site takes a shuffle that the opset of ``model`` does not have."""
    taken = (planned.report.shuffle for planned in planning.sites)
    return any(name is not None and SHUFFLES[name].min_opset > model.info.opset for name in taken)


def _lifted(model: LoadedModel) -> LoadedModel:
    """A copy at the opset of Col2Im, or the model itself where it is there already."""
    if model.info.opset >= _HIGHEST_OPSET:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    lift(proto, _HIGHEST_OPSET)
    return replace(model, proto=proto, info=replace(model.info, opset=_HIGHEST_OPSET))
