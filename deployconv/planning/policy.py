"""From a policy to a plan for each site, and to the opset that the plans need."""

from __future__ import annotations

from dataclasses import replace

from onnx import ModelProto

from deployconv.backends.base import ModelSource
from deployconv.lowering.shuffle import COL2IM_OPSET
from deployconv.model.load import LoadedModel
from deployconv.model.opset import lift, why_not_lifted
from deployconv.options import RewriteOptions
from deployconv.pipeline import Planned, Planning, plan_model
from deployconv.planning.tuner import Tuned, TunerOptions, tune


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
        tuner: how ``fastest`` measures.
        upgrade_opset: raise the model to the opset of Col2Im where that changes nothing; None
            does so for ``fastest`` on onnxruntime.
    """
    fastest = options.policy == "fastest"
    wanted = upgrade_opset or (upgrade_opset is None and fastest and tuner.backend == "ort")
    obstacle = why_not_lifted(model.proto, COL2IM_OPSET) if wanted else None
    lifted = _lifted(model) if wanted and obstacle is None else model
    warnings = () if not upgrade_opset or obstacle is None else (f"opset not raised: {obstacle}",)
    if not fastest:
        planning = plan_model(lifted, options)
        if lifted is not model and not _needs(planning):
            planning = plan_model(model, options)
        return replace(planning, warnings=(*planning.warnings, *warnings))
    tuned = tune(lifted, original, options, tuner)
    needed = any(choice.shuffle == "col2im" for choice in tuned.choices.values())
    planning = plan_model(lifted if needed else model, options, tuned.choices)
    sites = tuple(_shown(site, tuned) for site in planning.sites)
    return replace(planning, sites=sites, warnings=(*planning.warnings, *warnings))


def _shown(planned: Planned, tuned: Tuned) -> Planned:
    """The site with what was measured for it in its report."""
    found = tuned.candidates.get(planned.report.id, ())
    return replace(planned, report=replace(planned.report, candidates=found))


def _needs(planning: Planning) -> bool:
    """True where a site takes a form that the model's own opset does not have."""
    return any(planned.report.shuffle == "col2im" for planned in planning.sites)


def _lifted(model: LoadedModel) -> LoadedModel:
    """A copy at the opset of Col2Im, or the model itself where it is there already."""
    if model.info.opset >= COL2IM_OPSET:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    lift(proto, COL2IM_OPSET)
    return replace(model, proto=proto, info=replace(model.info, opset=COL2IM_OPSET))
